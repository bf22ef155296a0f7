//! A segment: a file of clicks. Its header is pure layout; reading one goes through plain file reads, for recovery, the
//! shipper and `snip journal inspect` alike.
//!
//! A click's sequence number is its place: the segment's number, then how many records lie before it. Numbers of segments
//! only grow, so sequence numbers do too, without being dense.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::record::{self, Found, RECORD_BYTES_MAX};
use crate::limits::{INSTANCE_ID_BYTES_MAX, JOURNAL_READ_BYTES, JOURNAL_SEGMENT_BYTES};
use crate::model::{Click, JournalId, Timestamp};

/// Bytes before the first record.
pub const HEADER_BYTES: usize = 256;
/// The format that this program writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;
const MAGIC: [u8; 8] = *b"SNIPCLKS";
/// Bits of a sequence number that count within a segment.
const INDEX_BITS: u32 = 24;

const _: () = assert!(JOURNAL_SEGMENT_BYTES as usize / record::FIXED_BYTES < 1 << INDEX_BITS);
const _: () = assert!(RECORD_BYTES_MAX <= JOURNAL_READ_BYTES);
const _: () = assert!(HEADER_BYTES.is_multiple_of(record::ALIGNMENT));

/// The number of the first click of a segment.
pub const fn first_sequence(segment: u64) -> u64 {
    segment << INDEX_BITS
}

/// The segment that a sequence number lies in.
pub const fn segment_of(sequence: u64) -> u64 {
    sequence >> INDEX_BITS
}

/// No segment has this number or a higher one: the numbers of its clicks would begin anew. They follow the clock in
/// seconds, so that only a file which this program did not write could.
pub const NUMBERS_END: u64 = segment_of(u64::MAX);

/// How many clicks lie before it in its segment.
pub const fn index_of(sequence: u64) -> u64 {
    sequence & ((1 << INDEX_BITS) - 1)
}

// Where the fields of the header begin.
const VERSION: usize = 8; // u32
const CHECKSUM: usize = 12; // u32, crc32c of the bytes from 16 to MARK
const NUMBER: usize = 16; // u64
const FIRST_SEQUENCE: usize = 24; // u64
const JOURNAL: usize = 32; // 16 bytes
const CREATED_AT: usize = 48; // i64, microseconds since 1970 UTC
const SEGMENT_BYTES: usize = 56; // u64
const INSTANCE: usize = 64; // text, zeros behind it
const MARK: usize = 248; // u64, changes: the sequence number up to which the clicks are stored

const _: () = assert!(INSTANCE + INSTANCE_ID_BYTES_MAX <= MARK && MARK + 8 == HEADER_BYTES);

/// What a segment says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which of the journal's segments it is.
    pub number: u64,
    /// The journal it belongs to.
    pub journal: JournalId,
    /// The instance that wrote it.
    pub instance: String,
    /// When it was prepared.
    pub created_at: Timestamp,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Why a file is no segment that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unreadable {
    /// All zero, or shorter than a header.
    Empty,
    /// It has another format version.
    Version(u32),
    /// Anything else.
    Damaged,
}

impl Header {
    /// The header as it is written.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut out = [0; HEADER_BYTES];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &MAGIC);
        put(VERSION, &FORMAT_VERSION.to_le_bytes());
        put(NUMBER, &self.number.to_le_bytes());
        put(FIRST_SEQUENCE, &first_sequence(self.number).to_le_bytes());
        put(JOURNAL, &self.journal.0);
        put(CREATED_AT, &self.created_at.micros().to_le_bytes());
        put(SEGMENT_BYTES, &self.bytes.to_le_bytes());
        let instance = self.instance.as_bytes();
        put(INSTANCE, &instance[..instance.len().min(INSTANCE_ID_BYTES_MAX)]);
        let checksum = crc32c::crc32c(&out[NUMBER..MARK]);
        out[CHECKSUM..NUMBER].copy_from_slice(&checksum.to_le_bytes());
        out
    }

    /// Reads what was written; `bytes` may be anything.
    pub fn decode(bytes: &[u8]) -> Result<Self, Unreadable> {
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(Unreadable::Empty) };
        if bytes.iter().all(|&byte| byte == 0) {
            return Err(Unreadable::Empty);
        }
        if bytes[..VERSION] != MAGIC {
            return Err(Unreadable::Damaged);
        }
        let version = u32::from_le_bytes(take(bytes, VERSION));
        if version != FORMAT_VERSION {
            return Err(Unreadable::Version(version));
        }
        if u32::from_le_bytes(take(bytes, CHECKSUM)) != crc32c::crc32c(&bytes[NUMBER..MARK]) {
            return Err(Unreadable::Damaged);
        }
        let instance = &bytes[INSTANCE..INSTANCE + INSTANCE_ID_BYTES_MAX];
        let end = instance.iter().position(|&byte| byte == 0).unwrap_or(instance.len());
        Ok(Self {
            number: u64::from_le_bytes(take(bytes, NUMBER)),
            journal: JournalId(take(bytes, JOURNAL)),
            instance: String::from_utf8_lossy(&instance[..end]).into_owned(),
            created_at: Timestamp::from_micros(i64::from_le_bytes(take(bytes, CREATED_AT))),
            bytes: u64::from_le_bytes(take(bytes, SEGMENT_BYTES)),
        })
    }
}

