//! How a click lies in a segment: bytes in, bytes out, no I/O. `docs/clicks.md` has the table.
//!
//! A record is [`FIXED_BYTES`] of fields, little-endian, then the user agent, then the referrer, then zeros up to a
//! multiple of [`ALIGNMENT`]. Its checksum covers everything behind itself, padding aside. Records lie one behind the
//! other; a record cut short by a crash, flipped bits and zeros are all told from a whole one by the checksum and the
//! sequence number, so that whoever reads may be given any bytes.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::limits::{REFERRER_BYTES_MAX, USER_AGENT_BYTES_MAX};
use crate::model::{Click, Id, Timestamp};

/// Bytes of a record before its texts.
pub const FIXED_BYTES: usize = 64;
/// Records begin at multiples of this, so that their fields lie within a cache line each.
pub const ALIGNMENT: usize = 8;
/// Bytes of the longest record.
pub const RECORD_BYTES_MAX: usize = padded(FIXED_BYTES + USER_AGENT_BYTES_MAX + REFERRER_BYTES_MAX);

const _: () = assert!(RECORD_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(FIXED_BYTES.is_multiple_of(ALIGNMENT));

// Where the fields begin.
const CHECKSUM: usize = 0; // u32, crc32c of the bytes from 4 to `length`, 1 where that is 0
const LENGTH: usize = 4; // u16, without padding
const USER_AGENT_LENGTH: usize = 6; // u16
const REFERRER_LENGTH: usize = 8; // u16
const FLAGS: usize = 10; // u8
const ADDRESS_KIND: usize = 11; // u8: 0 none, 4, 6
// 12 to 15: zero
const SEQUENCE: usize = 16; // u64
const URL_ID: usize = 24; // i64
const USER_ID: usize = 32; // i64
const AT: usize = 40; // i64, microseconds since 1970 UTC
const ADDRESS: usize = 48; // 16 bytes

const HAS_USER_ID: u8 = 1;
const HAS_USER_AGENT: u8 = 2;
const HAS_REFERRER: u8 = 4;
const KNOWN_FLAGS: u8 = HAS_USER_ID | HAS_USER_AGENT | HAS_REFERRER;

/// A click as the redirect has it: its texts still lie in the request.
#[derive(Clone, Copy, Debug)]
pub struct ClickRef<'a> {
    /// The short URL that was followed.
    pub url_id: Id,
    /// Its owner, if any.
    pub user_id: Option<Id>,
    /// When.
    pub at: Timestamp,
    /// The client's address, if it is known.
    pub client: Option<IpAddr>,
    /// The client's `User-Agent` as it came, at any length.
    pub user_agent: Option<&'a [u8]>,
    /// The client's `Referer` as it came, at any length.
    pub referrer: Option<&'a [u8]>,
}

/// A click that is ready to be laid down: its texts are cut, so that its length is known.
pub struct Prepared<'a> {
    click: ClickRef<'a>,
    length: usize,
}

impl<'a> Prepared<'a> {
    /// Cuts what is too long.
    pub fn new(mut click: ClickRef<'a>) -> Self {
        click.user_agent = click.user_agent.map(|text| cut(text, USER_AGENT_BYTES_MAX));
        click.referrer = click.referrer.map(|text| cut(text, REFERRER_BYTES_MAX));
        let texts = click.user_agent.map_or(0, <[u8]>::len) + click.referrer.map_or(0, <[u8]>::len);
        Self { click, length: FIXED_BYTES + texts }
    }

    /// Bytes that the record takes in a segment, padding included.
    pub fn bytes(&self) -> usize {
        padded(self.length)
    }

    /// Lays the record down in `out`, which has exactly [`Self::bytes`] and is all zero. Allocates nothing.
    pub fn encode(&self, sequence: u64, draft: &mut Draft, out: &mut [u8]) {
        let record = &mut draft.0[..self.length];
        self.write(sequence, record);
        // Not of `out`: it lies in no cache of the processor yet, and to read it would be to wait for it.
        let checksum = checksum(&record[LENGTH..]);
        put(out, LENGTH, &record[LENGTH..]);
        // Last: until it is there the record does not exist.
        put(out, CHECKSUM, &checksum.to_le_bytes());
    }

