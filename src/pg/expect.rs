//! Which reply belongs to which request: a queue with one entry a batch, taken off when the server is ready again.
//!
//! Pure: frames go in, finished batches come out. The server answers in order; after an error it skips to the end of
//! the batch (PostgreSQL manual, 55.2.3 and 55.2.4). Whatever does not fit is a [`Fault`], after which nothing that
//! arrives can be trusted to belong to anybody.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use smallvec::SmallVec;

use super::error::ServerError;
use super::rows::{Column, Rows};
use super::wire::{self, Fault, Frame, Status, tag};
use crate::limits;

/// A statement as one session knows it.
#[derive(Debug)]
pub(super) struct Prepared {
    /// Empty for the unnamed statement.
    pub name: String,
    pub sql: &'static str,
    /// Columns of its result, from the first reply on.
    pub columns: OnceLock<Arc<[Column]>>,
}

impl Prepared {
    pub fn new(name: String, sql: &'static str) -> Self {
        Self { name, sql, columns: OnceLock::new() }
    }
}

/// One statement of a batch: an optional Parse, Bind, an optional Describe, Execute.
#[derive(Debug)]
pub(super) struct Part {
    pub prepared: Arc<Prepared>,
    pub parse: bool,
    pub describe: bool,
}

/// What was asked between two Syncs.
#[derive(Debug)]
pub(super) enum Shape {
    /// So many Close messages, then the parts.
    Batch { closes: usize, parts: SmallVec<[Part; 1]> },
    /// A text of several statements in the simple protocol; its rows are dropped.
    Script,
}

/// An entry of the queue.
#[derive(Debug)]
pub(super) struct Pending<T> {
    pub shape: Shape,
    /// Where the entry's bytes begin, counted over all that was ever queued on the connection.
    pub starts_at: u64,
    pub waiter: T,
}

/// The rows of a batch, one entry a statement.
pub(super) type Results = SmallVec<[Rows; 1]>;

/// How a batch ended.
#[derive(Debug)]
pub(super) enum Outcome {
    /// All statements were carried out.
    Done(Results),
    /// One was refused, and with it the whole batch.
    Refused(Refusal),
    /// All were carried out, but the rows take more than `limits::PG_REPLY_BYTES_MAX`.
    TooLarge,
}

/// Where and why a batch was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    pub error: Box<ServerError>,
    /// The statement that failed was prepared by an earlier batch.
    pub was_prepared_before: bool,
    /// Parts from this one on were not parsed.
    pub unparsed_from: usize,
}

/// A batch that is over.
#[derive(Debug)]
pub(super) struct Finished<T> {
    pub pending: Pending<T>,
    pub outcome: Outcome,
    pub status: Status,
}

/// Why the session is over.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The server does not follow the protocol.
    Fault(Fault),
    /// The server says that it ends the session.
    Fatal(Box<ServerError>),
}

impl From<Fault> for Broken {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// What is awaited next for the part at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Parse,
    Bind,
    Describe,
    Rows,
}

/// How far the reply to the front entry has come.
#[derive(Default)]
struct Progress {
    begun: bool,
    closes_left: usize,
    /// Index of the part at hand; the number of parts once all are done.
    part: usize,
    step: Option<Step>,
    rows: Option<Rows>,
    results: Results,
    refusal: Option<Refusal>,
    bytes: usize,
}

/// The queue of awaited replies.
pub(super) struct Expected<T> {
    queue: VecDeque<Pending<T>>,
    front: Progress,
}

impl<T> Expected<T> {
    pub fn new() -> Self {
        Self { queue: VecDeque::new(), front: Progress::default() }
    }

    /// Takes over what was asked since.
    pub fn extend(&mut self, more: impl Iterator<Item = Pending<T>>) {
        self.queue.extend(more);
    }

    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// Ends the queue: the entries that will never be answered.
    pub fn into_rest(self) -> VecDeque<Pending<T>> {
        self.queue
    }

