//! The protocol without sockets: replies are cut out of bytes and matched to requests.
//!
//! The redis crate parses values by recursion and believes the lengths that a peer sends. Coroutine stacks are small,
//! so a loop measures each value first (RESP3: <https://redis.io/docs/latest/develop/reference/protocol-spec/>); only a
//! whole value, within its bounds, is handed to the crate.

use std::collections::VecDeque;

use ::redis::{Value, parse_redis_value};
use smallvec::SmallVec;

use super::error::{Error, Result};
use crate::limits::{REDIS_REPLY_BYTES_MAX, REDIS_REPLY_DEPTH_MAX, REDIS_REPLY_ELEMENTS_MAX};

/// Longest line of a length or a number.
const NUMBER_BYTES_MAX: usize = 32;

/// Cuts the first value off `bytes`; gives it with its length, or `None` while it is not whole.
pub fn next_value(bytes: &[u8]) -> Result<Option<(Value, usize)>> {
    let Some(length) = measure(bytes)? else { return Ok(None) };
    let whole = &bytes[..length];
    match bulk_string(whole).map_or_else(|| parse_redis_value(whole), Ok) {
        Ok(value) => Ok(Some((value, length))),
        Err(error) => Err(Error::protocol(error.to_string())),
    }
}

/// What a cached link is. The crate's parser looks at each byte: `make instructions` counts 10,697 for a link of 94 bytes
/// by way of it, 496 by this one. `None` for anything else, the null and a malformed one included.
fn bulk_string(value: &[u8]) -> Option<Value> {
    let line = value.strip_prefix(b"$")?;
    let (_, text) = line.split_at(memchr::memchr(b'\n', line)? + 1);
    text.strip_suffix(b"\r\n").map(|text| Value::BulkString(text.to_vec()))
}

/// The length of the first value, or `None` while it is not whole.
fn measure(bytes: &[u8]) -> Result<Option<usize>> {
    // How many values are left on each level that is open.
    let mut left: SmallVec<[usize; REDIS_REPLY_DEPTH_MAX]> = SmallVec::new();
    let mut elements = 0;
    let mut at = 0;
    loop {
        let Some(head) = head(&bytes[at..])? else { return within_bounds(bytes.len()) };
        at += head.bytes;
        elements += 1 + head.children;
        if elements > REDIS_REPLY_ELEMENTS_MAX {
            return Err(Error::protocol("a reply has too many elements"));
        }
        within_bounds(at)?;
        if at > bytes.len() {
            return Ok(None);
        }
        if head.children > 0 {
            if left.len() == REDIS_REPLY_DEPTH_MAX {
                return Err(Error::protocol("a reply is nested too deeply"));
            }
            left.push(head.children);
            continue;
        }
        // One value is complete, and with it perhaps those that it is the last of.
        loop {
            match left.last_mut() {
                None => return Ok(Some(at)),
                Some(1) => drop(left.pop()),
                Some(more) => {
                    *more -= 1;
                    break;
                }
            }
        }
    }
}

fn within_bounds(bytes: usize) -> Result<Option<usize>> {
    if bytes > REDIS_REPLY_BYTES_MAX {
        return Err(Error::protocol(format!("a reply has more than {REDIS_REPLY_BYTES_MAX} bytes")));
    }
    Ok(None)
}

/// What stands at the beginning of a value: its bytes without those of the values within, and how many these are.
struct Head {
    bytes: usize,
    children: usize,
}

fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(&kind) = bytes.first() else { return Ok(None) };
    let is_text = matches!(kind, b'+' | b'-');
    let Some(line) = line(bytes, is_text)? else { return Ok(None) };
    let bytes = line.len() + 3;
    match kind {
        b'+' | b'-' | b':' | b'_' | b',' | b'#' | b'(' => Ok(Some(Head { bytes, children: 0 })),
        b'$' | b'!' | b'=' => {
            let text = length(line)?.map_or(0, |length| length + 2);
            Ok(Some(Head { bytes: bytes + text, children: 0 }))
        }
        b'*' | b'~' | b'>' => Ok(Some(Head { bytes, children: length(line)?.unwrap_or(0) })),
        b'%' => Ok(Some(Head { bytes, children: 2 * length(line)?.unwrap_or(0) })),
        _ => Err(Error::protocol(format!("a value begins with {:?}", char::from(kind)))),
    }
}

/// The first line without its type and its end.
fn line(bytes: &[u8], is_text: bool) -> Result<Option<&[u8]>> {
    match memchr::memchr(b'\n', bytes) {
        Some(end) if end >= 2 && bytes[end - 1] == b'\r' => Ok(Some(&bytes[1..end - 1])),
        Some(_) => Err(Error::protocol("a line does not end in CR LF")),
        None if !is_text && bytes.len() > NUMBER_BYTES_MAX => Err(Error::protocol("a number has too many digits")),
        None => Ok(None),
    }
}

