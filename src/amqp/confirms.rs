//! Groups on their way to the broker, in the order in which they went out, and what it says of each message.
//!
//! A returned message can be handed to another message's confirm: of its own group, or of any that is on its way at the
//! same time. What was returned is decided over all of these. Never here: what becomes of a message that is not confirmed.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Map;
use lapin::message::BasicReturnMessage;
use lapin::{BasicProperties, Confirmation, PublisherConfirm};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Names;
use super::message::properties;
use crate::ports::{Confirm, Exchange, Publication};

/// Publications, and who waits for their confirms.
pub(super) type Group = (Vec<Publication>, Option<oneshot::Sender<Vec<Confirm>>>);

/// A confirmation: of its own message, with the mark of a returned one that it holds, whosesoever that is.
type Said = lapin::Result<(Confirm, Option<Mark>)>;

/// A confirmation of lapin's to come.
pub(super) type Confirming = Map<PublisherConfirm, fn(lapin::Result<Confirmation>) -> Said>;

/// Groups that went out together, and what is known of their messages.
pub(super) struct Sent<F = Confirming> {
    groups: Vec<Group>,
    /// For each publication, in order. What did not go out has none.
    words: Vec<Word<F>>,
    /// Those before this one are known.
    known: usize,
}

/// What the broker said of a message.
enum Word<F> {
    Awaited(F),
    Said(Confirm),
}

impl<F> Word<F> {
    /// What was returned may be of any group up to the newest one.
    fn hear(&mut self, said: Said, returned: &mut HashMap<Mark, u64>, newest: u64) -> lapin::Result<()> {
        let (confirm, mark, heard) = match said {
            Ok((confirm, mark)) => (confirm, mark, Ok(())),
            Err(error) => (Confirm::Unconfirmed, None, Err(error)),
        };
        *self = Self::Said(confirm);
        returned.extend(mark.map(|mark| (mark, newest)));
        heard
    }
}

/// What is on its way on one channel.
pub(super) struct OnTheirWay<F = Confirming> {
    sent: VecDeque<Sent<F>>,
    /// The number of the first of them: they are numbered as they go out.
    first: u64,
    /// What was returned, and the newest group that may have brought it.
    returned: HashMap<Mark, u64>,
    /// When the word came that was waited for last, or there was none to wait for.
    heard_at: Option<Instant>,
    /// Why nothing more will be heard.
    ended: Option<lapin::Error>,
}

impl<F> Default for OnTheirWay<F> {
    fn default() -> Self {
        Self { sent: VecDeque::new(), first: 0, returned: HashMap::new(), heard_at: None, ended: None }
    }
}

/// Why no further confirm comes.
#[derive(Debug)]
pub(super) enum Silence {
    /// The channel or the connection has ended.
    Ended(lapin::Error),
    /// The broker has not said anything of a message for that long.
    TooLong,
}

impl Sent {
    pub(super) fn new(groups: Vec<Group>, waiting: Vec<PublisherConfirm>) -> Self {
        let read = read as fn(lapin::Result<Confirmation>) -> Said;
        Self::awaiting(groups, waiting.into_iter().map(|confirm| confirm.map(read)))
    }
}

impl<F> Sent<F> {
    fn awaiting(groups: Vec<Group>, waiting: impl Iterator<Item = F>) -> Self {
        Self { groups, words: waiting.map(Word::Awaited).collect(), known: 0 }
    }

    pub(super) fn publications(&self) -> impl Iterator<Item = &Publication> {
        self.groups.iter().flat_map(|(group, _)| group)
    }

    /// Tells each group its confirms; what has none is not confirmed.
    pub(super) fn tell(self, confirms: Vec<Confirm>) {
        let mut confirms = confirms.into_iter().chain(std::iter::repeat(Confirm::Unconfirmed));
        for (group, done) in self.groups {
            let mine = confirms.by_ref().take(group.len()).collect();
            if let Some(done) = done {
                let _ = done.send(mine);
            }
        }
    }

