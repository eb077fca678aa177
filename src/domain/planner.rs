//! Which emails wait for a call, and which of them go into the next one.
//!
//! A lane for each project (and one for each returned request, which travels alone), first come first served. An email
//! that waits already is not queued twice: all requests that name it share its place, so a visible backlog of N
//! distinct emails takes ceil(N / 1000) calls, whatever the order in which repeats arrive. The one exception: an email
//! that a request has in an earlier call does not join the call with that request's rest for another's sake.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::email::Email;
use super::ids::{ProjectId, RequestDigest};
use super::manifest::{Member, body};
use super::request::DeletionRequest;

mod places;

use self::places::Places;

/// Where emails wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Lane {
    /// The project of all its emails.
    pub project: ProjectId,
    /// The one request that it is for, where that travels alone.
    pub alone: Option<RequestDigest>,
}

/// What a batch is made of, before its requests' records join it.
#[derive(Debug)]
#[must_use = "the emails have left their lane"]
pub struct Packed {
    /// The project of all its emails.
    pub project: ProjectId,
    /// The bytes of the call.
    pub body: bytes::Bytes,
    /// How many distinct emails.
    pub emails: u16,
    /// For whom, in order of their first email.
    pub members: Vec<Member>,
}

/// Whether a batch can be packed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ready {
    /// From this lane, now.
    Now(Lane),
    /// Not before this time (steady), unless more arrives.
    At(Duration),
    /// Nothing waits in a lane that may be served.
    Empty,
}

/// What is known of what is to come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sight {
    /// Deliveries are here, or on their way, that are in no lane yet.
    Coming,
    /// More may come once some that are here have left, and not before.
    Later,
    /// Nothing.
    #[default]
    Nothing,
}

/// All lanes.
#[derive(Debug)]
pub struct Planner {
    max_emails: usize,
    linger: Duration,
    lanes: HashMap<Lane, Waiting>,
    /// Lanes in the order in which they are to be served: the one served last stands last.
    turns: VecDeque<Lane>,
}

#[derive(Debug, Default)]
struct Waiting {
    slots: VecDeque<Slot>,
    /// The number of the first slot; numbers never repeat.
    first: u64,
    places: Places,
    /// How many emails of each request wait here, for those that have several.
    queued: HashMap<RequestDigest, u32>,
}

/// A distinct email in its lane.
#[derive(Debug)]
struct Slot {
    since: Duration,
    /// Who names it, with the position in the request; the first gives the spelling.
    named_by: Vec<(Arc<DeletionRequest>, u32)>,
}

impl Planner {
    /// Empty. `max_emails` is 1 to 1000.
    #[must_use]
    pub fn new(max_emails: usize, linger: Duration) -> Self {
        let max_emails = max_emails.clamp(1, super::manifest::BATCH_MAX);
        Self { max_emails, linger, lanes: HashMap::new(), turns: VecDeque::new() }
    }

    /// Queues emails of a request, by position. No email of a request is queued while it is queued already.
    pub fn queue(&mut self, lane: Lane, request: &Arc<DeletionRequest>, positions: &[u32], now: Duration) {
        if positions.is_empty() {
            return;
        }
        if !self.lanes.contains_key(&lane) {
            self.turns.push_back(lane.clone());
        }
        let waiting = self.lanes.entry(lane).or_default();
        for &at in positions {
            waiting.count(request);
            let folded = request.emails[at as usize].folded();
            if let Some(slot) = waiting.slot_of(&folded) {
                slot.named_by.push((Arc::clone(request), at));
                continue;
            }
            waiting.places.insert(&folded, waiting.first + waiting.slots.len() as u64);
            waiting.slots.push_back(Slot { since: now, named_by: vec![(Arc::clone(request), at)] });
        }
    }

