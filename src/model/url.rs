//! Short URLs.

use super::event::{Details, EventType};
use super::{Id, ShortCode, Timestamp};

/// A row of `urls`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortUrl {
    /// Primary key.
    pub id: Id,
    /// Owner, if any.
    pub user_id: Option<Id>,
    /// Unique code that the redirect is asked by.
    pub short_code: ShortCode,
    /// Where the redirect leads, byte for byte as it was given.
    pub original_url: String,
    /// A name for people.
    pub title: Option<String>,
    /// Whether the redirect works.
    pub is_active: bool,
    /// When the row was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
}

/// A short URL to be created; the fields are valid already (see [`super::validate`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUrl {
    /// Owner, if any.
    pub user_id: Option<Id>,
    /// A fresh code.
    pub short_code: ShortCode,
    /// Where the redirect leads.
    pub original_url: String,
    /// A name for people.
    pub title: Option<String>,
}

impl NewUrl {
    /// The event that is written with the row, in the same transaction.
    pub fn created_event(&self) -> (EventType, Details) {
        let mut details = Details::new();
        details.text("short_code", &self.short_code).text("original_url", &self.original_url);
        (EventType::Created, details)
    }
}

/// The fields of a short URL to be changed; `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UrlPatch {
    /// New target.
    pub original_url: Option<String>,
    /// New title; `Some(None)` clears it.
    pub title: Option<Option<String>>,
    /// Switches the redirect on or off.
    pub is_active: Option<bool>,
}

impl UrlPatch {
    /// Whether nothing is to be changed: then the row, `updated_at` included, stays as it is.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// One `updated` event for each field given, written in the transaction of the change.
    pub fn updated_events(&self) -> Vec<(EventType, Details)> {
        let mut events = Vec::with_capacity(3);
        let field = |name: &str| {
            let mut details = Details::new();
            details.text("field", name);
            details
        };
        if let Some(url) = &self.original_url {
            let mut details = field("original_url");
            details.text("new_value", url);
            events.push((EventType::Updated, details));
        }
        if let Some(title) = &self.title {
            let mut details = field("title");
            details.optional_text("new_value", title.as_deref());
            events.push((EventType::Updated, details));
        }
        if let Some(is_active) = self.is_active {
            let mut details = field("is_active");
            details.boolean("new_value", is_active);
            events.push((EventType::Updated, details));
        }
        events
    }
}

/// Which short URLs a list holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UrlFilter {
    /// Only those of this owner.
    pub user_id: Option<Id>,
    /// Only the active, or only the inactive.
    pub is_active: Option<bool>,
}

/// The number of a row's state: 1 at first, more with each change, whoever makes it.
pub type Version = i64;

/// What a redirect needs to know of an active short URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The short URL's primary key.
    pub url_id: Id,
    /// Its owner, if any.
    pub user_id: Option<Id>,
    /// The state of the row that this is.
    pub version: Version,
    /// Where the redirect leads.
    pub original_url: String,
}

/// A short URL with its number of redirects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlStats {
    /// The short URL.
    pub url: ShortUrl,
    /// Redirect events stored for it.
    pub redirect_count: i64,
}

/// A short URL as a change left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChangedUrl {
    /// The short URL.
    pub url: ShortUrl,
    /// The number of this state.
    pub version: Version,
}

impl ChangedUrl {
    /// What a redirect can see of it.
    pub fn link_state(&self) -> LinkState {
        let (url, version) = (&self.url, self.version);
        let (url_id, user_id) = (url.id, url.user_id);
        let target = Target { url_id, user_id, version, original_url: url.original_url.clone() };
        LinkState { url_id, version, target: url.is_active.then_some(target) }
    }
}

/// A state of a link, whether or not it can be followed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkState {
    /// The short URL's primary key.
    pub url_id: Id,
    /// The number of this state.
    pub version: Version,
    /// Where it leads; `None` when it is inactive.
    pub target: Option<Target>,
}

/// An entry of the store's list of what changed lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkChange {
    /// Whose link.
    pub short_code: ShortCode,
    /// Its state after the change: everything older is out of date.
    pub version: Version,
}

/// A place in that list, of use to the store that gave it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeCursor {
    /// Everything before it is known, in the terms of the store.
    pub horizon: i64,
    /// The last entry read.
    pub sequence: i64,
    /// The horizon that counts when the list has been read to its end.
    pub next_horizon: i64,
}

/// A part of that list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The entries; one may come more than once.
    pub changes: Vec<LinkChange>,
    /// Where to read on.
    pub next: ChangeCursor,
    /// Whether this was all for now.
    pub is_end: bool,
}
