//! `/health`, `/livez`, `/readyz`, `/metrics`: for those who run the service.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::reply::Error;
use super::{Api, Handled, reply};
use crate::http::Response;
use crate::runtime::offload::{NotDone, offload};

impl Api {
    /// Always 200: the replaced service's clients read the body.
    pub(super) fn health(&self, response: &mut Response<'_>) -> Handled {
        let body: &[u8] = match self.store.health() {
            Ok(()) => br#"{"status":"ok","database":"connected"}"#,
            Err(error) => {
                tracing::warn!(%error, "the store is not healthy");
                br#"{"status":"degraded","database":"disconnected"}"#
            }
        };
        reply::ok(response, |out| out.extend_from_slice(body));
        Ok(())
    }

    /// The process serves: this answer is the proof.
    pub(super) fn livez(&self, response: &mut Response<'_>) -> Handled {
        reply::ok(response, |out| out.extend_from_slice(br#"{"status":"ok"}"#));
        Ok(())
    }

    /// Whether requests should be sent here.
    pub(super) fn readyz(&self, response: &mut Response<'_>) -> Handled {
        if self.is_draining.load(Ordering::Relaxed) {
            reply::not_ready(response, |out| out.extend_from_slice(br#"{"status":"draining"}"#));
        } else if self.store.health().is_err() {
            reply::not_ready(response, |out| out.extend_from_slice(br#"{"status":"no store"}"#));
        } else {
            reply::ok(response, |out| out.extend_from_slice(br#"{"status":"ready"}"#));
        }
        Ok(())
    }

    pub(super) fn show_metrics(&self, response: &mut Response<'_>) -> Handled {
        let scrape = Arc::clone(&self.scrape);
        scrape.connections.note_buffers();
        let text = offload(move || scrape.text()).map_err(|why| match why {
            NotDone::Busy => Error::Unavailable("too many jobs wait for a thread".to_owned()),
            NotDone::Panicked => reply::internal("gathering the metrics panicked".to_owned()),
        })?;
        reply::ok_as(response, "text/plain; version=0.0.4", |out| out.extend_from_slice(&text));
        Ok(())
    }
}
