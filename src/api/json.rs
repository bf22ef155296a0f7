//! JSON in, borrowed from the read buffer, and out, straight into the write buffer.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use sonic_rs::LazyValue;

use crate::limits::JSON_DEPTH_MAX;
use crate::model::{Event, Id, ShortUrl, Timestamp, UrlStats, User};

/// A field of a request's object.
#[derive(Clone, Debug, PartialEq)]
pub enum Field<'b> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A whole number, also one written with a fraction of zero; what is beyond `i64` is its nearest end.
    Integer(i64),
    /// A number with a fraction.
    Fraction,
    /// A text, unescaped.
    Text(Cow<'b, str>),
    /// An object, as the text it came as.
    Object(Cow<'b, str>),
    /// An array.
    Array,
}

impl<'b> Field<'b> {
    /// The text, if it is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The parser borrows a value's text, save one with escapes, which it copies.
    fn from_raw_cow(raw: Cow<'b, str>) -> Option<Self> {
        match raw {
            Cow::Borrowed(raw) => Self::from_raw(raw),
            Cow::Owned(raw) => Field::from_raw(&raw).map(Field::into_owned),
        }
    }

    fn into_owned<'o>(self) -> Field<'o> {
        match self {
            Self::Null => Field::Null,
            Self::Boolean(boolean) => Field::Boolean(boolean),
            Self::Integer(integer) => Field::Integer(integer),
            Self::Fraction => Field::Fraction,
            Self::Text(text) => Field::Text(Cow::Owned(text.into_owned())),
            Self::Object(text) => Field::Object(Cow::Owned(text.into_owned())),
            Self::Array => Field::Array,
        }
    }

    fn from_raw(raw: &'b str) -> Option<Self> {
        match raw.as_bytes().first()? {
            b'n' => Some(Self::Null),
            b't' => Some(Self::Boolean(true)),
            b'f' => Some(Self::Boolean(false)),
            b'"' => sonic_rs::from_str(raw).ok().map(|Text(text)| Self::Text(text)),
            b'{' => is_json(raw).then_some(Self::Object(Cow::Borrowed(raw))),
            b'[' => is_json(raw).then_some(Self::Array),
            _ => number(raw),
        }
    }
}

/// Borrows when there is nothing to unescape.
#[derive(serde::Deserialize)]
struct Text<'b>(#[serde(borrow)] Cow<'b, str>);

fn number<'b>(raw: &str) -> Option<Field<'b>> {
    if let Ok(integer) = raw.parse::<i64>() {
        return Some(Field::Integer(integer));
    }
    let float: f64 = raw.parse().ok().filter(|float: &f64| float.is_finite())?;
    // The cast takes what is beyond i64 to its nearest end, which no row has for an id.
    Some(if float.fract() == 0.0 { Field::Integer(float as i64) } else { Field::Fraction })
}

/// The fields of a request's object, in their order.
#[derive(Debug)]
pub struct Object<'b>(Vec<(Cow<'b, str>, Field<'b>)>);

impl<'b> Object<'b> {
    /// Reads a body; `None` when it is not a JSON object, or nested deeper than [`JSON_DEPTH_MAX`].
    pub fn parse(body: &'b [u8]) -> Option<Self> {
        // Parsers recurse: the depth is looked at before any of them sees the bytes.
        if !is_shallow(body) {
            return None;
        }
        let body = std::str::from_utf8(body).ok()?;
        sonic_rs::from_str(body).ok()
    }