/// A length; `None` is the null of the older protocol.
fn length(line: &[u8]) -> Result<Option<usize>> {
    let malformed = || Error::protocol("a length is not a number within bounds");
    if line == b"-1" {
        return Ok(None);
    }
    let text = std::str::from_utf8(line).map_err(|_| malformed())?;
    match text.parse::<usize>() {
        Ok(length) if length <= REDIS_REPLY_BYTES_MAX && text.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(length)),
        _ => Err(malformed()),
    }
}

/// The values that answer the commands of one request, in their order.
pub(super) type Values = SmallVec<[Value; 1]>;

/// A request that was sent, and whom its replies are for.
pub(super) struct Pending<W> {
    /// How many replies there will be: one a command.
    pub replies: usize,
    /// Whom they are for.
    pub waiter: W,
    values: Values,
}

impl<W> Pending<W> {
    pub fn new(replies: usize, waiter: W) -> Self {
        Self { replies, waiter, values: Values::new() }
    }
}

/// The requests whose replies are due, in the order in which they were sent.
pub(super) struct Expected<W> {
    queue: VecDeque<Pending<W>>,
}

/// What a value from the server means.
pub(super) enum Arrived<W> {
    /// One of several replies; the request waits for more.
    Part,
    /// The last reply of a request.
    Finished(W, Values),
    /// A message that was published: channel and text.
    Message(Vec<u8>),
    /// Another push; of no interest.
    Ignored,
}

impl<W> Expected<W> {
    pub fn new() -> Self {
        Self { queue: VecDeque::new() }
    }

    pub fn extend(&mut self, requests: impl IntoIterator<Item = Pending<W>>) {
        self.queue.extend(requests);
    }

    /// Takes in a value.
    pub fn on_value(&mut self, value: Value) -> Result<Arrived<W>> {
        if let Value::Push { kind, data } = value {
            let is_message = kind == ::redis::PushKind::Message;
            return Ok(match data.into_iter().nth(1) {
                Some(Value::BulkString(text)) if is_message => Arrived::Message(text),
                _ => Arrived::Ignored,
            });
        }
        let Some(first) = self.queue.front_mut() else { return Err(Error::protocol("a reply that nobody asked for")) };
        first.values.push(value);
        if first.values.len() < first.replies {
            return Ok(Arrived::Part);
        }
        match self.queue.pop_front() {
            Some(pending) => Ok(Arrived::Finished(pending.waiter, pending.values)),
            None => Ok(Arrived::Part),
        }
    }

