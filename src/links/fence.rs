//! What may be written over what in Redis: the rules, pure, and the scripts that carry them out there in one step.
//!
//! A key holds one of three kinds of JSON, all readable:
//! - a link: `{"original_url":"…","url_id":7,"user_id":null,"version":3}`
//! - a tombstone, for a link that was switched off: `{"deleted":true,"url_id":7,"version":4}`
//! - a lease: `{"lease":"…"}`, left for some seconds by an instance that found nothing and is asking the store.
//!
//! Two rules keep an old value from ever replacing a newer one, however late a command is carried out, and whatever
//! Redis has evicted or forgotten meanwhile (`docs/caching.md` has the proof):
//! - **A fill** needs its own lease: it is written only over the very lease that was left before the store was asked.
//!   Every change removes leases; so does all that Redis forgets.
//! - **A change** replaces only an older version that is there. Where there is nothing it writes nothing, and a lease
//!   or anything else it removes.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::limits::CACHED_LINK_BYTES_MAX;
use crate::model::{Id, LinkState, Target, Version};
use crate::redis::Script;

/// What stands under a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held {
    /// Nothing.
    Missing,
    /// Somebody is asking the store.
    Lease(String),
    /// An active link.
    Link(Target),
    /// A link that was switched off, at this version.
    Tombstone(Version),
    /// Something that this service did not write.
    Garbage,
}

/// What a change finds and does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing was there; nothing is written.
    Missing,
    /// The same or a newer version was there and stays.
    Kept,
    /// An older version is replaced.
    Replaced,
    /// What was there is removed.
    Removed,
}

/// What becomes of a key when a link changed to `version`; `has_value`: the change brings what to write.
pub fn judge(held: &Held, version: Version, has_value: bool) -> Verdict {
    match held {
        Held::Missing => Verdict::Missing,
        Held::Link(Target { version: held, .. }) | Held::Tombstone(held) if *held >= version => Verdict::Kept,
        Held::Link(_) | Held::Tombstone(_) if has_value => Verdict::Replaced,
        Held::Link(_) | Held::Tombstone(_) | Held::Lease(_) | Held::Garbage => Verdict::Removed,
    }
}

/// Whether a fill with this lease may be written.
pub fn may_fill(held: &Held, lease: &str) -> bool {
    matches!(held, Held::Lease(held) if held == lease)
}

/// [`judge`] in Redis. Arguments: version, value or nothing, its life in ms, channel, message. When memory is out, an
/// older version that cannot be replaced is removed, which needs none.
pub static CHANGE: Script = Script::new(
    r"
local version = tonumber(ARGV[1])
local held = redis.pcall('GET', KEYS[1])
local verdict = 'removed'
if not held then
    verdict = 'missing'
elseif type(held) == 'string' then
    local is_json, entry = pcall(cjson.decode, held)
    local older = is_json and type(entry) == 'table' and type(entry.version) == 'number' and entry.version
    if older and older >= version then
        verdict = 'kept'
    elseif older and ARGV[2] ~= '' then
        local written = redis.pcall('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
        if type(written) == 'table' and not written.err then verdict = 'replaced' end
    end
end
if verdict == 'removed' then redis.call('DEL', KEYS[1]) end
redis.call('PUBLISH', ARGV[4], ARGV[5])
return verdict
",
);

/// [`may_fill`] in Redis, and the filling. Arguments: the lease's JSON, value, its life in ms.
pub static FILL: Script = Script::new(
    r"
if redis.pcall('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
",
);

#[derive(Serialize)]
struct LinkJson<'a> {
    original_url: &'a str,
    url_id: Id,
    user_id: Option<Id>,
    version: Version,
}

#[derive(Serialize)]
struct TombstoneJson {
    deleted: bool,
    url_id: Id,
    version: Version,
}

/// The JSON of a link.
pub fn link_json(target: &Target) -> String {
    let Target { url_id, user_id, version, ref original_url } = *target;
    to_json(&LinkJson { original_url, url_id, user_id, version })
}

/// The JSON of a state.
pub fn state_json(state: &LinkState) -> String {
    match &state.target {
        Some(target) => link_json(target),
        None => to_json(&TombstoneJson { deleted: true, url_id: state.url_id, version: state.version }),
    }
}

/// The JSON of a lease.
pub fn lease_json(lease: &str) -> String {
    format!("{{\"lease\":\"{lease}\"}}")
}

fn to_json(value: &impl Serialize) -> String {
    // Plain structs of numbers and text can't fail; an empty text would be garbage to every reader.
    sonic_rs::to_string(value).unwrap_or_default()
}

/// All fields of all kinds; other tools may add more.
#[derive(Deserialize)]
struct AnyJson<'a> {
    #[serde(borrow)]
    original_url: Option<Cow<'a, str>>,
    url_id: Option<Id>,
    user_id: Option<Id>,
    version: Option<Version>,
    deleted: Option<bool>,
    #[serde(borrow)]
    lease: Option<Cow<'a, str>>,
}