    /// Takes one message from the server; gives the batch that it ends.
    pub fn on_frame(&mut self, frame: Frame<'_>) -> Result<Option<Finished<T>>, Broken> {
        match frame.tag {
            tag::NOTICE | tag::PARAMETER_STATUS | tag::NOTIFICATION => Ok(None),
            tag::ERROR => self.on_error(Box::new(wire::read_error(frame.body))).map(|()| None),
            tag::READY => self.on_ready(wire::read_status(frame.body)?).map(Some),
            tag::COPY_IN | tag::COPY_OUT => Err(Fault::new("COPY is not part of this client").into()),
            _ => self.on_step(frame).map(|()| None).map_err(Broken::from),
        }
    }

    fn on_error(&mut self, error: Box<ServerError>) -> Result<(), Broken> {
        let Some(pending) = self.queue.front() else { return Err(Broken::Fatal(error)) };
        if error.is_fatal() {
            return Err(Broken::Fatal(error));
        }
        if self.front.refusal.is_some() {
            return Err(Fault::new("a second error in one batch").into());
        }
        self.front.begin(&pending.shape);
        self.front.refusal = Some(self.front.refuse(&pending.shape, error));
        Ok(())
    }

    fn on_ready(&mut self, status: Status) -> Result<Finished<T>, Broken> {
        let Some(pending) = self.queue.pop_front() else {
            return Err(Fault::new("the server is ready without having been asked").into());
        };
        self.front.begin(&pending.shape);
        let progress = std::mem::take(&mut self.front);
        let outcome = progress.finish(&pending.shape)?;
        Ok(Finished { pending, outcome, status })
    }

    fn on_step(&mut self, frame: Frame<'_>) -> Result<(), Fault> {
        let Some(pending) = self.queue.front() else { return Err(unexpected(frame)) };
        if self.front.refusal.is_some() {
            return Err(unexpected(frame));
        }
        self.front.begin(&pending.shape);
        match &pending.shape {
            Shape::Script => match frame.tag {
                tag::ROW_DESCRIPTION | tag::DATA_ROW | tag::COMMAND_COMPLETE | tag::EMPTY_QUERY => Ok(()),
                _ => Err(unexpected(frame)),
            },
            Shape::Batch { parts, .. } => self.front.on_batch_step(parts, frame),
        }
    }
}

fn unexpected(frame: Frame<'_>) -> Fault {
    Fault::new(format!("a message of type {:?} at the wrong place", char::from(frame.tag)))
}

impl Progress {
    /// Sets out on the front entry; does nothing if that was done.
    fn begin(&mut self, shape: &Shape) {
        if self.begun {
            return;
        }
        self.begun = true;
        if let Shape::Batch { closes, parts } = shape {
            self.closes_left = *closes;
            self.step = first_step(parts, 0);
        }
    }

    fn on_batch_step(&mut self, parts: &[Part], frame: Frame<'_>) -> Result<(), Fault> {
        if frame.tag == tag::CLOSE_COMPLETE && self.closes_left > 0 {
            self.closes_left -= 1;
            return Ok(());
        }
        let (Some(part), Some(step), 0) = (parts.get(self.part), self.step, self.closes_left) else {
            return Err(unexpected(frame));
        };
        match (step, frame.tag) {
            (Step::Parse, tag::PARSE_COMPLETE) => self.step = Some(Step::Bind),
            (Step::Bind, tag::BIND_COMPLETE) if part.describe => self.step = Some(Step::Describe),
            (Step::Bind, tag::BIND_COMPLETE) => self.await_rows(part)?,
            (Step::Describe, tag::ROW_DESCRIPTION) => {
                self.learn_columns(part, wire::read_columns(frame.body)?)?;
            }
            (Step::Describe, tag::NO_DATA) => self.learn_columns(part, Vec::new())?,
            (Step::Rows, tag::DATA_ROW) => self.keep_row(frame.body),
            (Step::Rows, tag::COMMAND_COMPLETE | tag::EMPTY_QUERY) => {
                self.end_part(parts, wire::read_affected(frame.body));
            }
            _ => return Err(unexpected(frame)),
        }
        Ok(())
    }

    fn learn_columns(&mut self, part: &Part, columns: Vec<Column>) -> Result<(), Fault> {
        // Callers that came before the first reply all asked; the first answer stands, and the server refuses to run a
        // prepared statement whose columns have changed.
        let _ = part.prepared.columns.set(columns.into());
        self.await_rows(part)
    }

