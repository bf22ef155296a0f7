//! Query strings: pages and filters.

use std::borrow::Cow;

use super::reply::Error;
use crate::model::{Id, Page};

/// A query string.
#[derive(Clone, Copy, Debug)]
pub struct Query<'q>(Option<&'q str>);

impl<'q> Query<'q> {
    /// The part of the target behind the `?`, if there is one.
    pub fn new(query: Option<&'q str>) -> Self {
        Self(query)
    }

    /// A parameter, decoded; of several with one name the first counts.
    pub fn get(&self, name: &str) -> Option<Cow<'q, str>> {
        form_urlencoded::parse(self.0?.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value)
    }

    /// The page asked for. What is not a positive integer falls back to the default.
    pub fn page(&self) -> Page {
        if self.0.is_none() {
            return Page::new(None, None, None);
        }
        let positive = |name| self.get(name).and_then(|text| positive_integer(&text));
        let after_id = self.get("after_id").and_then(|text| integer(&text));
        Page::new(positive("page"), positive("per_page"), after_id)
    }

    /// An integer to filter by; `message` is the text of the 400 when it is something else.
    pub fn integer(&self, name: &str, message: &'static str) -> Result<Option<Id>, Error> {
        match self.get(name) {
            None => Ok(None),
            Some(text) => integer(&text).map(Some).ok_or(Error::BadRequest(message)),
        }
    }

    /// A switch: `true`, `1` and `yes` in any case are true, all else is false.
    pub fn boolean(&self, name: &str) -> Option<bool> {
        self.get(name).map(|text| ["true", "1", "yes"].iter().any(|yes| text.trim().eq_ignore_ascii_case(yes)))
    }
}

/// More than a `u64` holds is past the end of every list.
fn positive_integer(text: &str) -> Option<u64> {
    let text = text.trim();
    let is_integer = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    is_integer.then(|| text.parse().unwrap_or(u64::MAX)).filter(|&integer| integer > 0)
}

/// What is beyond an `i64` is its nearest end, which no row has.
fn integer(text: &str) -> Option<Id> {
    let text = text.trim();
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    Some(text.parse().unwrap_or(if text.starts_with('-') { Id::MIN } else { Id::MAX }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Start;

    #[test]
    fn pages() {
        let check = |query: &str, start, limit| {
            assert_eq!(Query::new(Some(query)).page(), Page { start, limit }, "{query}");
        };
        check("", Start::Offset(0), 25);
        check("page=2&per_page=10", Start::Offset(10), 10);
        for nonsense in ["0", "-1", "x", "", "1.5"] {
            check(&format!("page={nonsense}&per_page={nonsense}"), Start::Offset(0), 25);
        }
        check("per_page=1000", Start::Offset(0), 100);
        check("page=99999999999999999999999", Start::Offset(i64::MAX as u64), 25);
        check("after_id=7&page=3", Start::AfterId(7), 25);
        check("after_id=x", Start::Offset(0), 25);
    }

    #[test]
    fn filters() {
        let query = Query::new(Some("user_id=%37&bad=1x&is_active=YES&off=&user_id=8&big=-99999999999999999999"));
        assert_eq!(query.integer("user_id", "m"), Ok(Some(7)));
        assert_eq!(query.integer("bad", "m"), Err(Error::BadRequest("m")));
        assert_eq!(query.integer("off", "m"), Err(Error::BadRequest("m")));
        assert_eq!(query.integer("none", "m"), Ok(None));
        assert_eq!(query.integer("big", "m"), Ok(Some(Id::MIN)));
        assert_eq!(query.boolean("is_active"), Some(true));
        assert_eq!(query.boolean("off"), Some(false));
        assert_eq!(query.boolean("none"), None);
    }
}