/// Reads what stands under a key.
pub fn read(bytes: &[u8]) -> Held {
    if bytes.len() > CACHED_LINK_BYTES_MAX || !is_flat(bytes) {
        return Held::Garbage;
    }
    match sonic_rs::from_slice::<AnyJson<'_>>(bytes) {
        Ok(AnyJson { lease: Some(lease), .. }) => Held::Lease(lease.into_owned()),
        Ok(AnyJson { version: Some(version), deleted: Some(true), .. }) => Held::Tombstone(version),
        Ok(AnyJson { original_url: Some(url), url_id: Some(url_id), version: Some(version), user_id, .. }) => {
            Held::Link(Target { url_id, user_id, version, original_url: url.into_owned() })
        }
        _ => Held::Garbage,
    }
}

/// Whether nothing is nested: the parser skips unknown fields by recursion.
fn is_flat(bytes: &[u8]) -> bool {
    let mut depth = 0;
    let mut is_text = false;
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' if is_text => drop(bytes.next()),
            b'"' => is_text = !is_text,
            b'{' | b'[' if !is_text => depth += 1,
            _ => {}
        }
    }
    depth == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(version: Version) -> Target {
        Target { url_id: 7, user_id: None, version, original_url: "http://a/\"{[\\".into() }
    }

    #[test]
    fn what_is_written_is_read() {
        let link = Held::Link(target(3));
        assert_eq!(read(link_json(&target(3)).as_bytes()), link);
        let state = |target| LinkState { url_id: 7, version: 3, target };
        assert_eq!(read(state_json(&state(Some(target(3)))).as_bytes()), link);
        assert_eq!(state_json(&state(None)), r#"{"deleted":true,"url_id":7,"version":3}"#);
        assert_eq!(read(state_json(&state(None)).as_bytes()), Held::Tombstone(3));
        assert_eq!(read(lease_json("a-1").as_bytes()), Held::Lease("a-1".into()));
        let plain = Target { user_id: Some(2), original_url: "http://ab".into(), ..target(1) };
        assert_eq!(link_json(&plain), r#"{"original_url":"http://ab","url_id":7,"user_id":2,"version":1}"#);
    }

    #[test]
    fn anything_else_is_garbage() {
        let long = format!(r#"{{"original_url":"{}","url_id":7,"version":1}}"#, "x".repeat(CACHED_LINK_BYTES_MAX));
        for text in [
            "",
            "x",
            "{}",
            "[]",
            "null",
            r#"{"original_url":"http://ab","url_id":7,"user_id":null}"#,
            r#"{"original_url":"http://ab","version":7}"#,
            r#"{"original_url":7,"url_id":7,"version":7}"#,
            r#"{"original_url":"http://ab","url_id":7,"version":"7"}"#,
            r#"{"deleted":true}"#,
            r#"{"original_url":"http://ab","url_id":7,"version":1,"x":[]}"#,
            r#"{"original_url":"http://ab","url_id":7,"version":1"#,
            &long,
        ] {
            assert_eq!(read(text.as_bytes()), Held::Garbage, "{text}");
        }
        assert_eq!(read(b"\xff\xfe"), Held::Garbage);
        assert_eq!(read(&b"[".repeat(10_000)), Held::Garbage);
    }

    #[test]
    fn the_rules() {
        use Verdict::{Kept, Missing, Removed, Replaced};
        let lease = Held::Lease("a".into());
        for (held, with_value, without) in [
            (Held::Missing, Missing, Missing),
            (lease.clone(), Removed, Removed),
            (Held::Garbage, Removed, Removed),
            (Held::Link(target(4)), Replaced, Removed),
            (Held::Tombstone(4), Replaced, Removed),
            (Held::Link(target(5)), Kept, Kept),
            (Held::Tombstone(6), Kept, Kept),
        ] {
            assert_eq!((judge(&held, 5, true), judge(&held, 5, false)), (with_value, without), "{held:?}");
            assert_eq!(may_fill(&held, "a"), held == lease);
            assert!(!may_fill(&held, "b"));
        }
    }
}
