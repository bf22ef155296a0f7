//! Events: what happened to a short URL, redirects included.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr};

use super::{Id, Timestamp};
use crate::limits::{REFERRER_BYTES_MAX, USER_AGENT_BYTES_MAX};

/// A row of `events`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Primary key.
    pub id: Id,
    /// The short URL it happened to.
    pub url_id: Id,
    /// The owner of the short URL, or who the client named.
    pub user_id: Option<Id>,
    /// What happened.
    pub event_type: String,
    /// When.
    pub timestamp: Timestamp,
    /// JSON text, as a rule an object.
    pub details: Option<String>,
}

/// An event that a client hands in; the fields are valid already.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEvent {
    /// The short URL it happened to.
    pub url_id: Id,
    /// Who did it, if the client says so.
    pub user_id: Option<Id>,
    /// What happened, free text.
    pub event_type: String,
    /// The text of a JSON object.
    pub details: Option<String>,
}

/// The types of the events that the service writes itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// A short URL was made.
    Created,
    /// A field of it was changed.
    Updated,
    /// It was switched off by DELETE.
    Deleted,
    /// A client followed it.
    Redirect,
}

impl EventType {
    /// The text in `events.event_type`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Updated => "updated",
            Self::Deleted => "deleted",
            Self::Redirect => "redirect",
        }
    }
}

/// The details of the event that DELETE writes.
pub fn deleted_details() -> Details {
    let mut details = Details::new();
    details.text("reason", "user_requested");
    details
}

/// Which events a list holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventFilter {
    /// Only those of this type.
    pub event_type: Option<String>,
    /// Only those of this short URL.
    pub url_id: Option<Id>,
    /// Only those of this user.
    pub user_id: Option<Id>,
}

/// A followed short link, on its way to becoming a `redirect` event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Click {
    /// The short URL that was followed.
    pub url_id: Id,
    /// Its owner, if any.
    pub user_id: Option<Id>,
    /// When.
    pub at: Timestamp,
    /// The client's address, unless it came over a unix socket without a proxy's word.
    pub client: Option<IpAddr>,
    /// The client's `User-Agent`, cut at [`crate::limits::USER_AGENT_BYTES_MAX`].
    pub user_agent: Option<Box<str>>,
    /// Where the client says it came from (`Referer`), cut at [`crate::limits::REFERRER_BYTES_MAX`].
    pub referrer: Option<Box<str>>,
}

impl Click {
    /// The most that [`Click::text_bytes`] comes to.
    pub const TEXT_BYTES_MAX: usize = ESCAPE_BYTES_MAX * USER_AGENT_BYTES_MAX + REFERRER_BYTES_MAX;

    /// The order in which a store writes clicks: by owner and URL, not by time. An index that begins with one of them then has
    /// neighbours follow one another, and each of its pages is gone to once for a batch, not once for a click
    /// (`benches/journal.rs`).
    pub fn by_owner(clicks: &[Self]) -> Vec<&Self> {
        let mut sorted: Vec<&Self> = clicks.iter().collect();
        sorted.sort_by_cached_key(|click| (click.user_id, click.url_id));
        sorted
    }

    /// Bytes that the texts take in a store, the user agent as JSON.
    pub fn text_bytes(&self) -> usize {
        let user_agent = self.user_agent.as_deref().unwrap_or_default();
        let in_json = if is_plain(user_agent) { user_agent.len() } else { user_agent.bytes().map(json_bytes).sum() };
        in_json + self.referrer.as_ref().map_or(0, |text| text.len())
    }

    /// The event's details: `{"ip", "user_agent"}`. The referrer is a column of its own.
    pub fn details(&self) -> String {
        let texts = self.user_agent.as_ref().map_or(0, |text| text.len());
        let mut text = String::with_capacity(DETAILS_BYTES + texts);
        self.write_details(&mut text);
        text
    }

    /// Writes [`Click::details`] behind what `out` holds. Without [`Details`]: there are as many as there are redirects, and
    /// the names in between are as long as the compiler sees them.
    pub fn write_details(&self, out: &mut impl Write) {
        put(out, "{\"ip\": ");
        match self.client {
            Some(IpAddr::V4(ip)) => put_ipv4(out, ip),
            Some(IpAddr::V6(ip)) => put_text(out, &ip.to_string()),
            None => put(out, "null"),
        }
        put(out, ", \"user_agent\": ");
        match &self.user_agent {
            Some(user_agent) => put_text(out, user_agent),
            None => put(out, "null"),
        }
        put(out, "}");
    }
}