    /// Everything but the checksum, over whatever `record` holds.
    fn write(&self, sequence: u64, record: &mut [u8]) {
        let click = &self.click;
        let user_agent = click.user_agent.unwrap_or_default();
        let referrer = click.referrer.unwrap_or_default();
        let mut fixed = [0; FIXED_BYTES];
        // The casts lose nothing: RECORD_BYTES_MAX fits.
        put(&mut fixed, LENGTH, &(self.length as u16).to_le_bytes());
        put(&mut fixed, USER_AGENT_LENGTH, &(user_agent.len() as u16).to_le_bytes());
        put(&mut fixed, REFERRER_LENGTH, &(referrer.len() as u16).to_le_bytes());
        fixed[FLAGS] = flags(click);
        put(&mut fixed, SEQUENCE, &sequence.to_le_bytes());
        put(&mut fixed, URL_ID, &click.url_id.to_le_bytes());
        put(&mut fixed, USER_ID, &click.user_id.unwrap_or(0).to_le_bytes());
        put(&mut fixed, AT, &click.at.micros().to_le_bytes());
        put_address(&mut fixed, click.client);
        put(record, 0, &fixed);
        put(record, FIXED_BYTES, user_agent);
        put(record, FIXED_BYTES + user_agent.len(), referrer);
    }
}

/// Where a writer makes a record before it lays it down: memory that stays in the processor's cache, so that the checksum
/// is one pass over what is at hand.
pub struct Draft(Box<[u8; RECORD_BYTES_MAX]>);

impl Default for Draft {
    fn default() -> Self {
        Self(Box::new([0; RECORD_BYTES_MAX]))
    }
}

/// CRC-32C, which is never zero here: zeros are where no checksum was written yet.
fn checksum(bytes: &[u8]) -> u32 {
    crc32c_of(bytes).max(1)
}

/// Records are short, and begin where words do not: the library's way to long ones takes three times the instructions.
#[cfg(target_arch = "x86_64")]
#[allow(unsafe_code, reason = "the compiler does not know which instructions the processor has")]
fn crc32c_of(bytes: &[u8]) -> u32 {
    if !std::arch::is_x86_feature_detected!("sse4.2") {
        return crc32c::crc32c(bytes);
    }
    // SAFETY: the processor has the instructions.
    unsafe { crc32c_by_words(bytes) }
}

#[cfg(not(target_arch = "x86_64"))]
fn crc32c_of(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "sse4.2")]
fn crc32c_by_words(bytes: &[u8]) -> u32 {
    use std::arch::x86_64::{_mm_crc32_u8, _mm_crc32_u32, _mm_crc32_u64};
    let (words, rest) = bytes.as_chunks::<8>();
    let crc = words.iter().fold(u64::from(u32::MAX), |crc, word| _mm_crc32_u64(crc, u64::from_le_bytes(*word))) as u32;
    let (half, rest) = rest.as_chunks::<4>();
    let crc = half.iter().fold(crc, |crc, half| _mm_crc32_u32(crc, u32::from_le_bytes(*half)));
    !rest.iter().fold(crc, |crc, byte| _mm_crc32_u8(crc, *byte))
}

fn flags(click: &ClickRef<'_>) -> u8 {
    let mut flags = 0;
    if click.user_id.is_some() {
        flags |= HAS_USER_ID;
    }
    if click.user_agent.is_some() {
        flags |= HAS_USER_AGENT;
    }
    if click.referrer.is_some() {
        flags |= HAS_REFERRER;
    }
    flags
}

fn put(out: &mut [u8], at: usize, bytes: &[u8]) {
    out[at..at + bytes.len()].copy_from_slice(bytes);
}

fn put_address(fixed: &mut [u8], client: Option<IpAddr>) {
    let (kind, address) = match client {
        None => (0, [0; 16]),
        Some(IpAddr::V4(ip)) => {
            let mut address = [0; 16];
            address[..4].copy_from_slice(&ip.octets());
            (4, address)
        }
        Some(IpAddr::V6(ip)) => (6, ip.octets()),
    };
    fixed[ADDRESS_KIND] = kind;
    put(fixed, ADDRESS, &address);
}

/// What lies at a place in a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// A whole record.
    Record {
        /// The click.
        click: Click,
        /// Bytes to the next record.
        bytes: usize,
    },
    /// Zeros: nothing was ever written here.
    End,
    /// A record without a checksum, which is written last: the process ended at this moment.
    Unfinished,
    /// Something that is no whole record with this sequence number.
    Torn,
}

