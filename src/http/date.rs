//! The `Date` header's value (RFC 9110, section 5.6.7), formatted once a second.

use std::cell::Cell;
use std::io::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;

/// `Sun, 06 Nov 1994 08:49:37 GMT`
pub const DATE_BYTES: usize = 29;

/// Whole seconds since the epoch, as of the last tick.
static SECOND: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// The second last formatted and its text. Per thread: no lock, and no reader sees half of it.
    static FORMATTED: Cell<(u64, [u8; DATE_BYTES])> = const { Cell::new((u64::MAX, [0; DATE_BYTES])) };
}

/// Brings the date up to now. Called by the server's ticker.
pub(super) fn tick() {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    SECOND.store(since_epoch.as_secs(), Ordering::Relaxed);
}

/// The present, as the header wants it.
pub fn now() -> [u8; DATE_BYTES] {
    let second = SECOND.load(Ordering::Relaxed);
    let (formatted, text) = FORMATTED.get();
    if formatted == second {
        return text;
    }
    let text = format(second);
    FORMATTED.set((second, text));
    text
}

/// Allocates nothing: once a second a redirect is what comes this way.
fn format(second: u64) -> [u8; DATE_BYTES] {
    // It panics past the year 9999; Linux lets nobody set its clock beyond 2262.
    let date = HttpDate::from(UNIX_EPOCH + Duration::from_secs(second));
    let mut bytes = [b' '; DATE_BYTES];
    // All of it fits: the form has one length.
    let _ = write!(&mut bytes[..], "{date}");
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_form_of_the_rfc() {
        assert_eq!(&format(784_111_777), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn follows_the_tick() {
        tick();
        let age =
            SystemTime::now().duration_since(httpdate::parse_http_date(std::str::from_utf8(&now()).unwrap()).unwrap());
        assert!(age.unwrap() < Duration::from_secs(60));
    }
}
