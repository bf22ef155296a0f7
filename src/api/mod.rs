//! The API: routes to handlers, one file a resource. Knows the contract; knows neither sockets nor SQL.

mod client;
mod events;
pub(crate) mod json;
mod ops;
pub(crate) mod query;
mod redirect;
pub(crate) mod reply;
mod router;
pub(crate) mod upload;
mod urls;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use client::TrustedProxies;

use json::{Field, Object};
use reply::Error;
use router::Route;

use crate::clicks::Clicks;
use crate::http::head::Head;
use crate::http::{self, Method, Refusal, Request, Response, Service};
use crate::limits::{BODY_BYTES_MAX, UPLOAD_BODY_BYTES_MAX};
use crate::links::Links;
use crate::metrics::{Endpoint, Metrics};
use crate::model::Id;
use crate::store::Store;

/// The API over its parts.
pub struct Api {
    store: Arc<dyn Store>,
    links: Links,
    clicks: Clicks,
    metrics: Metrics,
    connections: Arc<http::Stats>,
    trusted_proxies: TrustedProxies,
    is_draining: AtomicBool,
    requests: AtomicU64,
}

/// What a handler says: everything was written, or this error is to be.
type Handled = Result<(), Error>;

impl Api {
    /// An API on `store`. `connections` are the figures of the server that serves it.
    pub fn new(
        store: Arc<dyn Store>,
        links: Links,
        clicks: Clicks,
        metrics: Metrics,
        connections: Arc<http::Stats>,
        trusted_proxies: TrustedProxies,
    ) -> Self {
        let is_draining = AtomicBool::new(false);
        let requests = AtomicU64::new(0);
        Self { store, links, clicks, metrics, connections, trusted_proxies, is_draining, requests }
    }

    /// From now on `/readyz` sends clients elsewhere.
    pub fn start_draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Stores the clicks that are left; returns how many the store would not take within `limit`.
    pub fn close(&self, limit: Duration) -> u64 {
        self.clicks.close(limit)
    }

    fn handle(&self, route: &Route<'_>, request: &Request<'_>, response: &mut Response<'_>, now: Instant) -> Handled {
        let method = request.head.method;
        if !route.has(method) {
            return Err(match route {
                Route::NotFound => reply::NOT_FOUND,
                known => Error::MethodNotAllowed(known.allow()),
            });
        }
        match (route, method) {
            (_, Method::Options) => {
                reply::options(response, route.allow());
                Ok(())
            }
            (Route::Code(code), _) => self.redirect(code, request, response, now),
            (Route::Users, Method::Post) => self.create_user(request, response),
            (Route::Users, _) => self.list_users(request, response),
            (Route::UsersBulk, _) => self.import_users(request, response),
            (Route::User(id), Method::Put) => self.update_user(*id, request, response),
            (Route::User(id), Method::Delete) => self.delete_user(*id, response),
            (Route::User(id), _) => self.show_user(*id, response),
            (Route::Urls, Method::Post) => self.create_url(request, response),
            (Route::Urls, _) => self.list_urls(request, response),
            (Route::Url(id), Method::Put) => self.update_url(*id, request, response),
            (Route::Url(id), Method::Delete) => self.delete_url(*id, response),
            (Route::Url(id), _) => self.show_url(*id, response),
            (Route::UrlStats(id), _) => self.show_stats(*id, response),
            (Route::UrlEvents(id), _) => self.list_url_events(*id, request, response),
            (Route::Events, Method::Post) => self.create_event(request, response),
            (Route::Events, _) => self.list_events(request, response),
            (Route::Health, _) => self.health(response),
            (Route::Livez, _) => self.livez(response),
            (Route::Readyz, _) => self.readyz(response),
            (Route::Metrics, _) => self.show_metrics(response),
            (Route::Server | Route::NotFound, _) => Err(reply::NOT_FOUND),
        }
    }

    /// Has the clicks so far stored, for a read that must see them. A count that misses some would be a lie.
    fn ship_clicks(&self) -> Handled {
        if self.clicks.flush() {
            return Ok(());
        }
        Err(Error::Unavailable("the clicks before this read are not stored yet".to_owned()))
    }

    /// A number for a request that is worth a line in the log.
    fn next_request_id(&self) -> u64 {
        self.requests.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Redirects and probes are counted; everything else also gets a line, and so does whatever failed for a reason that
    /// the client is not told.
    fn log(&self, endpoint: Endpoint, request: &Request<'_>, status: u16, took: Duration, cause: Option<&str>) {
        use Endpoint::{Health, Livez, Metrics, Readyz, Redirect};
        if cause.is_none() && matches!(endpoint, Redirect | Livez | Readyz | Health | Metrics) {
            return;
        }
        let micros = took.as_micros() as u64;
        let Head { method, path, .. } = request.head;
        let (request_id, method) = (self.next_request_id(), method.as_str());
        match cause {
            None => tracing::info!(request_id, method, path, status, micros, "request"),
            Some(cause) => tracing::error!(request_id, method, path, status, micros, cause, "request failed"),
        }
    }
}

impl Service for Api {
    fn is_probe(&self, head: &Head<'_>) -> bool {
        matches!(router::route(head.path), Route::Livez | Route::Readyz | Route::Metrics)
    }

