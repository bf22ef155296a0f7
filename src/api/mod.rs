//! The API: routes to handlers, one file a resource. Knows the contract; knows neither sockets nor SQL.

mod client;
mod events;
pub(crate) mod json;
mod ops;
pub(crate) mod query;
mod redirect;
pub(crate) mod reply;
mod request_id;
pub mod router;
mod scrape;
pub(crate) mod upload;
mod urls;
mod users;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

pub use client::TrustedProxies;

use json::{Field, Object};
use quanta::Instant;
use reply::Error;
use request_id::{RequestId, RequestIds};
use router::Route;
use scrape::{Looker, Scrape};

use crate::clicks::Clicks;
use crate::http::head::Head;
use crate::http::{self, Method, Refusal, Request, Response, Service};
use crate::limits::{BODY_BYTES_MAX, UPLOAD_BODY_BYTES_MAX};
use crate::links::Links;
use crate::metrics::{Endpoint, Metrics};
use crate::model::Id;
use crate::runtime::{Wait, waits_since};
use crate::store::Store;

/// The API over its parts.
pub struct Api {
    store: Arc<dyn Store>,
    links: Links,
    clicks: Arc<Clicks>,
    metrics: Arc<Metrics>,
    scrape: Arc<Scrape>,
    trusted_proxies: TrustedProxies,
    slow: Duration,
    is_draining: AtomicBool,
    request_ids: RequestIds,
}

/// What a handler says: everything was written, or this error is to be.
type Handled = Result<(), Error>;

impl Api {
    /// An API on `store`. `connections` are the figures of the server that serves it. Requests that take `slow` or longer
    /// get a line in the log.
    ///
    /// # Errors
    /// The operating system gives no thread.
    pub fn new(
        store: Arc<dyn Store>,
        links: Links,
        clicks: Clicks,
        connections: Arc<http::Stats>,
        trusted_proxies: TrustedProxies,
        slow: Duration,
    ) -> std::io::Result<Self> {
        let (clicks, metrics) = (Arc::new(clicks), Arc::<Metrics>::default());
        let scrape = Scrape {
            store: Arc::clone(&store),
            links: links.clone(),
            clicks: Arc::clone(&clicks),
            metrics: Arc::clone(&metrics),
            connections,
            looker: Looker::start(Arc::clone(&store))?,
        };
        let scrape = Arc::new(scrape);
        let is_draining = AtomicBool::new(false);
        let request_ids = RequestIds::default();
        Ok(Self { store, links, clicks, metrics, scrape, trusted_proxies, slow, is_draining, request_ids })
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
        match (route, request.head.method) {
            (Route::Code(code), Method::Get | Method::Head) => self.redirect(code, request, response, now),
            (_, method) => self.handle_other(route, method, request, response),
        }
    }

    /// All but redirects; its frame is not to be a part of the one that these stand on.
    #[inline(never)]
    fn handle_other(
        &self,
        route: &Route<'_>,
        method: Method,
        request: &Request<'_>,
        response: &mut Response<'_>,
    ) -> Handled {
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
            (Route::Code(_) | Route::Server | Route::NotFound, _) => Err(reply::NOT_FOUND),
        }
    }

    /// Has the clicks so far stored, for a read that must see them. A count that misses some would be a lie.
    fn ship_clicks(&self) -> Handled {
        if self.clicks.flush() {
            return Ok(());
        }
        Err(Error::Unavailable("the clicks before this read are not stored yet".to_owned()))
    }

    /// The id that a trusted proxy has given the request.
    fn given_id(&self, request: &Request<'_>) -> Option<RequestId> {
        let id = RequestId::given(request.head.x_request_id?)?;
        self.trusted_proxies.trusts(request.peer).then_some(id)
    }

    /// Redirects and probes are counted; everything else also gets a line, and so does whatever was slow or failed for a
    /// reason that the client is not told.
    fn log(&self, answered: &Answered<'_>, request: &Request<'_>, began: Instant, took: Duration) {
        if answered.cause.is_some() || took >= self.slow || is_worth_a_line(answered.endpoint) {
            self.write_line(answered, request, began, took);
        }
    }

    #[inline(never)] // as `handle_other`
    fn write_line(&self, answered: &Answered<'_>, request: &Request<'_>, began: Instant, took: Duration) {
        let Answered { id, status, cause, .. } = *answered;
        let is_slow = took >= self.slow;
        let id = id.unwrap_or_else(|| self.request_ids.next());
        let Head { method, path, .. } = *request.head;
        let (request_id, method) = (tracing::field::display(id), method.as_str());
        let micros = took.as_micros() as u64;
        if !is_slow && cause.is_none() {
            tracing::info!(request_id, method, path, status, micros, "request");
            return;
        }
        // What is in none of these was computing, or waiting for the CPU.
        let waited = waits_since(began);
        let store_micros = waited.micros(Wait::Store);
        let redis_micros = waited.micros(Wait::Redis);
        let joined_micros = waited.micros(Wait::Joined);
        let clicks_micros = waited.micros(Wait::Clicks);
        let thread_micros = waited.micros(Wait::Thread);
        macro_rules! line {
            ($level:ident, $message:literal $(, $cause:ident)?) => {
                tracing::$level!(
                    request_id,
                    method,
                    path,
                    status,
                    micros,
                    store_micros,
                    redis_micros,
                    joined_micros,
                    clicks_micros,
                    thread_micros,
                    $($cause,)?
                    $message
                )
            };
        }
        match cause {
            None => line!(warn, "slow request"),
            Some(cause) => line!(error, "request failed", cause),
        }
    }
}

/// What is known of a request once it is answered.
struct Answered<'c> {
    endpoint: Endpoint,
    id: Option<RequestId>,
    status: u16,
    /// Why it failed, if the client is not told.
    cause: Option<&'c str>,
}

fn is_worth_a_line(endpoint: Endpoint) -> bool {
    use Endpoint::{Health, Livez, Metrics, Readyz, Redirect};
    !matches!(endpoint, Redirect | Livez | Readyz | Health | Metrics)
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
        let endpoint = endpoint(&route);
        // A redirect has an id when it was given one; making one up would cost each of them for the sake of few.
        let mut id = self.given_id(request);
        if id.is_none() && is_worth_a_line(endpoint) {
            id = Some(self.request_ids.next());
        }
        response.identify(id.as_ref().map(RequestId::as_bytes));
        let failed = self.handle(&route, request, response, began).err();
        if let Some(error) = &failed {
            response.restart();
            let id = id.get_or_insert_with(|| self.request_ids.next());
            response.identify(Some(id.as_bytes()));
            reply::error(response, error);
        }
        let took = began.elapsed();
        let (status, cause) = (response.status(), failed.as_ref().and_then(Error::cause));
        self.metrics.observe(endpoint, request.head.method, status, took);
        self.log(&Answered { endpoint, id, status, cause }, request, began, took);
    }

    fn refused(&self, refusal: Refusal) {
        self.metrics.count(Endpoint::Unknown, Method::Other, refusal.status);
    }

    fn panicked(&self, request: &Request<'_>, what: &str) {
        let Head { method, path, .. } = *request.head;
        self.metrics.count(endpoint(&router::route(path)), method, 500);
        tracing::error!(
            request_id = %self.given_id(request).unwrap_or_else(|| self.request_ids.next()),
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
