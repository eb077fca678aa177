//! The API itself: keys, projects, contacts, validation, replay by idempotency key, and the faults in between.
//!
//! A call has two halves, [`State::begin`] and [`State::finish`], with its latency between them: so that a repeat can
//! meet a call that is still running. 4xx answers are cached under their key as successes are; 401, 429 and 5xx are not.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::answer::{Answer, Reply};
use super::faults::{Faults, Next};
use super::ledger::{Entry, Ledger};

/// How long an answer is replayed, in milliseconds.
const REPLAY_MS: u64 = 24 * 3600 * 1000;
/// The most emails in one call.
const MAX_EMAILS: usize = 1000;

/// What the stand-in starts with.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct Data {
    /// Project → its contacts.
    pub projects: HashMap<String, Vec<String>>,
    /// Projects in which every email is a contact but those that begin with `unknown`.
    pub open_projects: HashSet<String>,
    /// Every project is such a one.
    pub open_world: bool,
}

#[derive(Debug, Default)]
struct Project {
    contacts: HashSet<String>,
    /// Every email is a contact until it is deleted, but those that begin with `unknown`.
    open: bool,
    deleted: HashSet<String>,
}

/// A call as it arrives.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// `Authorization`.
    pub authorization: Option<&'a str>,
    /// `Idempotency-Key`.
    pub idempotency_key: Option<&'a str>,
    /// The body.
    pub body: &'a [u8],
}

/// A call between its two halves.
#[derive(Debug)]
#[must_use]
pub struct Pending {
    /// How long it takes, in milliseconds.
    pub latency_ms: u64,
    place: Option<Place>,
    digest: [u8; 32],
    fate: Fate,
}

/// An idempotency key, within its API key.
type Place = (String, String);

#[derive(Debug)]
enum Fate {
    Reply(Reply),
    Work { parsed: Box<Parsed>, then: Then },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Answer,
    Drop,
    Garbage,
    Status(u16),
}

#[derive(Debug)]
struct Parsed {
    project: String,
    emails: Vec<String>,
}

#[derive(Debug)]
struct Cached {
    digest: [u8; 32],
    answer: Answer,
    at: u64,
}

/// The API's whole state.
#[derive(Debug)]
pub struct State {
    api_key: String,
    projects: HashMap<String, Project>,
    open_world: bool,
    /// The faults in force.
    pub faults: Faults,
    /// What was really done.
    pub ledger: Ledger,
    cache: HashMap<Place, Cached>,
    running: HashSet<Place>,
    dice: u64,
    worked: u64,
    tokens: f64,
    tokens_at: u64,
    requests: u64,
}

impl State {
    /// Calls that have been taken and are not answered yet.
    #[must_use]
    pub fn calls_under_way(&self) -> usize {
        self.running.len()
    }

    /// An API that takes this key, with these contacts and seeded dice.
    #[must_use]
    pub fn new(api_key: &str, data: Data, seed: u64) -> Self {
        let mut state = Self {
            api_key: api_key.to_owned(),
            projects: HashMap::new(),
            open_world: data.open_world,
            faults: Faults::default(),
            ledger: Ledger::default(),
            cache: HashMap::new(),
            running: HashSet::new(),
            dice: seed,
            worked: 0,
            tokens: 0.0,
            tokens_at: 0,
            requests: 0,
        };
        state.add(data);
        state
    }

    /// Adds projects and contacts.
    pub fn add(&mut self, data: Data) {
        self.open_world |= data.open_world;
        for (project, contacts) in data.projects {
            let project = self.projects.entry(project).or_default();
            project.contacts.extend(contacts.iter().map(|email| email.to_lowercase()));
        }
        for project in data.open_projects {
            self.projects.entry(project).or_default().open = true;
        }
    }

    /// Takes another API key from now on.
    pub fn set_api_key(&mut self, api_key: &str) {
        api_key.clone_into(&mut self.api_key);
    }

    /// As if the time that answers are replayed for had passed.
    pub fn forget_answers(&mut self) {
        self.cache.clear();
    }

    /// The contacts of a project; `None` where there is no such project.
    #[must_use]
    pub fn contacts(&self, project: &str) -> Option<Vec<&str>> {
        self.projects.get(project).map(|project| project.contacts.iter().map(String::as_str).collect())
    }

