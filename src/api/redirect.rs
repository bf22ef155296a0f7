//! `GET /<short_code>`: what the product exists for.

use quanta::Instant;

use super::{Api, Handled, reply};
use crate::clicks::ClickRef;
use crate::http::{Method, Request, Response};
use crate::limits::SHORT_CODE_CHARS_MAX;
use crate::model::Timestamp;

// A browser that kept a redirect would follow a changed link to its old target, and its clicks would not be counted.
const FOUND_HIT: &str = "HTTP/1.1 302 Found\r\nServer: snip\r\nCache-Control: no-store\r\nX-Cache: HIT\r\n";
const FOUND_MISS: &str = "HTTP/1.1 302 Found\r\nServer: snip\r\nCache-Control: no-store\r\nX-Cache: MISS\r\n";

impl Api {
    pub(super) fn redirect(
        &self,
        code: &str,
        request: &Request<'_>,
        response: &mut Response<'_>,
        now: Instant,
    ) -> Handled {
        // What can't be a code is not worth a question, nor a place in the cache.
        if code.len() > SHORT_CODE_CHARS_MAX && code.chars().count() > SHORT_CODE_CHARS_MAX {
            return Err(reply::URL_NOT_FOUND);
        }
        let resolved = self.links.resolve(code, now)?;
        let link = resolved.link.ok_or(reply::URL_NOT_FOUND)?;
        response.head(if resolved.is_hit { FOUND_HIT } else { FOUND_MISS });
        if !response.header("Location", link.original_url.as_bytes()) {
            // Validation refuses such targets; another program must have written this one.
            let cause =
                format!("the stored target of URL {} has control characters and can't be followed", link.url_id);
            return Err(reply::internal(cause));
        }
        response.empty();
        if request.head.method == Method::Get {
            self.clicks.record(ClickRef {
                url_id: link.url_id,
                user_id: link.user_id,
                at: Timestamp::at(now),
                client: self.trusted_proxies.client(request),
                user_agent: request.head.user_agent,
                referrer: request.head.referrer,
            });
        }
        Ok(())
    }
}