    /// What the broker said of each; of those that it has not said anything of: that they are not confirmed.
    fn confirms(&self, names: &Names, returned: &HashMap<Mark, u64>) -> Vec<Confirm> {
        let said = self.words.iter().map(|word| match word {
            Word::Said(confirm) => *confirm,
            Word::Awaited(_) => Confirm::Unconfirmed,
        });
        let mut confirms: Vec<Confirm> = said.collect();
        confirms.resize(self.publications().count(), Confirm::Unconfirmed);
        if !returned.is_empty() {
            for (publication, confirm) in self.publications().zip(&mut confirms) {
                let (exchange, key) = target(names, publication);
                if publication.mandatory && returned.contains_key(&mark(exchange, key, &properties(publication))) {
                    *confirm = Confirm::Unroutable;
                }
            }
        }
        confirms
    }
}

impl<F: Future<Output = Said> + Unpin> OnTheirWay<F> {
    pub(super) fn len(&self) -> usize {
        self.sent.len()
    }

    pub(super) fn push(&mut self, sent: Sent<F>) {
        if self.sent.is_empty() {
            self.heard_at = Some(Instant::now());
        }
        self.sent.push_back(sent);
    }

    /// Waits until the broker has said of every message of the oldest group what became of it. Cancel safe.
    ///
    /// # Errors
    /// Why it will not say so: then [`Self::abandon`] tells what is known.
    pub(super) async fn oldest(&mut self, patience: Duration) -> Result<(), Silence> {
        if let Some(error) = self.ended.take() {
            return Err(Silence::Ended(error));
        }
        let newest = self.newest();
        let Some(sent) = self.sent.front_mut() else { return Ok(()) };
        while let Some(word) = sent.words.get_mut(sent.known) {
            if let Word::Awaited(confirm) = word {
                let until = *self.heard_at.get_or_insert_with(Instant::now) + patience;
                let Ok(said) = tokio::time::timeout_at(until, confirm).await else {
                    self.heard_at = None;
                    return Err(Silence::TooLong);
                };
                self.heard_at = Some(Instant::now());
                word.hear(said, &mut self.returned, newest).map_err(Silence::Ended)?;
            }
            sent.known += 1;
        }
        Ok(())
    }

    /// Takes the oldest group, of which everything is known, with what the broker said of its messages.
    pub(super) fn take(&mut self, names: &Names) -> Option<(Sent<F>, Vec<Confirm>)> {
        self.look();
        let sent = self.sent.pop_front()?;
        let confirms = sent.confirms(names, &self.returned);
        let number = self.first;
        self.first += 1;
        // What was returned while later groups were on their way may be theirs.
        self.returned.retain(|_, newest| *newest > number);
        Some((sent, confirms))
    }

    /// Why nothing more will be heard, where that is known.
    pub(super) fn ended(&mut self) -> Option<&lapin::Error> {
        self.look();
        self.ended.as_ref()
    }

    /// Confirms were dropped unheard, which may have held what any message on its way had returned: nothing that was said of
    /// these counts.
    pub(super) fn distrust(&mut self) {
        self.returned.clear();
        for sent in &mut self.sent {
            sent.words.clear();
        }
    }

    /// Takes all groups, for nothing more will be heard of them, with what is known of their messages.
    pub(super) fn abandon(&mut self, names: &Names) -> Vec<(Sent<F>, Vec<Confirm>)> {
        self.look();
        let returned = std::mem::take(&mut self.returned);
        let decide = |sent: Sent<F>| {
            let confirms = sent.confirms(names, &returned);
            (sent, confirms)
        };
        std::mem::take(&mut self.sent).into_iter().map(decide).collect()
    }

    fn newest(&self) -> u64 {
        self.first + self.sent.len().saturating_sub(1) as u64
    }

    /// Hears every confirm that is here already: one of a later group may hold what an earlier one had returned. Until none
    /// is new, for they come in meanwhile: what returned a message comes no later than that message's own confirm.
    fn look(&mut self) {
        while self.hear_what_is_here() {}
    }