    fn await_rows(&mut self, part: &Part) -> Result<(), Fault> {
        let columns = part.prepared.columns.get().ok_or_else(|| Fault::new("rows without a description"))?;
        self.rows = Some(Rows::new(Arc::clone(columns)));
        self.step = Some(Step::Rows);
        Ok(())
    }

    fn keep_row(&mut self, body: &[u8]) {
        self.bytes += body.len();
        match &mut self.rows {
            Some(rows) if self.bytes <= limits::PG_REPLY_BYTES_MAX => rows.push(body),
            // The rest is read and dropped; the caller gets an error instead of a part of the rows.
            _ => self.rows = None,
        }
    }

    fn end_part(&mut self, parts: &[Part], affected: u64) {
        if let Some(mut rows) = self.rows.take() {
            rows.set_affected(affected);
            self.results.push(rows);
        }
        self.part += 1;
        self.step = first_step(parts, self.part);
    }

    fn refuse(&self, shape: &Shape, error: Box<ServerError>) -> Refusal {
        let part = match shape {
            Shape::Batch { parts, .. } => parts.get(self.part),
            Shape::Script => None,
        };
        let unparsed_from = if self.step == Some(Step::Parse) { self.part } else { self.part + 1 };
        Refusal { error, was_prepared_before: part.is_some_and(|part| !part.parse), unparsed_from }
    }

    fn finish(self, shape: &Shape) -> Result<Outcome, Fault> {
        if let Some(refusal) = self.refusal {
            return Ok(Outcome::Refused(refusal));
        }
        match shape {
            Shape::Script => Ok(Outcome::Done(Results::new())),
            Shape::Batch { parts, .. } if self.part < parts.len() || self.closes_left > 0 => {
                Err(Fault::new("the server is ready before it has answered"))
            }
            Shape::Batch { .. } if self.bytes > limits::PG_REPLY_BYTES_MAX => Ok(Outcome::TooLarge),
            Shape::Batch { .. } => Ok(Outcome::Done(self.results)),
        }
    }
}

fn first_step(parts: &[Part], at: usize) -> Option<Step> {
    parts.get(at).map(|part| if part.parse { Step::Parse } else { Step::Bind })
}

#[cfg(test)]
mod tests {
    use super::super::wire::{Next, next_frame};
    use super::*;
    use proptest::prelude::*;
    use smallvec::smallvec;