    /// Takes a request's emails out of every lane; those that others name too stay.
    pub fn remove(&mut self, gone: impl Fn(&RequestDigest) -> bool) {
        self.lanes.retain(|_, waiting| {
            for slot in &mut waiting.slots {
                slot.named_by.retain(|(request, _)| !gone(&request.digest));
            }
            waiting.slots.retain(|slot| !slot.named_by.is_empty());
            waiting.queued.retain(|request, _| !gone(request));
            waiting.places = Places::default();
            for (number, slot) in (waiting.first..).zip(&waiting.slots) {
                waiting.places.insert(&slot.folded(), number);
            }
            !waiting.slots.is_empty()
        });
        self.turns.retain(|lane| self.lanes.contains_key(lane));
    }

    /// The lane to be served next, among those that `open` lets through: one that fills a call, or whose first email
    /// has waited for the linger.
    ///
    /// While more is coming, a lane that fills a call waits for the linger all the same, for what comes may repeat what
    /// is there and cost no call of its own. One that does not fill it waits a while longer for what is in sight, be it
    /// that others have to leave first.
    #[must_use]
    pub fn ready(&self, now: Duration, sight: Sight, open: impl Fn(&ProjectId) -> bool) -> Ready {
        let mut soonest: Option<Duration> = None;
        for lane in &self.turns {
            let Some(waiting) = self.lanes.get(lane) else { continue };
            let Some(first) = waiting.slots.front() else { continue };
            if !open(&lane.project) {
                continue;
            }
            let is_full = waiting.slots.len() >= self.max_emails || lane.alone.is_some();
            let patience = match (is_full, sight) {
                (true, Sight::Later | Sight::Nothing) => Duration::ZERO,
                (true, Sight::Coming) | (false, Sight::Nothing) => self.linger,
                (false, Sight::Coming | Sight::Later) => self.linger + IN_SIGHT_PATIENCE,
            };
            let due = first.since + patience;
            if due <= now {
                return Ready::Now(lane.clone());
            }
            soonest = Some(soonest.map_or(due, |at| at.min(due)));
        }
        soonest.map_or(Ready::Empty, Ready::At)
    }

    /// Packs a batch from a lane; `None` where nothing waits there.
    pub fn pack(&mut self, lane: &Lane) -> Option<Packed> {
        let waiting = self.lanes.get_mut(lane)?;
        let slots = waiting.take(self.max_emails);
        if slots.is_empty() {
            return None;
        }
        let count = slots.len();
        self.turns.retain(|other| other != lane);
        if waiting.slots.is_empty() {
            self.lanes.remove(lane);
        } else {
            self.turns.push_back(lane.clone());
        }
        Some(Packed {
            project: lane.project.clone(),
            body: body(&lane.project, slots.iter().map(Slot::email)),
            emails: u16::try_from(count).unwrap_or(u16::MAX),
            members: members(&slots),
        })
    }

    /// Emails that wait, distinct within their lanes.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lanes.values().map(|waiting| waiting.slots.len()).sum()
    }

    /// Whether anything waits in a lane that `open` lets through.
    #[must_use]
    pub fn waits(&self, open: impl Fn(&ProjectId) -> bool) -> bool {
        self.lanes.keys().any(|lane| open(&lane.project))
    }

    /// How many requests are of use at a time, where `emails` can be sent before their deliveries grow too old, and
    /// those of `requests` are what waits here: `None` where that says nothing.
    #[must_use]
    pub fn requests_in_time(&self, emails: u64, requests: usize) -> Option<u64> {
        let waiting = self.waiting() as u64;
        (waiting > 0).then(|| (emails.saturating_mul(requests as u64) / waiting).max(1))
    }

    /// Lanes in which something waits.
    #[must_use]
    pub fn lanes(&self) -> usize {
        self.lanes.len()
    }
}

/// How much longer than the linger a call waits for deliveries in sight, or for which others make room: an end, so that
/// a flood for one project does not hold up another's few emails.
const IN_SIGHT_PATIENCE: Duration = Duration::from_secs(1);

/// How many emails of others a call passes over at most, in calls: so much may be looked at for one that is not full.
const PASSED_OVER_CALLS: usize = 4;

