//! `snip alerts`: takes Alertmanager's notifications, keeps them on disk, and forwards them to Discord.
//!
//! A notification is answered with 200 once its line is synced to disk; whatever fails before that is a 5xx, which makes
//! Alertmanager send it again. Forwarding comes after, on a thread of its own, and holds nothing up.

mod archive;
mod discord;
mod evidence;
mod figures;
mod forward;
mod page;
mod payload;
mod summary;

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;

pub use discord::link;
pub use forward::WebhookUrl;

use archive::{Archive, Line};
use discord::Embed;
use figures::{Figures, Outcome};
use forward::Forwarder;
use payload::{Invalid, Notification};
use summary::Summary;

use crate::api::is_json;
use crate::api::reply::{self, Error};
use crate::http::head::Head;
use crate::http::{Method, Refusal, Request, Response, Service};
use crate::limits::{ALERT_BODY_BYTES_MAX, ALERT_UNSTORED_MAX};
use crate::runtime::offload::{NotDone, offload};

const TOO_MANY_ALERTS: Error = Error::TooLarge("Too many alerts: set max_alerts in Alertmanager's webhook_config");
/// What `GET /` is depends on what is accepted, and on the moment.
const OVERVIEW: &str = "HTTP/1.1 200 OK\r\nServer: snip\r\nVary: Accept\r\nCache-Control: no-store\r\n\
    X-Content-Type-Options: nosniff\r\nContent-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n";

/// The receiver, as a server serves it.
pub struct Receiver {
    inside: Arc<Inside>,
    is_draining: AtomicBool,
}

/// What the thread that stores shares with the coroutines that answer.
struct Inside {
    desk: Mutex<Desk>,
    /// Held for moments only, unlike the desk.
    summary: Mutex<Summary>,
    figures: Arc<Figures>,
    forwarder: Option<Forwarder>,
    grafana: Option<String>,
}

/// What one notification at a time passes over.
struct Desk {
    archive: Archive,
    /// Alerts that were forwarded and are not on disk, by the names their files would have.
    unstored: VecDeque<String>,
}

/// What `GET /` answers.
#[derive(Serialize)]
struct Overview {
    #[serde(flatten)]
    summary: Summary,
    /// Since the start.
    disk_errors: u64,
    /// Since the start; `None` when nothing is forwarded.
    forwarding: Option<Forwarding>,
}

#[derive(Serialize)]
struct Forwarding {
    forwarded: u64,
    waiting: i64,
    lost: u64,
}

/// What a path names.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    Alert,
    Overview,
    Livez,
    Readyz,
    Metrics,
    NotFound,
}

impl Route {
    fn of(path: &str) -> Self {
        match path {
            "/alert" => Self::Alert,
            "/" => Self::Overview,
            "/livez" => Self::Livez,
            "/readyz" => Self::Readyz,
            "/metrics" => Self::Metrics,
            _ => Self::NotFound,
        }
    }

    const fn allow(self) -> &'static str {
        match self {
            Self::Alert => "OPTIONS, POST",
            _ => "GET, HEAD, OPTIONS",
        }
    }
}