    /// The first half of a call: everything up to its work. `now` is in milliseconds since the Unix epoch.
    pub fn begin(&mut self, call: Call<'_>, now: u64) -> Pending {
        self.ledger.summary.calls += 1;
        let latency_ms = match self.faults.jitter_ms {
            0 => self.faults.latency_ms,
            jitter => self.faults.latency_ms + self.roll() % (jitter + 1),
        };
        let digest: [u8; 32] = Sha256::digest(call.body).into();
        let reply = |reply| Pending { latency_ms, place: None, digest, fate: Fate::Reply(reply) };
        let then = match self.trouble(now) {
            Ok(then) => then,
            Err(trouble) => return reply(trouble),
        };
        let bearer = call.authorization.and_then(|text| text.strip_prefix("Bearer "));
        let Some(bearer) = bearer.filter(|key| *key == self.api_key && !self.faults.refuse_all_keys) else {
            return reply(Reply::Answer(Answer::of_status(401)));
        };
        let place = call.idempotency_key.map(|key| (bearer.to_owned(), key.to_owned()));
        if let Some(place) = &place {
            if place.1.len() > 100 {
                return reply(Reply::Answer(Answer::error(400, "INVALID_IDEMPOTENCY_KEY", "At most 100 characters")));
            }
            if self.running.contains(place) {
                return reply(Reply::Answer(Answer::error(
                    409,
                    "IDEMPOTENCY_IN_PROGRESS",
                    "The first call still runs",
                )));
            }
            if let Some(cached) = self.cache.get(place).filter(|cached| now.saturating_sub(cached.at) < REPLAY_MS) {
                if cached.digest != digest {
                    self.ledger.summary.conflicts += 1;
                    return reply(Reply::Answer(Answer::of_status(409)));
                }
                self.ledger.summary.replayed += 1;
                let answer = cached.answer.clone().with("Idempotent-Replayed", &true);
                return reply(if then == Then::Drop { Reply::Dropped } else { Reply::Answer(answer) });
            }
        }
        let fate = match self.validate(call.body) {
            Err(refusal) => {
                if let Some(place) = place {
                    self.cache.insert(place, Cached { digest, answer: refusal.clone(), at: now });
                }
                return reply(Reply::Answer(refusal));
            }
            Ok(parsed) => Fate::Work { parsed: Box::new(parsed), then },
        };
        self.running.extend(place.clone());
        Pending { latency_ms, place, digest, fate }
    }

    /// The second half: the work, and what the caller hears of it.
    #[must_use]
    pub fn finish(&mut self, pending: Pending, now: u64) -> Reply {
        let Pending { place, digest, fate, .. } = pending;
        let reply = match fate {
            Fate::Reply(reply) => reply,
            Fate::Work { parsed, then } => {
                let key = place.as_ref().map(|(_, key)| key.clone());
                let answer = self.work(*parsed, key, now);
                if let Some(place) = place {
                    self.running.remove(&place);
                    self.cache.insert(place, Cached { digest, answer: answer.clone(), at: now });
                }
                self.worked += 1;
                let every = self.faults.drop_after_every;
                match then {
                    _ if every > 0 && self.worked.is_multiple_of(every) => Reply::Dropped,
                    Then::Answer => Reply::Answer(answer),
                    Then::Drop => Reply::Dropped,
                    Then::Garbage => Reply::Answer(Answer { body: b"{\"success\": tr".to_vec(), ..answer }),
                    Then::Status(status) => Reply::Answer(Answer::of_status(status)),
                }
            }
        };
        self.ledger.count(match &reply {
            Reply::Answer(answer) => answer.status,
            Reply::Dropped => 0,
        });
        reply
    }

    /// What goes wrong with this call: an answer instead of work, or a way to lose the answer.
    fn trouble(&mut self, now: u64) -> Result<Then, Reply> {
        let answer = |answer| Err(Reply::Answer(answer));
        if let Some(next) = self.faults.next.pop_front() {
            return match next {
                Next::Fine => Ok(Then::Answer),
                Next::DropBefore => Err(Reply::Dropped),
                Next::DropAfter => Ok(Then::Drop),
                Next::Garbage => Ok(Then::Garbage),
                Next::Unsuccessful => answer(unsuccessful()),
                Next::Status(status) => answer(Answer::of_status(status)),
                Next::StatusAfter(status) => Ok(Then::Status(status)),
                Next::RetryAfter(seconds) => answer(Answer::of_status(429).with("Retry-After", &seconds)),
                Next::RetryAfterDate(seconds) => {
                    let at = std::time::UNIX_EPOCH + std::time::Duration::from_millis(now + seconds * 1000);
                    answer(Answer::of_status(429).with("Retry-After", &httpdate::fmt_http_date(at)))
                }
            };
        }
        if let Some(status) = self.faults.proxy_page {
            return answer(Answer::page(status));
        }
        if let Some(to) = self.faults.redirect.clone() {
            return answer(Answer::of_status(302).with("Location", &to));
        }
        if self.is_over_the_limit(now) {
            return answer(Answer::of_status(429).with("Retry-After", &1));
        }
        let mut roll = self.unit();
        for (status, share) in &self.faults.errors {
            if roll < *share {
                return answer(Answer::of_status(*status));
            }
            roll -= share;
        }
        if self.chance(self.faults.unsuccessful) {
            return answer(unsuccessful());
        }
        if self.chance(self.faults.drop_before) {
            return Err(Reply::Dropped);
        }
        if self.chance(self.faults.drop_after) {
            return Ok(Then::Drop);
        }
        Ok(if self.chance(self.faults.garbage) { Then::Garbage } else { Then::Answer })
    }