impl Waiting {
    /// Takes up to `max` emails, first come first served; passes over such as would make an outcome contradict its own
    /// list of calls.
    ///
    /// A request that is spread over several calls may have an email under way in one while another request brings the
    /// same email anew. Were that to go out beside the first request's rest, and be deleted there before the first call
    /// is served, then the first request would be told "not found" by the one call that carried the email for it, and
    /// "deleted" by another that it is listed with.
    fn take(&mut self, max: usize) -> Vec<Slot> {
        let mut taken: Vec<Slot> = Vec::with_capacity(max.min(self.slots.len()));
        let mut passed_over = Vec::new();
        let mut spread: HashMap<RequestDigest, Arc<DeletionRequest>> = HashMap::new();
        while taken.len() < max && passed_over.len() < max * PASSED_OVER_CALLS {
            let Some(slot) = self.slots.pop_front() else { break };
            self.places.remove(&slot.folded(), self.first);
            self.first += 1;
            let named_by = slot.named_by.iter().map(|(request, _)| request);
            let joining: Vec<_> = named_by
                .filter(|request| !spread.contains_key(&request.digest) && self.is_spread(request))
                .map(Arc::clone)
                .collect();
            let clashes = spread.values().any(|member| slot.is_elsewhere_for(member))
                || joining.iter().any(|request| taken.iter().any(|other| other.is_elsewhere_for(request)));
            if clashes {
                passed_over.push(slot);
            } else {
                spread.extend(joining.into_iter().map(|request| (request.digest, request)));
                taken.push(slot);
            }
        }
        for slot in &taken {
            for (request, _) in &slot.named_by {
                if let Some(count) = self.queued.get_mut(&request.digest) {
                    *count -= 1;
                    if *count == 0 {
                        self.queued.remove(&request.digest);
                    }
                }
            }
        }
        // They keep their turn: they are the first of the next call.
        for slot in passed_over.into_iter().rev() {
            self.first -= 1;
            self.places.insert(&slot.folded(), self.first);
            self.slots.push_front(slot);
        }
        taken
    }

    /// The slot of this address.
    fn slot_of(&mut self, folded: &str) -> Option<&mut Slot> {
        let index = |number: u64| usize::try_from(number - self.first).unwrap_or(usize::MAX);
        let stands = |number| self.slots.get(index(number)).is_some_and(|slot| slot.folded() == folded);
        let at = index(self.places.find(folded, stands)?);
        self.slots.get_mut(at)
    }

    /// Whether the request, which waits here, has emails that do not: they are in other calls.
    fn is_spread(&self, request: &DeletionRequest) -> bool {
        self.queued.get(&request.digest).is_some_and(|count| *count < request.len())
    }

    /// Counts an email of the request; one that has no other has none elsewhere.
    fn count(&mut self, request: &DeletionRequest) {
        if request.len() > 1 {
            *self.queued.entry(request.digest).or_default() += 1;
        }
    }
}

impl Slot {
    fn email(&self) -> &Email {
        // A slot is made with a name, and goes with its last.
        let (request, at) = &self.named_by[0];
        &request.emails[*at as usize]
    }

    fn folded(&self) -> std::borrow::Cow<'_, str> {
        self.email().folded()
    }

    /// Whether the request has this email, though not in this place.
    fn is_elsewhere_for(&self, request: &DeletionRequest) -> bool {
        !self.named_by.iter().any(|(other, _)| other.digest == request.digest) && request.names(self.email())
    }
}

fn members(slots: &[Slot]) -> Vec<Member> {
    let mut order: HashMap<RequestDigest, usize> = HashMap::new();
    let mut pairs: Vec<(RequestDigest, Vec<(u32, u16)>)> = Vec::new();
    for (body_at, slot) in (0u16..).zip(slots) {
        for (request, at) in &slot.named_by {
            let index = *order.entry(request.digest).or_insert_with(|| {
                pairs.push((request.digest, Vec::new()));
                pairs.len() - 1
            });
            pairs[index].1.push((*at, body_at));
        }
    }
    pairs
        .into_iter()
        .map(|(request, mut positions)| {
            positions.sort_unstable();
            let mut member = Member { request, spans: Vec::new() };
            for (at, body_at) in positions {
                member.push(at, body_at);
            }
            member
        })
        .collect()
}

#[cfg(test)]
mod tests;