/// Reads what lies at the beginning of `bytes`, where the record `sequence` is expected. `bytes` may be anything; it must
/// hold [`RECORD_BYTES_MAX`] unless the segment ends sooner.
pub fn decode(bytes: &[u8], sequence: u64) -> Found {
    match whole(bytes, sequence) {
        Ok(record) => Found::Record { click: click(record), bytes: padded(record.bytes.len()) },
        Err(found) => found,
    }
}

/// As [`decode`], without making the click: the bytes to the next record, if there is a whole one.
pub fn measure(bytes: &[u8], sequence: u64) -> Option<usize> {
    whole(bytes, sequence).ok().map(|record| padded(record.bytes.len()))
}

/// The sequence number of a whole record at the beginning of `bytes`, whatever it is.
pub fn sequence_of(bytes: &[u8]) -> Option<u64> {
    let fixed = bytes.first_chunk::<FIXED_BYTES>()?;
    let sequence = u64::from_le_bytes(take(fixed, SEQUENCE));
    whole(bytes, sequence).ok().map(|_| sequence)
}

/// A whole record, without its padding.
#[derive(Clone, Copy)]
struct Whole<'a> {
    fixed: &'a [u8; FIXED_BYTES],
    bytes: &'a [u8],
    user_agent_length: usize,
}

/// The record, if all of it says that it is one.
fn whole(bytes: &[u8], sequence: u64) -> Result<Whole<'_>, Found> {
    let Some(fixed) = bytes.first_chunk::<FIXED_BYTES>() else {
        return Err(if bytes.iter().all(|&byte| byte == 0) { Found::End } else { Found::Torn });
    };
    if fixed.iter().all(|&byte| byte == 0) {
        return Err(Found::End);
    }
    if take(fixed, CHECKSUM) == [0; 4] {
        return Err(Found::Unfinished);
    }
    let length = usize::from(u16::from_le_bytes(take(fixed, LENGTH)));
    let user_agent_length = usize::from(u16::from_le_bytes(take(fixed, USER_AGENT_LENGTH)));
    let referrer_length = usize::from(u16::from_le_bytes(take(fixed, REFERRER_LENGTH)));
    let Some(padded) = bytes.get(..padded(length)) else { return Err(Found::Torn) };
    if length != FIXED_BYTES + user_agent_length + referrer_length
        || u32::from_le_bytes(take(fixed, CHECKSUM)) != checksum(&padded[LENGTH..length])
        || u64::from_le_bytes(take(fixed, SEQUENCE)) != sequence
        || fixed[FLAGS] & !KNOWN_FLAGS != 0
        || !matches!(fixed[ADDRESS_KIND], 0 | 4 | 6)
    {
        return Err(Found::Torn);
    }
    Ok(Whole { fixed, bytes: &padded[..length], user_agent_length })
}

fn click(Whole { fixed, bytes, user_agent_length }: Whole<'_>) -> Click {
    let (user_agent, referrer) = bytes[FIXED_BYTES..].split_at(user_agent_length);
    let has = |flag| fixed[FLAGS] & flag != 0;
    Click {
        url_id: Id::from_le_bytes(take(fixed, URL_ID)),
        user_id: has(HAS_USER_ID).then(|| Id::from_le_bytes(take(fixed, USER_ID))),
        at: Timestamp::from_micros(i64::from_le_bytes(take(fixed, AT))),
        client: address(fixed),
        user_agent: has(HAS_USER_AGENT).then(|| text(user_agent, USER_AGENT_BYTES_MAX)),
        referrer: has(HAS_REFERRER).then(|| text(referrer, REFERRER_BYTES_MAX)),
    }
}

fn take<const N: usize>(fixed: &[u8; FIXED_BYTES], at: usize) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&fixed[at..at + N]);
    field
}

fn address(fixed: &[u8; FIXED_BYTES]) -> Option<IpAddr> {
    match fixed[ADDRESS_KIND] {
        4 => Some(Ipv4Addr::from(take::<4>(fixed, ADDRESS)).into()),
        6 => Some(Ipv6Addr::from(take::<16>(fixed, ADDRESS)).into()),
        _ => None,
    }
}

/// Rounds up to where the next record begins.
const fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

