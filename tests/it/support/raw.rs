//! A publisher of raw AMQP 0-9-1: properties byte by byte, as no decent library would send them.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// The flag of `message_id` in a content header.
pub const MESSAGE_ID: u16 = 1 << 7;
/// The flag of `headers`.
pub const HEADERS: u16 = 1 << 13;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xCE;
const CONNECTION: u16 = 10;
const CHANNEL: u16 = 20;
const BASIC: u16 = 60;
const CONFIRM: u16 = 85;

/// Properties as they stand on the wire: which there are, and their bytes in order.
pub struct Properties {
    pub flags: u16,
    pub bytes: Vec<u8>,
}

impl Properties {
    pub fn message_id(id: &[u8]) -> Self {
        Self { flags: MESSAGE_ID, bytes: short(id) }
    }

    /// With one header, a long string; its name is any bytes.
    pub fn header(name: &[u8], value: &[u8], id: &[u8]) -> Self {
        let field = [short(name), vec![b'S'], long(value)].concat();
        Self { flags: HEADERS | MESSAGE_ID, bytes: [long(&field), short(id)].concat() }
    }
}

pub fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

pub fn long(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

/// Publishes to a queue by its name, and waits until the broker has it.
pub async fn publish(url: &str, queue: &str, properties: &Properties, body: &[u8]) {
    let mut line = Line::open(url).await;
    line.method(1, CONFIRM, 10, &[0]).await;
    line.expect(CONFIRM, 11).await;
    let target = [vec![0, 0], short(b""), short(queue.as_bytes()), vec![0]].concat();
    line.method(1, BASIC, 40, &target).await;
    let length = u64::try_from(body.len()).unwrap().to_be_bytes();
    let head = [&BASIC.to_be_bytes(), &[0, 0][..], &length, &properties.flags.to_be_bytes(), &properties.bytes];
    line.frame(HEADER, 1, &head.concat()).await;
    line.frame(BODY, 1, body).await;
    line.expect(BASIC, 80).await;
    line.close().await;
}

/// Takes the next message out of a queue that is not empty: its content header's properties with their flags, and its
/// body.
pub async fn take(url: &str, queue: &str) -> (Vec<u8>, Vec<u8>) {
    let mut line = Line::open(url).await;
    line.method(1, BASIC, 70, &[vec![0, 0], short(queue.as_bytes()), vec![1]].concat()).await;
    line.expect(BASIC, 71).await;
    let (_, header) = line.next().await;
    let (_, body) = line.next().await;
    line.close().await;
    (header[12..].to_vec(), body)
}

/// A connection with channel 1.
struct Line(TcpStream);

impl Line {
    async fn open(url: &str) -> Self {
        let url = url::Url::parse(url).unwrap();
        let mut line = Self(TcpStream::connect((url.host_str().unwrap(), url.port().unwrap())).await.unwrap());
        line.0.write_all(b"AMQP\x00\x00\x09\x01").await.unwrap();
        line.expect(CONNECTION, 10).await;
        let plain = format!("\0{}\0{}", url.username(), url.password().unwrap());
        let start_ok = [long(b""), short(b"PLAIN"), long(plain.as_bytes()), short(b"en_US")].concat();
        line.method(0, CONNECTION, 11, &start_ok).await;
        let tune = line.expect(CONNECTION, 30).await;
        line.method(0, CONNECTION, 31, &tune).await;
        let vhost = [short(&url.path().as_bytes()[1..]), vec![0, 0]].concat();
        line.method(0, CONNECTION, 40, &vhost).await;
        line.expect(CONNECTION, 41).await;
        line.method(1, CHANNEL, 10, &[0]).await;
        line.expect(CHANNEL, 11).await;
        line
    }

    async fn close(&mut self) {
        self.method(0, CONNECTION, 50, &[vec![0, 200], short(b""), vec![0; 4]].concat()).await;
        self.expect(CONNECTION, 51).await;
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let frame = [&[kind], &channel.to_be_bytes()[..], &long(payload), &[END]].concat();
        self.0.write_all(&frame).await.unwrap();
    }

    async fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        self.frame(METHOD, channel, &[&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat()).await;
    }

    /// The arguments of the next method, which must be this one.
    async fn expect(&mut self, class: u16, method: u16) -> Vec<u8> {
        let (kind, mut payload) = self.next().await;
        let expected = [class.to_be_bytes(), method.to_be_bytes()].concat();
        assert!(kind == METHOD && payload[..4] == expected, "{}", String::from_utf8_lossy(&payload));
        payload.split_off(4)
    }

    /// The next frame's kind and payload.
    async fn next(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 7];
        self.0.read_exact(&mut head).await.unwrap();
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]);
        let mut payload = vec![0; size as usize + 1];
        self.0.read_exact(&mut payload).await.unwrap();
        assert_eq!(payload.pop(), Some(END));
        (head[0], payload)
    }
}
