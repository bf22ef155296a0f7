//! Method and path to route. Pure.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::http::Method;
use crate::model::Id;

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names are the paths")]
pub enum Route<'p> {
    Health,
    Livez,
    Readyz,
    Metrics,
    Users,
    UsersBulk,
    User(Id),
    Urls,
    Url(Id),
    UrlStats(Id),
    UrlEvents(Id),
    Events,
    /// A short code, decoded.
    Code(Cow<'p, str>),
    /// `OPTIONS *`: the server as a whole.
    Server,
    NotFound,
}

/// The route that a path names, whatever the method.
pub fn route(path: &str) -> Route<'_> {
    let Some(rest) = path.strip_prefix('/') else {
        return if path == "*" { Route::Server } else { Route::NotFound };
    };
    // The hot path: one segment without an escape.
    if !rest.bytes().any(|byte| byte == b'/' || byte == b'%') {
        return one_segment(rest.into());
    }
    if rest.contains('%') { decoded(rest) } else { segments(rest) }
}

fn one_segment(segment: Cow<'_, str>) -> Route<'_> {
    match &*segment {
        "" => Route::NotFound,
        "health" => Route::Health,
        "livez" => Route::Livez,
        "readyz" => Route::Readyz,
        "metrics" => Route::Metrics,
        "users" => Route::Users,
        "urls" => Route::Urls,
        "events" => Route::Events,
        _ => Route::Code(segment),
    }
}

/// A decoded `%2F` separates segments as a plain slash does; what is not UTF-8 is no code that exists.
fn decoded(rest: &str) -> Route<'_> {
    let path = percent_decode_str(rest).decode_utf8_lossy();
    if path.contains('/') { segments(&path) } else { one_segment(path) }
}

fn segments(rest: &str) -> Route<'static> {
    let mut parts = rest.splitn(4, '/');
    let route = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some("users"), Some("bulk"), None, None) => Some(Route::UsersBulk),
        (Some("users"), Some(id), None, None) => integer(id).map(Route::User),
        (Some("urls"), Some(id), None, None) => integer(id).map(Route::Url),
        (Some("urls"), Some(id), Some("stats"), None) => integer(id).map(Route::UrlStats),
        (Some("urls"), Some(id), Some("events"), None) => integer(id).map(Route::UrlEvents),
        _ => None,
    };
    route.unwrap_or(Route::NotFound)
}

/// Digits only. What is too large to exist becomes the largest id, which does not exist either.
fn integer(segment: &str) -> Option<Id> {
    let is_integer = !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_digit());
    is_integer.then(|| segment.parse().unwrap_or(Id::MAX))
}

impl Route<'_> {
    /// The methods that the route has, as `Allow` lists them.
    pub const fn allow(&self) -> &'static str {
        match self {
            Self::Users | Self::Urls | Self::Events => "GET, HEAD, OPTIONS, POST",
            Self::UsersBulk => "OPTIONS, POST",
            Self::User(_) | Self::Url(_) => "DELETE, GET, HEAD, OPTIONS, PUT",
            Self::Server => "DELETE, GET, HEAD, OPTIONS, POST, PUT",
            _ => "GET, HEAD, OPTIONS",
        }
    }

    /// Whether the route has a method. HEAD goes with GET.
    pub const fn has(&self, method: Method) -> bool {
        match method {
            Method::Options => !matches!(self, Self::NotFound),
            Method::Get | Method::Head => !matches!(self, Self::UsersBulk | Self::Server | Self::NotFound),
            Method::Post => matches!(self, Self::Users | Self::UsersBulk | Self::Urls | Self::Events),
            Method::Put | Method::Delete => matches!(self, Self::User(_) | Self::Url(_)),
            Method::Other => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes() {
        let check = |path: &str, expect: Route<'_>| assert_eq!(route(path), expect, "{path}");
        check("/health", Route::Health);
        check("/users", Route::Users);
        check("/users/bulk", Route::UsersBulk);
        check("/users/7", Route::User(7));
        check("/users/007", Route::User(7));
        check("/urls/12/stats", Route::UrlStats(12));
        check("/urls/12/events", Route::UrlEvents(12));
        check("/urls/99999999999999999999", Route::Url(Id::MAX));
        check("/abc123", Route::Code("abc123".into()));
        check("/ab%63", Route::Code("abc".into()));
        check("/heal%74h", Route::Health);
        check("/urls%2F5", Route::Url(5));
        check("/%FF", Route::Code("\u{fffd}".into()));
        check("*", Route::Server);
        for path in [
            "/",
            "//",
            "/users/",
            "/users/abc",
            "/users/-1",
            "/users/+1",
            "/users/1.0",
            "/users//",
            "/urls/1/other",
            "/urls/1/stats/",
            "/abc/def",
            "/%2F",
            "/users/1/2/3",
        ] {
            check(path, Route::NotFound);
        }
    }

    #[test]
    fn methods_agree_with_allow() {
        use Method::{Delete, Get, Head, Options, Other, Post, Put};
        let id = Route::User(1);
        for route in [Route::Health, Route::Users, Route::UsersBulk, id, Route::Events, Route::Code("x".into())] {
            for method in [Get, Head, Post, Put, Delete, Options, Other] {
                let listed = route.allow().split(", ").any(|name| name == method.as_str());
                assert_eq!(route.has(method), listed, "{route:?} {method:?}");
            }
        }
    }
}