impl Receiver {
    /// A receiver that keeps its files in `folder`, and forwards to `webhook` if there is one. `grafana` is the page that
    /// forwarded alerts link to.
    ///
    /// # Errors
    /// The folder cannot be used, or there is no thread.
    pub fn start(folder: &Path, webhook: Option<WebhookUrl>, grafana: Option<String>) -> anyhow::Result<Self> {
        let archive = Archive::open(folder).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => anyhow::anyhow!("another process keeps its alerts in {}", folder.display()),
            _ => anyhow::Error::new(error).context(format!("cannot keep alerts in {}", folder.display())),
        })?;
        let mut summary = Summary::default();
        archive.lines().for_each(|line| summary.add(&line));
        let figures = Arc::new(Figures::new().context("cannot set up the metrics")?);
        let forwarder = webhook.map(|webhook| Forwarder::start(webhook, Arc::clone(&figures)));
        let forwarder = forwarder.transpose().context("cannot start the thread that forwards alerts")?;
        let desk = Mutex::new(Desk { archive, unstored: VecDeque::new() });
        let inside = Arc::new(Inside { desk, summary: Mutex::new(summary), figures, forwarder, grafana });
        Ok(Self { inside, is_draining: AtomicBool::new(false) })
    }

    /// From now on `/readyz` sends clients elsewhere.
    pub fn start_draining(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Forwards what is left; returns how many alerts were not forwarded within `limit`.
    pub fn close(&self, limit: Duration) -> usize {
        self.inside.forwarder.as_ref().map_or(0, |forwarder| forwarder.close(limit))
    }

    fn handle(&self, request: &Request<'_>, response: &mut Response<'_>) -> Result<(), Error> {
        let route = Route::of(request.head.path);
        match (route, request.head.method) {
            (Route::NotFound, _) => return Err(reply::NOT_FOUND),
            (_, Method::Options) => reply::options(response, route.allow()),
            (Route::Alert, Method::Post) => self.take(request, response)?,
            (Route::Alert, _) => return Err(Error::MethodNotAllowed(route.allow())),
            (_, method) if !matches!(method, Method::Get | Method::Head) => {
                return Err(Error::MethodNotAllowed(route.allow()));
            }
            (Route::Overview, _) => self.show(request, response),
            (Route::Livez, _) => reply::ok(response, |out| out.extend_from_slice(br#"{"status":"ok"}"#)),
            (Route::Readyz, _) if self.is_draining.load(Ordering::Relaxed) => {
                reply::not_ready(response, |out| out.extend_from_slice(br#"{"status":"draining"}"#));
            }
            (Route::Readyz, _) => reply::ok(response, |out| out.extend_from_slice(br#"{"status":"ready"}"#)),
            (Route::Metrics, _) => {
                reply::ok_as(response, "text/plain; version=0.0.4", |out| self.inside.figures.write(out));
            }
        }
        Ok(())
    }

    /// `POST /alert`. Another type than JSON is refused: that is all that a page in somebody's browser could post here
    /// without asking first.
    fn take(&self, request: &Request<'_>, response: &mut Response<'_>) -> Result<(), Error> {
        if !is_json(request.head.content_type) {
            self.inside.figures.notification(Outcome::Invalid);
            return Err(Error::BadRequest("Content-Type must be application/json"));
        }
        let (inside, body) = (Arc::clone(&self.inside), request.body.to_vec());
        let taken = offload(move || inside.take(&body)).map_err(|why| match why {
            NotDone::Busy => {
                self.inside.figures.notification(Outcome::Busy);
                Error::Unavailable("too many notifications at once".to_owned())
            }
            NotDone::Panicked => reply::internal("the thread that stores alerts panicked".to_owned()),
        })?;
        taken?;
        reply::ok(response, |out| out.extend_from_slice(br#"{"status":"ok"}"#));
        Ok(())
    }

    fn show(&self, request: &Request<'_>, response: &mut Response<'_>) {
        let overview = self.inside.overview();
        response.head(OVERVIEW);
        if accepts_html(request.head.accept) {
            let page = page::html(&overview);
            response.body("text/html; charset=utf-8", |out| out.extend_from_slice(page.as_bytes()));
        } else {
            // Writing into memory does not fail.
            response.body("application/json", |out| drop(sonic_rs::to_writer(out, &overview)));
        }
    }
}

impl Inside {
    /// Parses, stores, counts and hands over to be forwarded. Blocks.
    fn take(&self, body: &[u8]) -> Result<(), Error> {
        let notification = Notification::parse(body).map_err(|invalid| self.invalid(invalid))?;
        let line = Line { received_at: now(), notification };
        let mut desk = self.desk.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = desk.archive.store(&line);
        // A full disk may be what the alert is about: it is forwarded whether or not it could be stored.
        self.forward(&mut desk, &line.notification, stored.is_ok());
        stored.map_err(|error| self.unstored(&error))?;
        drop(desk);
        self.summary().add(&line);
        self.figures.notification(Outcome::Stored);
        line.notification.alerts.iter().for_each(|alert| self.figures.alert(alert));
        tracing::info!(
            status = line.notification.status.as_str(),
            receiver = line.notification.receiver,
            alerts = line.notification.alerts.len(),
            "notification"
        );
        Ok(())
    }

    /// Each alert, unless it was forwarded when it could not be stored and is now sent again.
    fn forward(&self, desk: &mut Desk, notification: &Notification, stored: bool) {
        let Some(forwarder) = &self.forwarder else { return };
        for alert in &notification.alerts {
            let name = evidence::file_name(alert);
            let before = desk.unstored.iter().position(|unstored| *unstored == name);
            match (before, stored) {
                (None, _) => forwarder.forward(Embed::new(alert, self.grafana.as_deref())),
                (Some(at), true) => drop(desk.unstored.remove(at)),
                (Some(_), false) => continue,
            }
            if !stored {
                desk.unstored.truncate(ALERT_UNSTORED_MAX - 1);
                desk.unstored.push_front(name);
            }
        }
    }

    fn invalid(&self, invalid: Invalid) -> Error {
        match invalid {
            Invalid::Malformed(why) => {
                self.figures.notification(Outcome::Invalid);
                tracing::warn!(why, "not a notification of Alertmanager");
                Error::BadRequest("Request body must be a notification of Alertmanager, version 4")
            }
            Invalid::TooManyAlerts => {
                self.figures.notification(Outcome::TooLarge);
                TOO_MANY_ALERTS
            }
        }
    }

    fn unstored(&self, error: &io::Error) -> Error {
        let is_full = archive::is_full(error);
        self.figures.notification(Outcome::Unstored);
        self.figures.disk_error(is_full);
        let cause = format!("the notification was not stored: {error}");
        if is_full { Error::DiskFull(cause) } else { reply::internal(cause) }
    }

    fn overview(&self) -> Overview {
        let figures = &self.figures;
        let forwarding = self.forwarder.is_some().then(|| Forwarding {
            forwarded: figures.forwarded.get(),
            waiting: figures.forward_waiting.get(),
            lost: figures.lost_in_all(),
        });
        Overview { summary: self.summary().clone(), disk_errors: figures.disk_errors_in_all(), forwarding }
    }

    fn summary(&self) -> MutexGuard<'_, Summary> {
        self.summary.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whole milliseconds are precise enough for people.
fn now() -> Timestamp {
    let now = Timestamp::now();
    Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
}

/// Whether the client is a browser: nothing else names HTML.
fn accepts_html(accept: Option<&[u8]>) -> bool {
    accept.is_some_and(|accept| memchr::memmem::find(&accept.to_ascii_lowercase(), b"text/html").is_some())
}

impl Service for Receiver {
    fn is_probe(&self, head: &Head<'_>) -> bool {
        matches!(head.path, "/livez" | "/readyz" | "/metrics")
    }

    fn body_limit(&self, _: &Head<'_>) -> (usize, Refusal) {
        (ALERT_BODY_BYTES_MAX, Refusal::BODY_TOO_LARGE)
    }

    fn call(&self, request: &Request<'_>, response: &mut Response<'_>) {
        let Err(error) = self.handle(request, response) else { return };
        response.restart();
        reply::error(response, &error);
        let Head { method, path, .. } = *request.head;
        let status = response.status();
        match error.cause() {
            Some(cause) => tracing::error!(method = method.as_str(), path, status, cause, "request failed"),
            None => tracing::info!(method = method.as_str(), path, status, "request refused"),
        }
    }

    fn refused(&self, refusal: Refusal) {
        let outcome = if refusal == Refusal::BODY_TOO_LARGE { Outcome::TooLarge } else { Outcome::Invalid };
        self.inside.figures.notification(outcome);
        tracing::warn!(status = refusal.status, "request refused");
    }

    fn panicked(&self, request: &Request<'_>, what: &str) {
        let Head { method, path, .. } = *request.head;
        tracing::error!(method = method.as_str(), path, panic = what, "handler panicked");
    }
}
