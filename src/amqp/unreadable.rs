//! What to do about a message that lapin cannot read: AMQP lets properties and header names be any bytes, lapin takes
//! them for UTF-8, and ends the whole connection over one that is not.
//!
//! Such a message comes again first of all, and takes everybody who travels with it down each time. So it is looked for
//! with the few commands of AMQP that this takes, byte by byte, and rejected: the broker moves it, unchanged, from the
//! request queue to the returned queue, and from there to the dead queue. Never rejected: a message that lapin can read,
//! for the same code decides; and where that were wrong, the returned queue is consumed as well.

use std::io;
use std::time::Duration;

use futures_util::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use lapin::ErrorKind;
use lapin::protocol::basic::parse_properties;
use lapin::uri::AMQPUri;
use tracing::warn;

use super::connection::{COMMAND_TIMEOUT, Connector, within};
use super::{AmqpError, Names};

/// The pauses before each look: the broker may be about to notice that the last connection has ended.
const LOOKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(50), Duration::from_millis(200), Duration::from_millis(800)];

/// How many messages can be looked at within the time of one command, at the least.
const GETS_IN_TIME: usize = 500;
/// What is told where one of them fails.
const LOOKING: &str = "looking for a message that cannot be read";
/// As far as a command looks into the dead queue.
const REACH: usize = 10_000;

/// A method's class and number.
type Method = (u16, u16);

const START: Method = (10, 10);
const START_OK: Method = (10, 11);
const TUNE: Method = (10, 30);
const TUNE_OK: Method = (10, 31);
const OPEN: Method = (10, 40);
const OPEN_OK: Method = (10, 41);
const CLOSE: Method = (10, 50);
const CLOSE_OK: Method = (10, 51);
const CHANNEL_OPEN: Method = (20, 10);
const CHANNEL_OPEN_OK: Method = (20, 11);
const GET: Method = (60, 70);
const GET_OK: Method = (60, 71);
const GET_EMPTY: Method = (60, 72);
const REJECT: Method = (60, 90);

const METHOD_FRAME: u8 = 1;
const HEADER_FRAME: u8 = 2;
const FRAME_END: u8 = 0xCE;
/// More than any broker agrees to in one frame by default.
const FRAME_MAX: usize = 1 << 20;

/// Rejects what ended a connection with this error, if that was a message that cannot be read. It is among the first
/// `reach` in a queue. Tells whether there was one.
pub(super) async fn put_aside(connector: &Connector, error: &AmqpError, reach: usize) -> bool {
    if !matches!(error, AmqpError::Broker { source, .. } if matches!(source.kind(), ErrorKind::ParsingError(_))) {
        return false;
    }
    let Names { request_queue, returned_queue, .. } = &connector.settings.names;
    // The returned queue only where it must be there, and once: a look counts as a delivery of what is readable, and of
    // those that queue allows five.
    let looks = LOOKS.into_iter().map(|pause| (pause, request_queue, reach));
    for (pause, queue, reach) in looks.chain([(Duration::ZERO, returned_queue, 1)]) {
        tokio::time::sleep(pause).await;
        let looking = async {
            let mut line = line(connector).await?;
            within(patience(reach), LOOKING, async { Ok(line.look(queue, reach).await?) }).await
        };
        match looking.await {
            Ok(0) => {}
            Ok(messages) => {
                warn!(messages, "a message that cannot be read was rejected; the dead queue has it in the end");
                return true;
            }
            Err(error) => {
                let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
                warn!(error = %error, cause, "a message that cannot be read stays where it is");
                return false;
            }
        }
    }
    false
}

/// How long a look so far into a queue may take.
fn patience(reach: usize) -> Duration {
    COMMAND_TIMEOUT.saturating_mul(u32::try_from(1 + reach / GETS_IN_TIME).unwrap_or(u32::MAX))
}

/// Rejects, in this queue, what cannot be read among the first [`REACH`]: for good, where it does not dead-letter. How many
/// those were.
pub(super) async fn take_away(connector: &Connector, queue: &str) -> Result<usize, AmqpError> {
    let mut line = line(connector).await?;
    within(patience(REACH), LOOKING, async { Ok(line.look(queue, REACH).await?) }).await
}

/// A connection by any node that answers.
async fn line(connector: &Connector) -> Result<Line<impl AsyncRead + AsyncWrite + Unpin + use<>>, AmqpError> {
    let open = async |uri| {
        let opening = Box::pin(async {
            let mut line = Line(connector.stream(uri).await?);
            line.open(uri).await?;
            Ok(line)
        });
        within(connector.settings.connect_timeout, "connecting", opening).await
    };
    connector.by_any_node(open).await
}

/// What holds messages that cannot be read out of everybody's way; they go back when it is dropped.
pub struct Held {
    _line: Box<dyn Send>,
    /// How many it holds.
    pub messages: usize,
    /// How many others were given back.
    pub(super) given_back: usize,
}

/// Holds what cannot be read among the first [`REACH`] of this queue, and gives the others back, in order.
pub(super) async fn hold(connector: &Connector, queue: &str) -> Result<Held, AmqpError> {
    let mut line = line(connector).await?;
    let holding = async move {
        let (mut others, mut messages) = (Vec::new(), 0);
        while others.len() + messages < REACH {
            match line.get(queue).await? {
                Got::Nothing => break,
                Got::Readable(tag) => others.push(tag),
                Got::Unreadable(_) => messages += 1,
            }
        }
        for tag in &others {
            line.method(1, REJECT, &[&tag[..], &[1]].concat()).await?;
        }
        Ok(Held { _line: Box::new(line), messages, given_back: others.len() })
    };
    within(patience(REACH), LOOKING, holding).await
}