    /// Whether any was new.
    fn hear_what_is_here(&mut self) -> bool {
        let newest = self.newest();
        let mut any = false;
        let unknown = self.sent.iter_mut().flat_map(|sent| sent.words.iter_mut().skip(sent.known));
        for word in unknown {
            if let Word::Awaited(confirm) = word
                && let Poll::Ready(said) = confirm.poll_unpin(&mut Context::from_waker(Waker::noop()))
            {
                any = true;
                if let Err(error) = word.hear(said, &mut self.returned, newest) {
                    self.ended.get_or_insert(error);
                }
            }
        }
        any
    }
}

fn read(confirmation: lapin::Result<Confirmation>) -> Said {
    let (confirm, message) = match confirmation? {
        Confirmation::Ack(message) => (Confirm::Confirmed, message),
        Confirmation::Nack(message) => (Confirm::Unconfirmed, message),
        Confirmation::NotRequested => (Confirm::Unconfirmed, None),
    };
    let returned = message.map(|BasicReturnMessage { delivery, .. }| {
        mark(delivery.exchange.as_str(), delivery.routing_key.as_str(), &delivery.properties)
    });
    Ok((confirm, returned))
}

/// What a returned message is known by.
type Mark = (String, String, Option<String>);

fn mark(exchange: &str, routing_key: &str, properties: &BasicProperties) -> Mark {
    (exchange.to_owned(), routing_key.to_owned(), properties.message_id().as_ref().map(ToString::to_string))
}

