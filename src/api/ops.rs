//! `/health`, `/livez`, `/readyz`, `/metrics`: for those who run the service.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Api, Handled, reply};
use crate::http::Response;
use crate::log;
use crate::metrics::Sample;
use crate::model::Timestamp;

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
        let (cache_bytes, cache_links) = self.links.local_size();
        let (links, clicks, journal) = (self.links.stats(), self.clicks.stats(), self.clicks.size());
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let sample = Sample {
            cache_lookups: links.by_level(),
            cache_messages: read(&links.messages),
            cache_changes: read(&links.changes),
            cache_polls: (read(&links.polls), read(&links.poll_failures)),
            redis: self.links.redis_stats(),
            cache_hits: links.hits.load(Ordering::Relaxed),
            cache_misses: links.misses.load(Ordering::Relaxed),
            cache_bytes,
            cache_links: cache_links as u64,
            clicks_recorded: clicks.recorded.load(Ordering::Relaxed),
            clicks_stored: clicks.stored.load(Ordering::Relaxed),
            clicks_shed: clicks.shed.load(Ordering::Relaxed),
            clicks_recovered: clicks.recovered.load(Ordering::Relaxed),
            clicks_unsynced: clicks.unsynced.load(Ordering::Relaxed),
            clicks_batches_refused: clicks.refused_batches.load(Ordering::Relaxed),
            clicks_waiting: clicks.waiting(),
            clicks_lag_seconds: clicks.lag_seconds(Timestamp::now()),
            journal_segments: journal.segments,
            journal_bytes: journal.bytes,
            journal_damaged: journal.damaged,
            clicks_skipped: journal.skipped,
            journal_prepare_failures: clicks.prepare_failures.load(Ordering::Relaxed),
            journal_sync_failures: clicks.sync_failures.load(Ordering::Relaxed),
            log_lines_dropped: log::dropped_lines(),
            active_urls: self.store.active_urls().ok(),
        };
        reply::ok_as(response, "text/plain; version=0.0.4", |out| {
            self.metrics.write(sample, &self.connections, out);
        });
        Ok(())
    }
}