    /// The waiters that are left when the connection is over.
    pub fn into_waiters(self) -> impl Iterator<Item = W> {
        self.queue.into_iter().map(|pending| pending.waiter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ::redis::PushKind;
    use proptest::prelude::*;

    fn text(text: &str) -> Value {
        Value::BulkString(text.as_bytes().to_vec())
    }

    /// Reads all values of `bytes`, which arrive in two pieces, split anywhere.
    fn check(bytes: &[u8], expect: &[Value]) {
        for split in 0..=bytes.len() {
            let mut found = Vec::new();
            let mut input = Vec::new();
            for piece in [&bytes[..split], &bytes[split..]] {
                input.extend_from_slice(piece);
                while let Some((value, used)) = next_value(&input).unwrap() {
                    found.push(value);
                    input.drain(..used);
                }
            }
            assert!(input.is_empty(), "{input:?} is left of {bytes:?}");
            assert_eq!(found, expect, "split at {split}");
        }
    }

    #[test]
    fn values_are_cut_off_wherever_they_are_split() {
        let message = Value::Push { kind: PushKind::Message, data: vec![text("c"), text("x 1")] };
        check(b"+OK\r\n", &[Value::Okay]);
        check(b":-7\r\n$3\r\na\r\n\r\n", &[Value::Int(-7), text("a\r\n")]);
        check(b"$-1\r\n_\r\n*-1\r\n", &[Value::Nil, Value::Nil, Value::Nil]);
        check(b"$0\r\n\r\n*0\r\n", &[text(""), Value::Array(vec![])]);
        check(b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$3\r\nx 1\r\n:1\r\n", &[message, Value::Int(1)]);
        let map =
            Value::Map(vec![(text("a"), Value::Array(vec![Value::Int(1), Value::Int(2)])), (text("b"), Value::Nil)]);
        check(b"%2\r\n$1\r\na\r\n*2\r\n:1\r\n:2\r\n$1\r\nb\r\n_\r\n", &[map]);
        check(
            b"#t\r\n,1.5\r\n=5\r\ntxt:a\r\n",
            &[Value::Boolean(true), Value::Double(1.5), {
                Value::VerbatimString { format: ::redis::VerbatimFormat::Text, text: "a".into() }
            }],
        );
        for (value, _) in
            [next_value(b"-OOM no memory\r\n"), next_value(b"!5\r\nERR x\r\n")].map(|v| v.unwrap().unwrap())
        {
            assert!(matches!(value, Value::ServerError(_)), "{value:?}");
        }
    }

    #[test]
    fn what_is_no_reply_ends_the_connection() {
        let deep = b"*1\r\n".repeat(REDIS_REPLY_DEPTH_MAX + 1);
        let long = format!("${}\r\n", REDIS_REPLY_BYTES_MAX + 1);
        for (bytes, says) in [
            (&b"HTTP/1.1 400\r\n"[..], "begins with"),
            (b"+OK\n", "CR LF"),
            (b"$x\r\n", "length"),
            (b"$+1\r\n", "length"),
            (b"$-2\r\n", "length"),
            (b"*99999\r\n", "elements"),
            (b"*18446744073709551615\r\n", "length"),
            (b":0000000000000000000000000000000000000000", "digits"),
            (&deep, "deeply"),
            (long.as_bytes(), "length"),
            (b":seven\r\n", ""),
            (b"$3\r\nabcde", ""),
        ] {
            let error = next_value(bytes).expect_err(&String::from_utf8_lossy(bytes)).to_string();
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn the_deepest_reply_fits_a_coroutines_stack() {
        crate::runtime::init();
        let mut bytes = b"*1\r\n".repeat(REDIS_REPLY_DEPTH_MAX);
        bytes.extend_from_slice(b"+OK\r\n");
        let (slot, filler) = crate::runtime::slot();
        crate::runtime::spawn(crate::limits::SOCKET_STACK_WORDS, move || {
            filler.fill(next_value(&bytes).is_ok_and(|value| value.is_some()));
        })
        .unwrap();
        assert_eq!(slot.wait_until_filled(), Ok(true));
    }

    #[test]
    fn replies_find_their_requests_in_order() {
        let mut expected = Expected::new();
        expected.extend([Pending::new(1, 'a'), Pending::new(2, 'b')]);
        let mut seen = Vec::new();
        let message = Value::Push { kind: PushKind::Message, data: vec![text("c"), text("m")] };
        let other = Value::Push { kind: PushKind::Subscribe, data: vec![text("c"), Value::Int(1)] };
        for value in [Value::Int(1), message, Value::Int(2), other, Value::Int(3)] {
            seen.push(match expected.on_value(value).unwrap() {
                Arrived::Part => "part".to_owned(),
                Arrived::Finished(waiter, values) => format!("{waiter}{}", values.len()),
                Arrived::Message(text) => String::from_utf8(text).unwrap(),
                Arrived::Ignored => "-".to_owned(),
            });
        }
        assert_eq!(seen, ["a1", "m", "part", "-", "b2"]);
        assert!(expected.on_value(Value::Int(4)).is_err());
    }

    /// What replies are made of, sound and not.
    const PIECES: [&str; 30] = [
        "*1\r\n",
        "*2\r\n",
        "*-1\r\n",
        "%1\r\n",
        "%-1\r\n",
        "~1\r\n",
        ">2\r\n",
        ">0\r\n",
        "|1\r\n",
        "$1\r\n",
        "$-1\r\n",
        "$0\r\n",
        "=5\r\n",
        "=1\r\n",
        "=-1\r\n",
        "!5\r\n",
        "!-1\r\n",
        "!0\r\n",
        "txt:a\r\n",
        "x\r\n",
        "\r\n",
        "+\r\n",
        "-\r\n",
        "-E x\r\n",
        "+subscribe\r\n",
        ":1\r\n",
        "_\r\n",
        "#x\r\n",
        ",x\r\n",
        "(1\r\n",
    ];

    proptest! {
        #[test]
        fn arbitrary_replies_never_panic(
            pieces in proptest::collection::vec(proptest::sample::select(&PIECES[..]), 0..8),
            bytes in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            for mut bytes in [pieces.concat().into_bytes(), bytes] {
                let mut expected = Expected::new();
                expected.extend([Pending::new(2, ())]);
                while let Ok(Some((value, used))) = next_value(&bytes) {
                    let _ = super::super::connect::refuse_errors(value.clone());
                    let _ = expected.on_value(value);
                    bytes.drain(..used);
                }
            }
        }
    }
}