    /// A field; of several with one name the last counts.
    pub fn get(&self, name: &str) -> Option<&Field<'b>> {
        self.0.iter().rev().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// The text of a field: `None` when it is absent or not a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(Field::text)
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::new();
                while let Some((Text(name), value)) = map.next_entry::<Text<'de>, LazyValue<'de>>()? {
                    let field = Field::from_raw_cow(value.as_raw_cow());
                    fields.push((name, field.ok_or_else(|| serde::de::Error::custom("not a JSON value"))?));
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

/// Whether `text` is one JSON value and nothing else. Only for what is known to be shallow. It is read in full: a parser that
/// skips a value does not look at the escapes in it, and what is stored here is part of answers later.
fn is_json(text: &str) -> bool {
    sonic_rs::from_str::<sonic_rs::Value>(text).is_ok()
}

/// Whether brackets outside of strings nest at most [`JSON_DEPTH_MAX`] deep.
pub fn is_shallow(bytes: &[u8]) -> bool {
    let mut depth = 0_usize;
    let mut in_text = false;
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_text = !in_text,
            b'\\' if in_text => {
                bytes.next();
            }
            b'{' | b'[' if !in_text => {
                depth += 1;
                if depth > JSON_DEPTH_MAX {
                    return false;
                }
            }
            b'}' | b']' if !in_text => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// Appends a text.
pub fn write_text(out: &mut Vec<u8>, text: &str) {
    let start = out.len();
    if sonic_rs::to_writer(&mut *out, text).is_err() {
        // Writing a `str` into memory does not fail; were it ever to, null keeps the answer well-formed.
        out.truncate(start);
        out.extend_from_slice(b"null");
    }
}

fn write_optional_text(out: &mut Vec<u8>, text: Option<&str>) {
    match text {
        Some(text) => write_text(out, text),
        None => out.extend_from_slice(b"null"),
    }
}

/// Appends a whole number.
pub fn write_integer(out: &mut Vec<u8>, integer: i64) {
    out.extend_from_slice(itoa::Buffer::new().format(integer).as_bytes());
}

fn write_optional_id(out: &mut Vec<u8>, id: Option<Id>) {
    match id {
        Some(id) => write_integer(out, id),
        None => out.extend_from_slice(b"null"),
    }
}

fn write_timestamp(out: &mut Vec<u8>, timestamp: Timestamp) {
    out.push(b'"');
    out.extend_from_slice(&timestamp.text());
    out.push(b'"');
}

/// Appends an array.
pub fn write_array<T>(out: &mut Vec<u8>, items: &[T], write: impl Fn(&mut Vec<u8>, &T)) {
    out.push(b'[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(b',');
        }
        write(out, item);
    }
    out.push(b']');
}

/// Appends a user, keys in the contract's order.
pub fn write_user(out: &mut Vec<u8>, user: &User) {
    out.extend_from_slice(b"{\"id\":");
    write_integer(out, user.id);
    out.extend_from_slice(b",\"username\":");
    write_text(out, &user.username);
    out.extend_from_slice(b",\"email\":");
    write_text(out, &user.email);
    out.extend_from_slice(b",\"created_at\":");
    write_timestamp(out, user.created_at);
    out.push(b'}');
}

/// Appends a short URL, keys in the contract's order.
pub fn write_url(out: &mut Vec<u8>, url: &ShortUrl) {
    out.extend_from_slice(b"{\"id\":");
    write_integer(out, url.id);
    out.extend_from_slice(b",\"user_id\":");
    write_optional_id(out, url.user_id);
    out.extend_from_slice(b",\"short_code\":");
    write_text(out, &url.short_code);
    out.extend_from_slice(b",\"original_url\":");
    write_text(out, &url.original_url);
    out.extend_from_slice(b",\"title\":");
    write_optional_text(out, url.title.as_deref());
    out.extend_from_slice(if url.is_active { b",\"is_active\":true" } else { b",\"is_active\":false" });
    out.extend_from_slice(b",\"created_at\":");
    write_timestamp(out, url.created_at);
    out.extend_from_slice(b",\"updated_at\":");
    write_timestamp(out, url.updated_at);
    out.push(b'}');
}

/// Appends `{"url", "redirect_count"}`.
pub fn write_stats(out: &mut Vec<u8>, stats: &UrlStats) {
    out.extend_from_slice(b"{\"url\":");
    write_url(out, &stats.url);
    out.extend_from_slice(b",\"redirect_count\":");
    write_integer(out, stats.redirect_count);
    out.push(b'}');
}

/// Appends an event, keys in the contract's order.
pub fn write_event(out: &mut Vec<u8>, event: &Event) {
    out.extend_from_slice(b"{\"id\":");
    write_integer(out, event.id);
    out.extend_from_slice(b",\"url_id\":");
    write_integer(out, event.url_id);
    out.extend_from_slice(b",\"user_id\":");
    write_optional_id(out, event.user_id);
    out.extend_from_slice(b",\"event_type\":");
    write_text(out, &event.event_type);
    out.extend_from_slice(b",\"timestamp\":");
    write_timestamp(out, event.timestamp);
    out.extend_from_slice(b",\"details\":");
    write_details(out, event.details.as_deref());
    out.push(b'}');
}

/// The stored text as it is when it is JSON, else as a text: other programs write this column too.
fn write_details(out: &mut Vec<u8>, details: Option<&str>) {
    match details {
        Some(text) if is_shallow(text.as_bytes()) && is_json(text) => out.extend_from_slice(text.as_bytes()),
        other => write_optional_text(out, other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields() {
        let body = br#"{"n": null, "b": true, "i": 7, "f": 1.0, "e": 1e2, "x": 1.5, "t": "a\n\u00e9", "p": "plain",
                        "big": 99999999999999999999, "o": {"k": [1]}, "q": {"k": "\n"}, "a": [], "i": 8}"#;
        let object = Object::parse(body).unwrap();
        let check = |name: &str, expect: Field<'_>| assert_eq!(object.get(name), Some(&expect), "{name}");
        check("n", Field::Null);
        check("b", Field::Boolean(true));
        check("i", Field::Integer(8));
        check("f", Field::Integer(1));
        check("e", Field::Integer(100));
        check("x", Field::Fraction);
        check("t", Field::Text("a\né".into()));
        check("big", Field::Integer(i64::MAX));
        check("o", Field::Object(r#"{"k": [1]}"#.into()));
        check("q", Field::Object(r#"{"k": "\n"}"#.into()));
        check("a", Field::Array);
        assert_eq!(object.get("missing"), None);
        assert!(matches!(object.get("p"), Some(Field::Text(Cow::Borrowed("plain")))));
    }

    #[test]
    fn refuses_what_is_no_object() {
        let deep = format!("{{\"a\":{}1{}}}", "[".repeat(JSON_DEPTH_MAX), "]".repeat(JSON_DEPTH_MAX));
        let very_deep = "[".repeat(1_000_000);
        for body in [
            "",
            " ",
            "[]",
            "1",
            "null",
            "\"{}\"",
            "{",
            "{}x",
            "{} {}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{'a':1}",
            "{\"a\":tru}",
            "{\"a\":truex}",
            "{\"a\":nul}",
            "{\"a\":01}",
            "{\"a\":+1}",
            "{\"a\":1.}",
            "{\"a\":NaN}",
            "{\"a\":{\"b\":tru}}",
            "{\"a\":[1,]}",
            "{\"a\":[1 2]}",
            "{\"a\":\"\u{1}\"}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":{\"b\":\"\\uuuuu\"}}",
            "{\"a\":[{\"\\uuuuu\":[]}]}",
            "{\"a\":[\"\\ud800\"]}",
            "{\"a\":\"open}",
            &deep,
            &very_deep,
        ] {
            let shown: String = body.chars().take(40).collect();
            assert!(Object::parse(body.as_bytes()).is_none(), "{shown}");
        }
        assert!(Object::parse(b"{\"a\":\"\xff\"}").is_none());
        let brackets_in_text = format!("{{\"a\":\"{}\\\"[\"}}", "[".repeat(100));
        assert!(Object::parse(brackets_in_text.as_bytes()).is_some());
    }

    #[test]
    fn details_are_json_text_or_null() {
        let check = |details: Option<&str>, expect: &str| {
            let mut out = Vec::new();
            write_details(&mut out, details);
            assert_eq!(String::from_utf8(out).unwrap(), expect);
        };
        check(None, "null");
        check(Some(r#"{"a": 1}"#), r#"{"a": 1}"#);
        check(Some("plain \"text\""), r#""plain \"text\"""#);
        check(Some("{\"a\": }"), r#""{\"a\": }""#);
        check(Some(""), r#""""#);
    }

    #[test]
    fn writes_keys_in_order() {
        let at = Timestamp::parse("2025-01-02 03:04:05").unwrap();
        let url = ShortUrl {
            id: 1,
            user_id: None,
            short_code: "abc".into(),
            original_url: "http://e.com/\"\u{2028}".into(),
            title: Some("t".into()),
            is_active: true,
            created_at: at,
            updated_at: at,
        };
        let mut out = Vec::new();
        write_stats(&mut out, &UrlStats { url, redirect_count: 3 });
        let expect = "{\"url\":{\"id\":1,\"user_id\":null,\"short_code\":\"abc\",\"original_url\":\"http://e.com/\\\"\u{2028}\",\
                      \"title\":\"t\",\"is_active\":true,\"created_at\":\"2025-01-02T03:04:05\",\
                      \"updated_at\":\"2025-01-02T03:04:05\"},\"redirect_count\":3}";
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }
}