/// Adds a part to what grows with it: no text of ours is refused.
fn put(out: &mut impl Write, part: &str) {
    let _ = out.write_str(part);
}

/// Adds nearly every click's address, without the machinery of formatting.
fn put_ipv4(out: &mut impl Write, ip: Ipv4Addr) {
    for (at, octet) in ip.octets().into_iter().enumerate() {
        put(out, if at == 0 { "\"" } else { "." });
        put(out, itoa::Buffer::new().format(octet));
    }
    put(out, "\"");
}

/// Adds a text as JSON.
fn put_text(out: &mut impl Write, text: &str) {
    if is_plain(text) {
        put(out, "\"");
        put(out, text);
        put(out, "\"");
        return;
    }
    // A `str` always serializes; were it ever not so, null is the honest answer.
    put(out, &sonic_rs::to_string(text).unwrap_or_else(|_| String::from("null")));
}

/// Bytes of the longest escape in JSON, `\u0001`.
const ESCAPE_BYTES_MAX: usize = 6;

/// Bytes that a byte of a text takes in JSON, at the most.
const fn json_bytes(byte: u8) -> usize {
    match byte {
        0..b' ' => ESCAPE_BYTES_MAX,
        b'"' | b'\\' => 2,
        _ => 1,
    }
}

/// Whether JSON has `text` as it is. Each byte is looked at, whatever the ones before were: so the compiler makes it many at a
/// time.
fn is_plain(text: &str) -> bool {
    text.bytes().fold(true, |is_plain, byte| is_plain & (json_bytes(byte) == 1))
}

/// What the details of a click take beside its user agent: names, punctuation, the longest address.
const DETAILS_BYTES: usize = 80;

/// The JSON object of an event's `details`, built field by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Details {
    out: String,
}

impl Details {
    #[allow(clippy::new_without_default, reason = "an empty object is a start, not a value")]
    /// An object without fields.
    pub fn new() -> Self {
        Self { out: String::from("{") }
    }

    fn begin(&mut self, name: &str) {
        self.out.push_str(if self.out.len() > 1 { ", \"" } else { "\"" });
        self.out.push_str(name);
        self.out.push_str("\": ");
    }

    fn field(&mut self, name: &str, value: &str) -> &mut Self {
        self.begin(name);
        self.out.push_str(value);
        self
    }

    /// Adds a text; `name` is one of ours and needs no escape.
    pub fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.begin(name);
        put_text(&mut self.out, value);
        self
    }

    /// Adds a text, or null.
    pub fn optional_text(&mut self, name: &str, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(name, value),
            None => self.field(name, "null"),
        }
    }

    /// Adds a boolean.
    pub fn boolean(&mut self, name: &str, value: bool) -> &mut Self {
        self.field(name, if value { "true" } else { "false" })
    }

    /// Ends the object.
    pub fn finish(mut self) -> String {
        self.out.push('}');
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn details_are_json() {
        let mut details = Details::new();
        details.text("a", "q\"\n\u{1}é").optional_text("b", None).boolean("c", true);
        assert_eq!(details.finish(), r#"{"a": "q\"\n\u0001é", "b": null, "c": true}"#);
        assert_eq!(deleted_details().finish(), r#"{"reason": "user_requested"}"#);
    }

    #[test]
    fn a_click_without_address_says_null() {
        let at = Timestamp::from_micros(0);
        let click = Click { url_id: 1, user_id: None, at, client: None, user_agent: None, referrer: Some("x".into()) };
        assert_eq!(click.details(), r#"{"ip": null, "user_agent": null}"#);
    }

    #[test]
    fn addresses_are_what_the_standard_library_writes() {
        for ip in ["0.0.0.0", "9.10.99.100", "255.255.255.255", "::1", "2001:db8::7"] {
            let (at, client) = (Timestamp::from_micros(0), ip.parse().ok());
            let click = Click { url_id: 1, user_id: None, at, client, user_agent: Some("a".into()), referrer: None };
            assert_eq!(click.details(), format!(r#"{{"ip": "{ip}", "user_agent": "a"}}"#));
        }
    }
}
