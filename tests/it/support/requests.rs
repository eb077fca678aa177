//! Requests as upstream systems publish them.

use lapin::BasicProperties;
use serde_json::json;

/// A request to be published.
#[derive(Clone, Debug)]
pub struct Request {
    pub properties: BasicProperties,
    pub body: Vec<u8>,
    pub id: String,
    pub project: String,
    pub emails: Vec<String>,
}

impl Request {
    pub fn new(id: &str, project: &str, emails: &[&str]) -> Self {
        Self::of(id, project, emails.iter().map(|e| (*e).to_owned()).collect())
    }

    pub fn of(id: &str, project: &str, emails: Vec<String>) -> Self {
        let body = json!({"projectId": project, "emails": emails, "metadata": {"ticket": id}}).to_string().into_bytes();
        Self { properties: properties(id), body, id: id.to_owned(), project: project.to_owned(), emails }
    }

    /// A message with this body, whatever it is.
    pub fn raw(id: &str, body: &str) -> Self {
        Self {
            properties: properties(id),
            body: body.into(),
            id: id.to_owned(),
            project: String::new(),
            emails: vec![],
        }
    }
}

fn properties(id: &str) -> BasicProperties {
    let properties = BasicProperties::default().with_delivery_mode(2).with_content_type("application/json".into());
    if id.is_empty() { properties } else { properties.with_message_id(id.into()) }
}

/// A plain sequence of numbers that looks random: the same in every run.
pub struct Numbers(pub u64);

impl Numbers {
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end.max(1) as u64) as usize
    }
}

/// Requests of 1 to 5 emails over these projects, with repeats among `pool` addresses, one in ten unknown.
pub fn mixed(count: usize, projects: &[&str], pool: usize, seed: u64) -> Vec<Request> {
    let mut numbers = Numbers(seed);
    (0..count)
        .map(|n| {
            let project = projects[n % projects.len()];
            let emails = (0..=numbers.below(5))
                .map(|_| {
                    let at = numbers.below(pool);
                    let name = if at.is_multiple_of(10) { format!("unknown{at}") } else { format!("user{at}") };
                    if numbers.below(8) == 0 {
                        format!("{}@Example.ORG", name.to_uppercase())
                    } else {
                        format!("{name}@example.org")
                    }
                })
                .collect();
            Request::of(&format!("m-{seed}-{n}"), project, emails)
        })
        .collect()
}

/// Requests of one email each for this project.
#[allow(dead_code, reason = "tests/container needs none")]
pub fn one_each(project: &str, count: usize) -> Vec<Request> {
    (0..count).map(|n| Request::of(&format!("{project}-{n}"), project, vec![format!("user{n}@example.org")])).collect()
}