    /// Builds the bytes of one message.
    fn message(tag: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[tag][..], &length.to_be_bytes(), body].concat()
    }

    /// Messages by name, as the tables below write them.
    fn stream(script: &str) -> Vec<u8> {
        let one = |word: &str| match word {
            "parse" => message(b'1', b""),
            "bind" => message(b'2', b""),
            "close" => message(b'3', b""),
            "columns" => message(b'T', b"\0\x01id\0\0\0\0\0\0\0\0\0\0\x14\0\x08\xff\xff\xff\xff\0\x01"),
            "nodata" => message(b'n', b""),
            "row" => message(b'D', b"\0\x01\0\0\0\x08\0\0\0\0\0\0\0\x07"),
            "done" => message(b'C', b"SELECT 1\0"),
            "empty" => message(b'I', b""),
            "error" => message(b'E', b"SERROR\0C23505\0Mno\0\0"),
            "fatal" => message(b'E', b"SFATAL\0C57P01\0Mbye\0\0"),
            "notice" => message(b'N', b"SNOTICE\0\0"),
            "status" => message(b'S', b"a\0b\0"),
            "notify" => message(b'A', b"\0\0\0\x01c\0p\0"),
            "copyin" => message(b'G', b"\0\0\0"),
            "idle" => message(b'Z', b"I"),
            "failed" => message(b'Z', b"E"),
            "garbage" => message(b'?', b""),
            _ => panic!("{word}"),
        };
        script.split_whitespace().flat_map(one).collect()
    }

    /// One statement each: `p` parses and describes, `b` binds what is known, `d` describes too; `c` closes first.
    fn expected(batches: &[&str]) -> Expected<usize> {
        let known = Prepared::new("known".into(), "");
        known.columns.set([Column { name: "id".into(), ty: postgres_types::Type::INT8 }].into()).unwrap();
        let known = Arc::new(known);
        let mut expected = Expected::new();
        for (waiter, batch) in batches.iter().enumerate() {
            let part = |parse, describe, prepared: &Arc<Prepared>| Part { parse, describe, prepared: prepared.clone() };
            let parts = batch.chars().filter(|char| *char != 'c').map(|char| match char {
                'p' => part(true, true, &Arc::new(Prepared::new("new".into(), ""))),
                'd' => part(false, true, &Arc::new(Prepared::new("new".into(), ""))),
                _ => part(false, false, &known),
            });
            let closes = batch.matches('c').count();
            let shape =
                if *batch == "script" { Shape::Script } else { Shape::Batch { closes, parts: parts.collect() } };
            expected.queue.push_back(Pending { shape, starts_at: 0, waiter });
        }
        expected
    }

    fn describe(finished: &Finished<usize>) -> String {
        let what = match &finished.outcome {
            Outcome::Done(results) => format!("{:?}", results.iter().map(Rows::len).collect::<Vec<_>>()),
            Outcome::Refused(refusal) => {
                let Refusal { error, was_prepared_before, unparsed_from } = refusal;
                format!("{} before={was_prepared_before} unparsed={unparsed_from}", error.sqlstate)
            }
            Outcome::TooLarge => "too large".into(),
        };
        format!("{}: {what} {:?}", finished.pending.waiter, finished.status)
    }

    /// Feeds the bytes in the given pieces, as a socket would; what comes out, one line a batch, and what breaks.
    fn feed(batches: &[&str], pieces: &[&[u8]]) -> Vec<String> {
        let mut expected = expected(batches);
        let (mut buffer, mut lines) = (Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let (result, used) = match next_frame(&buffer) {
                    Ok(Next::Frame(frame, used)) => (expected.on_frame(frame), used),
                    Ok(Next::Needs(_)) => break,
                    Err(fault) => (Err(fault.into()), 0),
                };
                match result {
                    Ok(finished) => lines.extend(finished.as_ref().map(describe)),
                    Err(Broken::Fatal(error)) => return [lines, vec![format!("fatal {}", error.sqlstate)]].concat(),
                    Err(Broken::Fault(_)) => return [lines, vec!["fault".into()]].concat(),
                }
                buffer.drain(..used);
            }
        }
        lines
    }

    fn check(batches: &[&str], replies: &str, expect: &[&str]) {
        let bytes = stream(replies);
        assert_eq!(feed(batches, &[&bytes]), expect, "{replies}");
        for split in 0..bytes.len() {
            let (head, tail) = bytes.split_at(split);
            assert_eq!(feed(batches, &[head, tail]), expect, "{replies}, split at {split}");
        }
    }

    #[test]
    fn replies_find_their_requests() {
        check(&["p"], "parse bind columns row row done idle", &["0: [2] Idle"]);
        check(&["b"], "bind row done idle", &["0: [1] Idle"]);
        check(&["b"], "bind done idle", &["0: [0] Idle"]);
        check(&["b"], "bind empty idle", &["0: [0] Idle"]);
        check(&["p"], "parse bind nodata done idle", &["0: [0] Idle"]);
        check(&["d"], "bind columns row done idle", &["0: [1] Idle"]);
        check(&["ccb"], "close close bind row done idle", &["0: [1] Idle"]);
        check(&["bpb"], "bind row done parse bind nodata done bind done idle", &["0: [1, 0, 0] Idle"]);
        check(&["b", "b"], "bind row done idle bind done failed", &["0: [1] Idle", "1: [0] Failed"]);
        check(&["script", "b"], "done columns row done empty idle bind done idle", &["0: [] Idle", "1: [0] Idle"]);
        check(&[""], "idle", &["0: [] Idle"]);
    }

    #[test]
    fn asynchronous_messages_disturb_nothing() {
        check(
            &["p", "b"],
            "status notice parse notify bind notice columns notice row status done notice idle notice bind done idle",
            &["0: [1] Idle", "1: [0] Idle"],
        );
        check(&[], "notice status notify", &[]);
    }

    #[test]
    fn errors_skip_to_the_end_of_their_batch_only() {
        check(&["p", "b"], "error idle bind row done idle", &["0: 23505 before=false unparsed=0 Idle", "1: [1] Idle"]);
        check(&["p"], "parse error idle", &["0: 23505 before=false unparsed=1 Idle"]);
        check(&["b"], "error failed", &["0: 23505 before=true unparsed=1 Failed"]);
        check(&["b"], "bind row error notice idle", &["0: 23505 before=true unparsed=1 Idle"]);
        check(&["bpp"], "bind done error idle", &["0: 23505 before=false unparsed=1 Idle"]);
        check(&["b"], "bind row done error idle", &["0: 23505 before=false unparsed=2 Idle"]);
        check(&["script"], "done error idle", &["0: 23505 before=false unparsed=1 Idle"]);
    }

    #[test]
    fn the_end_of_the_session_is_not_an_answer() {
        check(&[], "fatal", &["fatal 57P01"]);
        check(&[], "error", &["fatal 23505"]);
        check(&["b"], "bind fatal", &["fatal 57P01"]);
        check(&["b", "b"], "bind done idle fatal", &["0: [0] Idle", "fatal 57P01"]);
    }

    #[test]
    fn what_does_not_fit_is_a_fault() {
        for (batches, replies) in [
            (&[][..], "idle"),
            (&[], "bind"),
            (&["b"], "idle"),
            (&["b"], "parse"),
            (&["b"], "bind bind"),
            (&["b"], "bind columns"),
            (&["b"], "row"),
            (&["p"], "bind"),
            (&["p"], "parse bind row"),
            (&["b"], "bind done done"),
            (&["b"], "bind done row"),
            (&["b"], "bind idle"),
            (&["b"], "error error"),
            (&["b"], "error bind"),
            (&["b"], "close"),
            (&["cb"], "bind"),
            (&["c"], "idle"),
            (&["b"], "bind copyin"),
            (&["script"], "bind"),
            (&["b"], "garbage"),
        ] {
            check(batches, replies, &["fault"]);
        }
    }

    #[test]
    fn rows_over_the_bound_are_dropped_and_said_so() {
        let row = message(b'D', &vec![0; limits::PG_MESSAGE_BYTES_MAX / 2]);
        let rows = limits::PG_REPLY_BYTES_MAX / (limits::PG_MESSAGE_BYTES_MAX / 2) + 1;
        let (bind, end) = (stream("bind"), stream("done idle"));
        let mut pieces = vec![&bind[..]];
        pieces.extend(std::iter::repeat_n(&row[..], rows));
        pieces.push(&end);
        assert_eq!(feed(&["b"], &pieces), ["0: too large Idle"]);
    }

    #[test]
    fn a_statement_of_the_batch_before_is_known() {
        let prepared = Arc::new(Prepared::new("s1".into(), ""));
        let part = |parse| Part { parse, describe: parse, prepared: prepared.clone() };
        let mut expected = Expected::new();
        for (waiter, parse) in [(0, true), (1, false)] {
            let shape = Shape::Batch { closes: 0, parts: smallvec![part(parse)] };
            expected.queue.push_back(Pending { shape, starts_at: 0, waiter });
        }
        let mut bytes = &stream("parse bind columns done idle bind row done idle")[..];
        let mut finished = Vec::new();
        while let Ok(Next::Frame(frame, used)) = next_frame(bytes) {
            finished.extend(expected.on_frame(frame).unwrap().as_ref().map(describe));
            bytes = &bytes[used..];
        }
        assert_eq!(finished, ["0: [0] Idle", "1: [1] Idle"]);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            feed(&["p", "cbp", "script", "b"], &[&bytes]);
        }

        #[test]
        fn arbitrary_orders_never_panic(words in proptest::collection::vec(0usize..17, 0..30)) {
            let names = ["parse", "bind", "close", "columns", "nodata", "row", "done", "empty", "error", "fatal",
                "notice", "status", "notify", "copyin", "idle", "failed", "garbage"];
            let replies = words.iter().map(|word| names[*word]).collect::<Vec<_>>().join(" ");
            feed(&["p", "cbp", "script", "b"], &[&stream(&replies)]);
        }
    }
}