    fn is_over_the_limit(&mut self, now: u64) -> bool {
        let Some(limit) = self.faults.rate_limit else { return false };
        #[allow(clippy::cast_precision_loss, reason = "milliseconds between two calls")]
        let passed = now.saturating_sub(self.tokens_at) as f64 / 1000.0;
        self.tokens = (self.tokens + passed * limit.per_second).min(limit.burst);
        self.tokens_at = now;
        if self.tokens < 1.0 {
            return true;
        }
        self.tokens -= 1.0;
        false
    }

    fn validate(&mut self, body: &[u8]) -> Result<Parsed, Answer> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Body {
            emails: Vec<String>,
            project_id: String,
        }
        let Ok(Body { emails, project_id: project }) = serde_json::from_slice::<Body>(body) else {
            return Err(Answer::error(400, "VALIDATION_ERROR", "The body must have emails and projectId"));
        };
        if emails.is_empty() || emails.len() > MAX_EMAILS {
            return Err(Answer::error(400, "VALIDATION_ERROR", "emails must have 1 to 1000 entries"));
        }
        if emails.iter().any(|email| !email.contains('@')) {
            return Err(Answer::error(400, "VALIDATION_ERROR", "emails must hold addresses"));
        }
        if self.faults.forbidden_projects.contains(&project) {
            return Err(Answer::of_status(403));
        }
        let known = self.open_world || self.projects.contains_key(&project);
        if !known || self.faults.unknown_projects.contains(&project) {
            return Err(Answer::of_status(404));
        }
        let poison = &self.faults.poison_emails;
        if !poison.is_empty() && emails.iter().any(|email| poison.contains(&email.to_lowercase())) {
            return Err(Answer::of_status(self.faults.poison_status.unwrap_or(400)));
        }
        Ok(Parsed { project, emails })
    }

    fn work(&mut self, parsed: Parsed, key: Option<String>, now: u64) -> Answer {
        let Parsed { project: name, emails } = parsed;
        let open_world = self.open_world;
        let project = self.projects.entry(name.clone()).or_default();
        let open = project.open || open_world;
        let mut seen = HashSet::with_capacity(emails.len());
        let (mut deleted, mut not_found) = (Vec::new(), Vec::new());
        let sent = emails.len();
        for email in emails {
            let folded = email.to_lowercase();
            let found = if open {
                !folded.starts_with("unknown") && project.deleted.insert(folded.clone())
            } else {
                project.contacts.remove(&folded)
            };
            if !seen.insert(folded.clone()) {
                continue;
            }
            if found {
                deleted.push(folded);
            } else {
                not_found.push(email);
            }
        }
        self.ledger.summary.with_repeats += u64::from(seen.len() < sent);
        self.requests += 1;
        let told: Vec<&String> = not_found.iter().chain(&self.faults.invented_not_found).collect();
        let answer = Answer::json(
            200,
            &json!({
                "success": true,
                "data": {"deleted": deleted.len(), "notFound": told},
                "metadata": {"requestId": format!("req_{}", self.requests)},
            }),
        );
        let entry = Entry { at: now, idempotency_key: key, project_id: name, emails: sent, deleted, not_found };
        self.ledger.record(entry);
        answer
    }

    /// `SplitMix64`.
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.dice;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.roll() >> 32).unwrap_or(0)) / f64::from(u32::MAX)
    }

    fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && self.unit() < share
    }
}

fn unsuccessful() -> Answer {
    Answer::json(200, &json!({"success": false, "error": "Try again"}))
}

#[cfg(test)]
mod tests;