/// One look at the first `reach` of a queue, over a stream that nothing was said on yet: how many were rejected.
///
/// # Errors
/// The stream ends, or the broker says what it ought not to. What was rejected until then stays so.
pub async fn look(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    uri: &AMQPUri,
    queue: &str,
    reach: usize,
) -> io::Result<usize> {
    let mut line = Line(stream);
    line.open(uri).await?;
    line.look(queue, reach).await
}

/// What stood at the head of a queue.
enum Got {
    Nothing,
    /// With its delivery tag.
    Readable([u8; 8]),
    Unreadable([u8; 8]),
}

/// A connection with one channel, 1.
struct Line<S>(S);

impl<S: AsyncRead + AsyncWrite + Unpin> Line<S> {
    /// Rejects what cannot be read among the first `reach` of a queue, and says good-bye: how many those were.
    async fn look(&mut self, queue: &str, reach: usize) -> io::Result<usize> {
        let mut rejected = 0;
        for _ in 0..reach {
            match self.get(queue).await? {
                Got::Nothing => break,
                // It is not acked, so the next one is another, and it goes back when this connection ends.
                Got::Readable(_) => {}
                Got::Unreadable(tag) => {
                    self.method(1, REJECT, &[&tag[..], &[0]].concat()).await?;
                    rejected += 1;
                }
            }
        }
        self.method(0, CLOSE, &[&200u16.to_be_bytes()[..], &short(""), &[0; 4]].concat()).await?;
        self.hear(&[CLOSE_OK]).await?;
        Ok(rejected)
    }

    async fn open(&mut self, uri: &AMQPUri) -> io::Result<()> {
        self.0.write_all(b"AMQP\x00\x00\x09\x01").await?;
        self.hear(&[START]).await?;
        let user = &uri.authority.userinfo;
        let plain = format!("\0{}\0{}", user.username, user.password);
        let start_ok = [long(b""), short("PLAIN"), long(plain.as_bytes()), short("en_US")].concat();
        self.method(0, START_OK, &start_ok).await?;
        let (_, mut tune) = self.hear(&[TUNE]).await?;
        // All that the broker wants, but no heartbeats: this is over soon.
        if let Some(heartbeat) = tune.last_chunk_mut::<2>() {
            *heartbeat = [0; 2];
        }
        self.method(0, TUNE_OK, &tune).await?;
        self.method(0, OPEN, &[short(&uri.vhost), vec![0, 0]].concat()).await?;
        self.hear(&[OPEN_OK]).await?;
        self.method(1, CHANNEL_OPEN, &[0]).await?;
        self.hear(&[CHANNEL_OPEN_OK]).await?;
        Ok(())
    }

    async fn get(&mut self, queue: &str) -> io::Result<Got> {
        self.method(1, GET, &[vec![0, 0], short(queue), vec![0]].concat()).await?;
        let (method, arguments) = self.hear(&[GET_OK, GET_EMPTY]).await?;
        if method == GET_EMPTY {
            return Ok(Got::Nothing);
        }
        let tag = *arguments.first_chunk().ok_or_else(unexpected)?;
        let (kind, header) = self.frame().await?;
        // Class, weight, the body's size, and the properties.
        let (HEADER_FRAME, Some((head, properties))) = (kind, header.split_first_chunk::<12>()) else {
            return Err(unexpected());
        };
        let size = head.last_chunk().map_or(0, |size| u64::from_be_bytes(*size));
        let mut passed = 0;
        while passed < size {
            passed += self.frame().await?.1.len() as u64;
        }
        let readable = parse_properties(properties).is_ok_and(|(rest, _)| rest.is_empty());
        Ok(if readable { Got::Readable(tag) } else { Got::Unreadable(tag) })
    }

    async fn method(&mut self, channel: u16, (class, method): Method, arguments: &[u8]) -> io::Result<()> {
        let payload = [&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat();
        let frame = [&[METHOD_FRAME], &channel.to_be_bytes()[..], &long(&payload), &[FRAME_END]].concat();
        self.0.write_all(&frame).await?;
        self.0.flush().await
    }

    /// The next method, which must be one of these, and its arguments.
    async fn hear(&mut self, methods: &[Method]) -> io::Result<(Method, Vec<u8>)> {
        let (kind, mut payload) = self.frame().await?;
        if let (METHOD_FRAME, Some(&[a, b, c, d])) = (kind, payload.first_chunk()) {
            let method = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            if methods.contains(&method) {
                return Ok((method, payload.split_off(4)));
            }
        }
        Err(unexpected())
    }

    /// The next frame's kind and payload.
    async fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).await?;
        let [kind, _, _, size @ ..] = head;
        let size = usize::try_from(u32::from_be_bytes(size)).ok().filter(|size| *size <= FRAME_MAX);
        let mut payload = vec![0; size.ok_or_else(unexpected)? + 1];
        self.0.read_exact(&mut payload).await?;
        if payload.pop() == Some(FRAME_END) { Ok((kind, payload)) } else { Err(unexpected()) }
    }
}

fn unexpected() -> io::Error {
    io::Error::other("the broker said something else")
}

/// A short string, of at most 255 bytes.
fn short(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).unwrap_or(u8::MAX);
    [&[length], &text.as_bytes()[..usize::from(length)]].concat()
}

/// A long string.
fn long(bytes: &[u8]) -> Vec<u8> {
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    [&length.to_be_bytes(), bytes].concat()
}