/// At most `max` bytes, cut where a UTF-8 character ends.
fn cut(text: &[u8], max: usize) -> &[u8] {
    let Some(&next) = text.get(max) else { return text };
    let mut end = max;
    // A continuation byte behind the cut: its character began at most three bytes before.
    if is_continuation(next) {
        let begins = (max.saturating_sub(3)..max).rev().find(|&at| !is_continuation(text[at]));
        end = begins.unwrap_or(max);
    }
    &text[..end]
}

const fn is_continuation(byte: u8) -> bool {
    byte & 0b1100_0000 == 0b1000_0000
}

/// The text of a header value: what is not UTF-8 is replaced, which may make it longer, so that it is cut again.
fn text(value: &[u8], max: usize) -> Box<str> {
    // Nearly every text is sound, and looked through much faster by this than by what replaces.
    let text = str::from_utf8(value).map_or_else(|_| String::from_utf8_lossy(value), Cow::Borrowed);
    let mut end = text.len().min(max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn click_ref(user_agent: &[u8]) -> ClickRef<'_> {
        let at = Timestamp::from_micros(1);
        ClickRef { url_id: 1, user_id: None, at, client: None, user_agent: Some(user_agent), referrer: None }
    }

    fn encoded(click: ClickRef<'_>, sequence: u64) -> Vec<u8> {
        let prepared = Prepared::new(click);
        let mut out = vec![0; prepared.bytes()];
        prepared.encode(sequence, &mut Draft::default(), &mut out);
        out
    }

    fn decoded(bytes: &[u8], sequence: u64) -> Click {
        match decode(bytes, sequence) {
            Found::Record { click, .. } => click,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn texts_are_cut_at_a_character() {
        let check = |value: &[u8], expected: &str| {
            let click = decoded(&encoded(click_ref(value), 9), 9);
            assert_eq!(click.user_agent.as_deref(), Some(expected));
        };
        let x = |count: usize| "x".repeat(count);
        check(b"curl/8", "curl/8");
        check(b"", "");
        check(b"a\xffb", "a\u{fffd}b");
        for (text, kept) in [("é", 1), ("語", 1), ("語", 2), ("🦀", 1), ("🦀", 2), ("🦀", 3)] {
            let long = x(USER_AGENT_BYTES_MAX - kept);
            check(format!("{long}{text}").as_bytes(), &long);
        }
        check(x(9999).as_bytes(), &x(USER_AGENT_BYTES_MAX));
        // Each bad byte becomes three: the text may not outgrow its bound by that.
        check(&[0xff; USER_AGENT_BYTES_MAX], &"\u{fffd}".repeat(USER_AGENT_BYTES_MAX / 3));
        check(&[0x80; 9999], &"\u{fffd}".repeat(USER_AGENT_BYTES_MAX / 3));
    }

    #[test]
    fn absent_is_not_empty() {
        let with = encoded(ClickRef { referrer: Some(b""), user_id: Some(0), ..click_ref(b"") }, 1);
        let click = decoded(&with, 1);
        assert_eq!((click.referrer.as_deref(), click.user_id), (Some(""), Some(0)));
        let without = encoded(ClickRef { user_agent: None, ..click_ref(b"") }, 1);
        let click = decoded(&without, 1);
        assert_eq!((click.referrer, click.user_agent, click.user_id), (None, None, None));
        assert_eq!(without.len(), FIXED_BYTES);
    }

    #[test]
    fn the_longest_record_is_the_bound() {
        let long = vec![b'x'; 9999];
        assert_eq!(encoded(ClickRef { referrer: Some(&long), ..click_ref(&long) }, 1).len(), RECORD_BYTES_MAX);
    }

    #[test]
    fn the_checksum_is_the_librarys() {
        let bytes: Vec<u8> = (0..=255).cycle().skip(77).step_by(7).take(300).collect();
        for from in 0..9 {
            for to in from..bytes.len() {
                assert_eq!(crc32c_of(&bytes[from..to]), crc32c::crc32c(&bytes[from..to]), "{from}..{to}");
            }
        }
    }

    /// The layout is on disk: a change of it is a new format version.
    #[test]
    fn the_layout_stands() {
        let client = Some("192.0.2.7".parse().unwrap());
        let click = ClickRef { user_id: Some(3), client, referrer: Some(b"r"), ..click_ref(b"ua") };
        let bytes = encoded(ClickRef { url_id: 2, at: Timestamp::from_micros(5), ..click }, 0x0102);
        let mut expected = [0; 72];
        expected[4..12].copy_from_slice(&[67, 0, 2, 0, 1, 0, 7, 4]);
        (expected[16], expected[17]) = (2, 1);
        (expected[24], expected[32], expected[40]) = (2, 3, 5);
        expected[48..52].copy_from_slice(&[192, 0, 2, 7]);
        expected[64..67].copy_from_slice(b"uar");
        assert_eq!(bytes[4..], expected[4..]);
        assert_eq!(bytes[..4], crc32c::crc32c(&expected[4..67]).to_le_bytes());
    }

    #[test]
    fn zeros_are_the_end() {
        assert_eq!(decode(&[], 1), Found::End);
        assert_eq!(decode(&[0; 8], 1), Found::End);
        assert_eq!(decode(&[0; RECORD_BYTES_MAX], 1), Found::End);
        assert_eq!(decode(&[0, 0, 1], 1), Found::Torn);
    }

    #[test]
    fn a_record_is_unfinished_until_its_checksum_is_there() {
        let mut bytes = encoded(click_ref(b"agent"), 1);
        bytes[..LENGTH].fill(0);
        assert_eq!(decode(&bytes, 1), Found::Unfinished);
        bytes[FIXED_BYTES..].fill(0);
        assert_eq!(decode(&bytes, 1), Found::Unfinished);
    }

    fn texts() -> impl Strategy<Value = Option<String>> {
        prop::option::of(".{0,40}")
    }

    fn clicks() -> impl Strategy<Value = Click> {
        let client = prop::option::of(prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u8; 16]>().prop_map(IpAddr::from),
        ]);
        (any::<Id>(), any::<Option<Id>>(), any::<i64>(), client, texts(), texts()).prop_map(
            |(url_id, user_id, at, client, user_agent, referrer)| Click {
                url_id,
                user_id,
                at: Timestamp::from_micros(at),
                client,
                user_agent: user_agent.map(Into::into),
                referrer: referrer.map(Into::into),
            },
        )
    }

    fn borrowed(click: &Click) -> ClickRef<'_> {
        let Click { url_id, user_id, at, client, .. } = *click;
        let user_agent = click.user_agent.as_deref().map(str::as_bytes);
        ClickRef { url_id, user_id, at, client, user_agent, referrer: click.referrer.as_deref().map(str::as_bytes) }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(click in clicks(), sequence: u64, behind in prop::collection::vec(any::<u8>(), 0..80)) {
            let mut bytes = encoded(borrowed(&click), sequence);
            let length = bytes.len();
            prop_assert!(length.is_multiple_of(ALIGNMENT) && length <= RECORD_BYTES_MAX);
            bytes.extend(behind);
            prop_assert_eq!(decode(&bytes, sequence), Found::Record { click, bytes: length });
            prop_assert_eq!(measure(&bytes, sequence), Some(length));
            prop_assert_eq!(decode(&bytes, sequence.wrapping_add(1)), Found::Torn);
        }

        #[test]
        fn any_bytes_are_read(bytes in prop::collection::vec(any::<u8>(), 0..200), sequence: u64) {
            // Random bytes carry no right checksum: what counts is that nothing panics.
            let is_record = matches!(decode(&bytes, sequence), Found::Record { .. });
            prop_assert!(!is_record);
        }

        #[test]
        fn a_flipped_bit_tears(click in clicks(), at: prop::sample::Index, bit in 0u8..8) {
            let mut bytes = encoded(borrowed(&click), 77);
            let length = usize::from(u16::from_le_bytes([bytes[LENGTH], bytes[LENGTH + 1]]));
            let at = at.index(length);
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode(&bytes, 77), Found::Torn);
        }

        #[test]
        fn a_record_cut_short_tears(click in clicks(), cut: prop::sample::Index, is_zeroed: bool) {
            let mut bytes = encoded(borrowed(&click), 77);
            let cut = cut.index(bytes.len());
            let behind_is_padding = bytes[cut..].iter().all(|&byte| byte == 0);
            if is_zeroed {
                bytes[cut..].fill(0);
            } else {
                bytes.truncate(cut);
            }
            let found = decode(&bytes, 77);
            let is_whole = is_zeroed && behind_is_padding;
            prop_assert_eq!(matches!(found, Found::Record { .. }), is_whole);
        }
    }
}
