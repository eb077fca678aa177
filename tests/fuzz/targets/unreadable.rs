//! The look for a message that cannot be read. An input that starts with a 0 is what a broker says, byte by byte, and
//! may be anything. Any other is a queue, which a sound broker serves: its messages one after the other, each as two
//! bytes for the length of its properties, the properties, and a byte for the length of its body.
#![no_main]

mod wire;

use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use futures_io::{AsyncRead, AsyncWrite};
use lapin::uri::AMQPUri;
use libfuzzer_sys::fuzz_target;
use migma_eraser::amqp::look;

/// As far as it is looked into the request queue.
const REACH: usize = 6;

/// A broker whose every word is known beforehand.
struct Broker<'a> {
    says: &'a [u8],
    heard: Vec<u8>,
}

impl AsyncRead for Broker<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let length = into.len().min(self.says.len());
        let (now, later) = self.says.split_at(length);
        into[..length].copy_from_slice(now);
        self.says = later;
        Poll::Ready(Ok(length))
    }
}

impl AsyncWrite for Broker<'_> {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.heard.extend_from_slice(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

fuzz_target!(|data: &[u8]| {
    let (says, unreadable) = match data.split_first() {
        None => return,
        Some((0, said)) => (said.to_vec(), None),
        Some((_, queue)) => {
            let (says, unreadable) = serve(queue);
            (says, Some(unreadable))
        }
    };
    let mut broker = Broker { says: &says, heard: Vec::new() };
    let uri: AMQPUri = "amqp://guest:secret@127.0.0.1/v".parse().unwrap();
    let Poll::Ready(found) =
        pin!(look(&mut broker, &uri, "x.requests", REACH)).poll(&mut Context::from_waker(Waker::noop()))
    else {
        panic!("it waits for nothing")
    };
    let rejected = rejected(&broker.heard);
    match unreadable {
        Some(unreadable) => {
            assert_eq!(found.unwrap(), unreadable.len());
            assert_eq!(rejected, unreadable, "these and no others");
        }
        // What it tells is what it did.
        None => assert!(found.is_err() || found.is_ok_and(|count| count == rejected.len())),
    }
    assert!(rejected.len() <= REACH);
});

fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&[kind], &channel.to_be_bytes()[..], &size, payload, &[0xCE]].concat()
}

fn method(channel: u16, class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    frame(1, channel, &[&class.to_be_bytes(), &method.to_be_bytes(), arguments].concat())
}

/// All that a broker says whose queue is this one; and the tags of those of its messages that cannot be read.
fn serve(mut queue: &[u8]) -> (Vec<u8>, Vec<u64>) {
    let mut says = [
        method(0, 10, 10, b"\x00\x09"),
        method(0, 10, 30, &[7, 255, 0, 2, 0, 0, 0, 60]),
        method(0, 10, 41, &[0]),
        method(1, 20, 11, &[0, 0, 0, 0]),
    ]
    .concat();
    let mut unreadable = Vec::new();
    for tag in 1..=REACH as u64 {
        let Some((length, rest)) = queue.split_first_chunk() else {
            says.extend(method(1, 60, 72, &[0]));
            break;
        };
        let length = usize::from(u16::from_be_bytes(*length)).min(rest.len());
        let (properties, rest) = rest.split_at(length);
        let (body, rest) = rest.split_first().map_or((0, rest), |(size, rest)| (*size, rest));
        queue = rest;
        says.extend(method(1, 60, 71, &[&tag.to_be_bytes()[..], &[0, 1, b'x', 1, b'k', 0, 0, 0, 9]].concat()));
        let head = [&[0, 60, 0, 0][..], &u64::from(body).to_be_bytes(), properties].concat();
        says.extend(frame(2, 1, &head));
        for piece in vec![b'b'; usize::from(body)].chunks(100) {
            says.extend(frame(3, 1, piece));
        }
        if wire::read(properties).is_none() {
            unreadable.push(tag);
        }
    }
    says.extend(method(0, 10, 51, &[]));
    (says, unreadable)
}

/// The tags that were rejected, by what the broker heard: a header, and then nothing but frames.
fn rejected(heard: &[u8]) -> Vec<u64> {
    let mut rest = heard.strip_prefix(b"AMQP\x00\x00\x09\x01").unwrap();
    let mut tags = Vec::new();
    while !rest.is_empty() {
        let (head, behind) = rest.split_first_chunk::<7>().unwrap();
        assert_eq!(head[0], 1, "a client that only asks sends methods alone");
        let size = u32::from_be_bytes([head[3], head[4], head[5], head[6]]) as usize;
        let (payload, behind) = behind.split_at(size);
        let (end, behind) = behind.split_first().unwrap();
        assert_eq!(*end, 0xCE);
        if let Some((&[0, 60, 0, 90], tag)) = payload.split_first_chunk() {
            assert_eq!(tag.len(), 9);
            assert_eq!(tag[8], 0, "never requeued: it would come again at once");
            tags.push(u64::from_be_bytes(*tag.first_chunk().unwrap()));
        }
        rest = behind;
    }
    tags
}