    fn body_limit(&self, head: &Head<'_>) -> (usize, Refusal) {
        match (head.method, head.path) {
            (Method::Post, "/users/bulk") => {
                (UPLOAD_BODY_BYTES_MAX, Refusal::BODY_TOO_LARGE.with_message(upload::TOO_LARGE))
            }
            _ => (BODY_BYTES_MAX, Refusal::BODY_TOO_LARGE),
        }
    }

    fn call(&self, request: &Request<'_>, response: &mut Response<'_>) {
        let began = Instant::now();
        let route = router::route(request.head.path);
        let failed = self.handle(&route, request, response, began).err();
        if let Some(error) = &failed {
            response.restart();
            reply::error(response, error);
        }
        let endpoint = endpoint(&route);
        let took = began.elapsed();
        self.metrics.observe(endpoint, request.head.method, response.status(), took);
        self.log(endpoint, request, response.status(), took, failed.as_ref().and_then(Error::cause));
    }

    fn refused(&self, refusal: Refusal) {
        self.metrics.count(Endpoint::Unknown, Method::Other, refusal.status);
    }

    fn panicked(&self, request: &Request<'_>, what: &str) {
        let Head { method, path, .. } = request.head;
        self.metrics.count(endpoint(&router::route(path)), method, 500);
        tracing::error!(
            request_id = self.next_request_id(),
            method = method.as_str(),
            path,
            panic = what,
            "handler panicked"
        );
    }
}

fn endpoint(route: &Route<'_>) -> Endpoint {
    match route {
        Route::Code(_) => Endpoint::Redirect,
        Route::Users => Endpoint::Users,
        Route::UsersBulk => Endpoint::UsersBulk,
        Route::User(_) => Endpoint::User,
        Route::Urls => Endpoint::Urls,
        Route::Url(_) => Endpoint::Url,
        Route::UrlStats(_) => Endpoint::UrlStats,
        Route::UrlEvents(_) => Endpoint::UrlEvents,
        Route::Events => Endpoint::Events,
        Route::Health => Endpoint::Health,
        Route::Livez => Endpoint::Livez,
        Route::Readyz => Endpoint::Readyz,
        Route::Metrics => Endpoint::Metrics,
        Route::Server | Route::NotFound => Endpoint::Unknown,
    }
}

/// The object in a request's body.
fn body_object<'b>(request: &'b Request<'_>) -> Result<Object<'b>, Error> {
    if !is_json(request.head.content_type) {
        return Err(Error::BadRequest("Content-Type must be application/json"));
    }
    Object::parse(request.body).ok_or(Error::BadRequest("Request body must be a JSON object"))
}

/// `application/json` and `application/*+json`, parameters aside.
pub(crate) fn is_json(content_type: Option<&[u8]>) -> bool {
    let essence = content_type.and_then(|value| value.split(|&b| b == b';').next()).unwrap_or(b"").trim_ascii();
    let is_suffixed = || {
        let lower = essence.to_ascii_lowercase();
        lower.starts_with(b"application/") && lower.ends_with(b"+json")
    };
    essence.eq_ignore_ascii_case(b"application/json") || is_suffixed()
}

/// What a request says of an id in its body.
enum GivenId {
    Absent,
    Id(Id),
    /// Null, a text, a boolean, a fraction.
    NoInteger,
    NotPositive,
}

fn given_id(field: Option<&Field<'_>>) -> GivenId {
    match field {
        None | Some(Field::Null) => GivenId::Absent,
        Some(Field::Integer(id)) if *id >= 1 => GivenId::Id(*id),
        Some(Field::Integer(_)) => GivenId::NotPositive,
        Some(_) => GivenId::NoInteger,
    }
}

/// The optional `user_id` of a body: null is none.
fn given_user_id(object: &Object<'_>) -> Result<Option<Id>, Error> {
    match given_id(object.get("user_id")) {
        GivenId::Absent => Ok(None),
        GivenId::Id(id) => Ok(Some(id)),
        GivenId::NoInteger => Err(Error::BadRequest("user_id must be an integer")),
        GivenId::NotPositive => Err(Error::BadRequest("user_id must be a positive integer")),
    }
}