/// The exchange and the routing key to publish with.
pub(super) fn target<'a>(names: &'a Names, publication: &'a Publication) -> (&'a str, &'a str) {
    match publication.exchange {
        Exchange::Outcomes => (&names.outcome_exchange, &publication.routing_key),
        Exchange::Dead => (&names.dead_exchange, &publication.routing_key),
        Exchange::Parking => ("", &names.parking_queue),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::domain::moment::Timestamp;
    use crate::ports::Head;

    const PATIENCE: Duration = Duration::from_secs(30);

    type Voice = oneshot::Sender<Said>;

    fn publication(id: &str) -> Publication {
        Publication {
            exchange: Exchange::Outcomes,
            routing_key: "k".into(),
            head: Head::Own {
                message_id: id.into(),
                correlation_id: None,
                kind: "t",
                at: Timestamp::from_millis(0),
                traceparent: None,
            },
            payload: bytes::Bytes::new(),
            mandatory: true,
        }
    }

    fn mark_of(id: &str) -> Mark {
        let publication = publication(id);
        mark(&Names::with_prefix("x").outcome_exchange, "k", &properties(&publication))
    }

    /// A group of messages by these names, and with what voice the broker speaks of each.
    fn send(way: &mut OnTheirWay<BoxFuture<'static, Said>>, ids: &[&str]) -> Vec<Voice> {
        let (voices, waiting): (Vec<_>, Vec<_>) = ids
            .iter()
            .map(|_| {
                let (voice, said) = oneshot::channel();
                (voice, said.map(|said| said.unwrap()).boxed())
            })
            .unzip();
        let publications = ids.iter().map(|id| publication(id)).collect();
        way.push(Sent::awaiting(vec![(publications, None)], waiting.into_iter()));
        voices
    }

    fn say(voice: Voice, confirm: Confirm, returned: Option<&str>) {
        voice.send(Ok((confirm, returned.map(mark_of)))).unwrap();
    }

    async fn next(way: &mut OnTheirWay<BoxFuture<'static, Said>>) -> Vec<Confirm> {
        way.oldest(PATIENCE).await.unwrap();
        way.take(&Names::with_prefix("x")).unwrap().1
    }

    fn ended() -> lapin::Error {
        lapin::ErrorKind::InvalidChannelState(lapin::ChannelState::Closed, "test").into()
    }

    #[tokio::test]
    async fn what_comes_back_with_another_group_s_confirm_is_known_all_the_same() {
        let mut way = OnTheirWay::default();
        let first = send(&mut way, &["a", "b"]);
        let mut second = send(&mut way, &["c", "d"]);
        say(second.pop().unwrap(), Confirm::Confirmed, Some("b"));
        for voice in first {
            say(voice, Confirm::Confirmed, None);
        }
        assert_eq!(next(&mut way).await, [Confirm::Confirmed, Confirm::Unroutable]);
        say(second.pop().unwrap(), Confirm::Confirmed, None);
        assert_eq!(next(&mut way).await, [Confirm::Confirmed, Confirm::Confirmed]);
    }

    #[tokio::test]
    async fn what_may_be_a_later_group_s_is_remembered_for_it_and_no_longer() {
        let mut way = OnTheirWay::default();
        let first = send(&mut way, &["a"]);
        let second = send(&mut way, &["a", "b"]);
        for voice in first {
            say(voice, Confirm::Confirmed, Some("a"));
        }
        assert_eq!(next(&mut way).await, [Confirm::Unroutable]);
        for voice in second {
            say(voice, Confirm::Confirmed, None);
        }
        assert_eq!(next(&mut way).await, [Confirm::Unroutable, Confirm::Confirmed], "it is tried once more");
        for voice in send(&mut way, &["a"]) {
            say(voice, Confirm::Confirmed, None);
        }
        assert_eq!(next(&mut way).await, [Confirm::Confirmed]);
        assert!(way.returned.is_empty());
    }

    #[tokio::test]
    async fn where_the_channel_ends_what_was_said_counts_and_nothing_else() {
        let mut way = OnTheirWay::default();
        let mut first = send(&mut way, &["a", "b", "c"]);
        let second = send(&mut way, &["d"]);
        say(first.remove(2), Confirm::Confirmed, None);
        say(first.remove(1), Confirm::Unconfirmed, Some("c"));
        first.remove(0).send(Err(ended())).unwrap();
        for voice in second {
            say(voice, Confirm::Confirmed, None);
        }
        assert!(matches!(way.oldest(PATIENCE).await, Err(Silence::Ended(_))));
        let known: Vec<_> = way.abandon(&Names::with_prefix("x")).into_iter().map(|(_, confirms)| confirms).collect();
        assert_eq!(
            known,
            [vec![Confirm::Unconfirmed, Confirm::Unconfirmed, Confirm::Unroutable], vec![Confirm::Confirmed]]
        );
        assert_eq!(way.len(), 0);
    }

    #[tokio::test]
    async fn where_confirms_were_dropped_unheard_nothing_that_was_said_counts() {
        let mut way = OnTheirWay::default();
        let mut first = send(&mut way, &["a", "b"]);
        say(first.remove(0), Confirm::Confirmed, None);
        let heard = tokio::time::timeout(Duration::from_millis(1), way.oldest(PATIENCE)).await;
        assert!(heard.is_err(), "b is still to come");
        way.push(Sent::awaiting(vec![(vec![publication("c")], None)], std::iter::empty()));
        way.distrust();
        let known: Vec<_> = way.abandon(&Names::with_prefix("x")).into_iter().map(|(_, confirms)| confirms).collect();
        assert_eq!(known, [vec![Confirm::Unconfirmed; 2], vec![Confirm::Unconfirmed]]);
    }

    #[tokio::test]
    async fn an_end_that_a_later_group_hears_of_first_is_not_forgotten() {
        let mut way = OnTheirWay::default();
        let first = send(&mut way, &["a"]);
        for voice in send(&mut way, &["b"]) {
            voice.send(Err(ended())).unwrap();
        }
        for voice in first {
            say(voice, Confirm::Confirmed, None);
        }
        assert_eq!(next(&mut way).await, [Confirm::Confirmed]);
        assert!(matches!(way.oldest(PATIENCE).await, Err(Silence::Ended(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_broker_that_says_nothing_more_is_not_waited_for_for_ever_and_each_word_is_time_won() {
        let mut way = OnTheirWay::default();
        let mut voices = send(&mut way, &["a", "b"]);
        assert!(tokio::time::timeout(PATIENCE / 2, way.oldest(PATIENCE)).await.is_err(), "it still waits");
        say(voices.remove(0), Confirm::Confirmed, None);
        assert!(tokio::time::timeout(PATIENCE * 3 / 4, way.oldest(PATIENCE)).await.is_err(), "it waits anew");
        assert!(matches!(way.oldest(PATIENCE).await, Err(Silence::TooLong)));
    }
}