fn take<const N: usize>(bytes: &[u8; HEADER_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&bytes[at..at + N]);
    field
}

/// The header of a file.
pub fn read_header(path: &Path) -> io::Result<Result<Header, Unreadable>> {
    let mut bytes = [0; HEADER_BYTES];
    let count = read_up_to(&File::open(path)?, &mut bytes, 0)?;
    Ok(Header::decode(&bytes[..count]))
}

/// Fills `out` as far as the file goes.
fn read_up_to(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut count = 0;
    while count < out.len() {
        match file.read_at(&mut out[count..], offset + count as u64) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

/// The next thing in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// A click.
    Click(Click),
    /// No more so far.
    End,
    /// The last record, which was being written when the process ended. Its redirect was not answered.
    Unfinished,
    /// Bytes that are no whole record: nothing behind them counts.
    Torn,
}

/// Reads a segment click by click, at most as far as it is told that records go.
pub struct Reader {
    file: File,
    segment: u64,
    offset: u64,
    index: u64,
    /// Bytes of the file from `read_from` on, as many as `filled`.
    buffer: Vec<u8>,
    filled: usize,
    read_from: u64,
}

impl Reader {
    /// At the first record of the segment with this number.
    pub fn open(path: &Path, segment: u64) -> io::Result<Self> {
        let (buffer, offset) = (Vec::new(), HEADER_BYTES as u64);
        Ok(Self { file: File::open(path)?, segment, offset, index: 0, buffer, filled: 0, read_from: offset })
    }

    /// The sequence number of the next click.
    pub fn sequence(&self) -> u64 {
        first_sequence(self.segment) + self.index
    }

    /// Where the next record begins in the file.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Goes one click on. `limit` is where records end in the file, as far as is known.
    pub fn next(&mut self, limit: u64) -> io::Result<Next> {
        let wanted = self.wanted(limit);
        if wanted == 0 {
            return Ok(Next::End);
        }
        let sequence = self.sequence();
        Ok(match record::decode(self.bytes(wanted, limit)?, sequence) {
            Found::End => Next::End,
            Found::Unfinished => Next::Unfinished,
            Found::Torn => Next::Torn,
            Found::Record { click, bytes } => {
                self.offset += bytes as u64;
                self.index += 1;
                Next::Click(click)
            }
        })
    }

    /// The bytes at the present place, `wanted` of them or more unless the file ends; never any from behind `limit`,
    /// which may be written while we read.
    fn bytes(&mut self, wanted: usize, limit: u64) -> io::Result<&[u8]> {
        let within = (self.offset - self.read_from) as usize;
        if self.filled >= within + wanted {
            return Ok(&self.buffer[within..self.filled]);
        }
        let bytes = (limit - self.offset).min(JOURNAL_READ_BYTES as u64) as usize;
        // It only grows: to have it zeroed for each read would be to write it twice.
        self.buffer.resize(self.buffer.len().max(bytes), 0);
        (self.filled, self.read_from) = (0, self.offset);
        self.filled = read_up_to(&self.file, &mut self.buffer[..bytes], self.offset)?;
        Ok(&self.buffer[..self.filled])
    }

    /// Whether the file is zero from the present place on, an unfinished record aside: then this is where it was left off,
    /// and not where something is missing.
    pub fn is_at_the_end(&mut self, limit: u64) -> io::Result<bool> {
        let unfinished = match self.next(limit)? {
            Next::End => 0,
            Next::Unfinished => RECORD_BYTES_MAX as u64,
            Next::Click(_) | Next::Torn => return Ok(false),
        };
        let mut bytes = vec![0; JOURNAL_READ_BYTES];
        let mut offset = self.offset + unfinished;
        loop {
            match read_up_to(&self.file, &mut bytes, offset)? {
                0 => return Ok(true),
                count if bytes[..count].iter().any(|&byte| byte != 0) => return Ok(false),
                count => offset += count as u64,
            }
        }
    }

    /// At damage: the number of clicks from there on, by the last record behind it that is whole. They are not stored, since
    /// what lies between may be anything.
    pub fn skipped(&mut self, limit: u64) -> io::Result<u64> {
        // A file that damage has made longer than a segment is has no clicks there, and may not fit into memory.
        let end = limit.min(JOURNAL_SEGMENT_BYTES);
        let mut bytes = vec![0; end.saturating_sub(self.offset) as usize];
        let count = read_up_to(&self.file, &mut bytes, self.offset)?;
        let places = (0..count).step_by(record::ALIGNMENT);
        let found = places.filter_map(|at| record::sequence_of(&bytes[at..count]));
        let last = found.filter(|&found| segment_of(found) == self.segment && found >= self.sequence()).max();
        Ok(last.map_or(0, |last| last + 1 - self.sequence()))
    }

    /// Goes on to the click with this number, or as far as there are clicks. Returns how many were passed.
    pub fn skip_to(&mut self, sequence: u64, limit: u64) -> io::Result<u64> {
        let from = self.index;
        while self.sequence() < sequence && self.skip(limit)? {}
        Ok(self.index - from)
    }

    /// Goes one click on, without making it, if there is one.
    fn skip(&mut self, limit: u64) -> io::Result<bool> {
        let wanted = self.wanted(limit);
        let next = self.sequence();
        let Some(bytes) = record::measure(self.bytes(wanted, limit)?, next) else { return Ok(false) };
        self.offset += bytes as u64;
        self.index += 1;
        Ok(true)
    }

    /// Bytes that the next record may have.
    fn wanted(&self, limit: u64) -> usize {
        limit.saturating_sub(self.offset).min(RECORD_BYTES_MAX as u64) as usize
    }
}

/// Notes in the segment's header how far its clicks are stored. Only looked at when the store knows nothing of the
/// journal, so it need not be exact, and may be lost.
pub fn write_mark(path: &Path, sequence: u64) -> io::Result<()> {
    File::options().write(true).open(path)?.write_all_at(&sequence.to_le_bytes(), MARK as u64)
}

/// The mark; 0 if there is none.
pub fn read_mark(path: &Path) -> io::Result<u64> {
    let mut bytes = [0; 8];
    read_up_to(&File::open(path)?, &mut bytes, MARK as u64)?;
    Ok(u64::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::clicks::record::{ClickRef, Draft, Prepared};

    fn header() -> Header {
        let (journal, created_at) = (JournalId([7; 16]), Timestamp::from_micros(1));
        Header { number: 3, journal, instance: "web-1".into(), created_at, bytes: JOURNAL_SEGMENT_BYTES }
    }

    /// A segment with the header and `count` clicks whose `url_id` is their index, and then `behind`.
    fn segment(folder: &Path, count: u64, behind: &[u8]) -> std::path::PathBuf {
        let mut bytes = header().encode().to_vec();
        for index in 0..count {
            let at = Timestamp::from_micros(5);
            let user_agent = Some(&b"a user agent of some length"[..index as usize % 20]);
            let click = ClickRef { url_id: index as i64, user_id: None, at, client: None, user_agent, referrer: None };
            let prepared = Prepared::new(click);
            let from = bytes.len();
            bytes.resize(from + prepared.bytes(), 0);
            prepared.encode(first_sequence(3) + index, &mut Draft::default(), &mut bytes[from..]);
        }
        bytes.extend(behind);
        let path = folder.join("segment");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    fn length(path: &Path) -> u64 {
        std::fs::metadata(path).unwrap().len()
    }

    #[test]
    fn headers_are_read_as_written() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
        let longest = Header { instance: "x".repeat(INSTANCE_ID_BYTES_MAX), ..header() };
        assert_eq!(Header::decode(&longest.encode()), Ok(longest));
        assert_eq!(Header::decode(&[0; HEADER_BYTES]), Err(Unreadable::Empty));
        assert_eq!(Header::decode(&header().encode()[..HEADER_BYTES - 1]), Err(Unreadable::Empty));
        let mut newer = header().encode();
        newer[VERSION] = 9;
        assert_eq!(Header::decode(&newer), Err(Unreadable::Version(9)));
    }

    #[test]
    fn the_mark_changes_and_leaves_the_header_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = segment(folder.path(), 1, &[]);
        assert_eq!(read_mark(&path).unwrap(), 0);
        write_mark(&path, u64::MAX - 1).unwrap();
        assert_eq!(read_mark(&path).unwrap(), u64::MAX - 1);
        assert_eq!(read_header(&path).unwrap(), Ok(header()));
    }

    #[test]
    fn a_reader_goes_as_far_as_it_is_told() {
        let folder = tempfile::tempdir().unwrap();
        // More than one buffer's worth.
        let count = 2 * JOURNAL_READ_BYTES as u64 / record::FIXED_BYTES as u64;
        let path = segment(folder.path(), count, &[0; 4096]);
        let mut reader = Reader::open(&path, 3).unwrap();
        assert_eq!(reader.next(HEADER_BYTES as u64).unwrap(), Next::End);
        assert!(matches!(reader.next(HEADER_BYTES as u64 + 64).unwrap(), Next::Click(click) if click.url_id == 0));
        assert_eq!(reader.next(HEADER_BYTES as u64 + 64).unwrap(), Next::End);
        for index in 1..count {
            assert!(matches!(reader.next(length(&path)).unwrap(), Next::Click(click) if click.url_id == index as i64));
        }
        assert_eq!(reader.next(length(&path)).unwrap(), Next::End);
        assert_eq!(reader.sequence(), first_sequence(3) + count);
        let mut again = Reader::open(&path, 3).unwrap();
        assert_eq!(again.skip_to(first_sequence(3) + 700, length(&path)).unwrap(), 700);
        assert!(matches!(again.next(length(&path)).unwrap(), Next::Click(click) if click.url_id == 700));
        assert_eq!(again.skip_to(first_sequence(4), length(&path)).unwrap(), count - 701, "there are no more");
    }

    #[test]
    fn what_is_skipped_behind_damage_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        let path = segment(folder.path(), 10, &[0; 4096]);
        let mut reader = Reader::open(&path, 3).unwrap();
        reader.skip_to(first_sequence(3) + 4, length(&path)).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[reader.offset() as usize + 20] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let mut reader = Reader::open(&path, 3).unwrap();
        assert_eq!(reader.skip_to(u64::MAX, length(&path)).unwrap(), 4);
        assert_eq!(reader.skipped(length(&path)).unwrap(), 6, "the damaged one and the five behind it");
        assert_eq!(reader.skipped(1 << 46).unwrap(), 6, "however long the file is");
    }

    #[test]
    fn a_segment_of_another_number_has_no_clicks() {
        let folder = tempfile::tempdir().unwrap();
        let path = segment(folder.path(), 2, &[]);
        assert_eq!(Reader::open(&path, 4).unwrap().next(length(&path)).unwrap(), Next::Torn);
    }

    proptest! {
        #[test]
        fn any_header_is_read(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            prop_assert!(Header::decode(&bytes).is_err());
        }

        #[test]
        fn a_flipped_bit_damages_a_header(at in 0usize..MARK, bit in 0u8..8) {
            let mut bytes = header().encode();
            bytes[at] ^= 1 << bit;
            prop_assert!(Header::decode(&bytes).is_err());
        }

        /// Whatever happens to the bytes from some place on, the clicks before it are read and none is invented.
        #[test]
        fn a_torn_segment_gives_what_lies_before(at: prop::sample::Index, noise in prop::collection::vec(any::<u8>(), 1..300)) {
            let folder = tempfile::tempdir().unwrap();
            let path = segment(folder.path(), 20, &[]);
            let mut bytes = std::fs::read(&path).unwrap();
            let whole = bytes.clone();
            let at = HEADER_BYTES + at.index(bytes.len() - HEADER_BYTES);
            let end = bytes.len().min(at + noise.len());
            bytes[at..end].copy_from_slice(&noise[..end - at]);
            let first_changed = whole.iter().zip(&bytes).position(|(a, b)| a != b).unwrap_or(whole.len()) as u64;
            std::fs::write(&path, &bytes).unwrap();
            let mut reader = Reader::open(&path, 3).unwrap();
            let mut count = 0;
            while let Next::Click(click) = reader.next(length(&path)).unwrap() {
                prop_assert_eq!(click.url_id, count);
                count += 1;
                prop_assert!(count <= 20);
            }
            // A record that was hit ends the reading; noise in the padding before it harms nothing.
            prop_assert!(count == 20 || reader.offset() + RECORD_BYTES_MAX as u64 >= first_changed);
            prop_assert!(count == 20 || reader.offset() < first_changed + record::ALIGNMENT as u64);
        }
    }
}
