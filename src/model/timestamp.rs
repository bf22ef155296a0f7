//! Points in time: microseconds since 1970 UTC, as PostgreSQL's `timestamp` has them.

use std::cell::Cell;
use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::Offset;
use quanta::Instant;

use crate::limits::CLOCK_LOOK_INTERVAL;

const _: () =
    assert!(CLOCK_LOOK_INTERVAL.as_millis() < Duration::from_secs(1).as_millis(), "its fraction of a second is all");

thread_local! {
    /// The last look. Never borrowed: a coroutine may wait at any other time.
    static LOOKED: Cell<Option<Look>> = const { Cell::new(None) };
}

/// A look at the system's clock.
#[derive(Clone, Copy)]
struct Look {
    at: Instant,
    told: Timestamp,
}

impl Look {
    /// The time at a moment soon after it; `None` for another.
    fn reckon(self, moment: Instant) -> Option<Timestamp> {
        let since = moment.checked_duration_since(self.at).filter(|since| *since < CLOCK_LOOK_INTERVAL)?;
        Some(Timestamp(self.told.0 + i64::from(since.subsec_micros())))
    }
}

/// A UTC point in time, in microseconds since the Unix epoch. Shown to clients in whole seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Bytes of the contract's form, `YYYY-MM-DDTHH:MM:SS`.
    pub const TEXT_BYTES: usize = 19;

    /// The present, by the system's clock.
    pub fn now() -> Self {
        // It panics past the year 9999; Linux lets nobody set its clock beyond 2262.
        Self(jiff::Timestamp::now().as_microsecond())
    }

    /// The time by the system's clock at `moment`, which is now or was a moment ago. The clock is looked at again only after
    /// [`CLOCK_LOOK_INTERVAL`], so that a step of it is followed by then.
    pub fn at(moment: Instant) -> Self {
        LOOKED.get().and_then(|look| look.reckon(moment)).unwrap_or_else(|| {
            // In this order: what is lost between the two makes clicks older, never newer than what comes after them.
            let told = Self::now();
            let look = Look { at: Instant::now(), told };
            LOOKED.set(Some(look));
            look.told
        })
    }

    /// From microseconds since the Unix epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Microseconds since the Unix epoch.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Reads `YYYY-MM-DD HH:MM:SS`, with `T` or a space between and up to six digits of fraction; `None` for anything
    /// else.
    pub fn parse(text: &str) -> Option<Self> {
        let civil: DateTime = text.trim().parse().ok()?;
        let instant = Offset::UTC.to_timestamp(civil).ok()?;
        Some(Self(instant.as_microsecond()))
    }

    fn civil(self) -> DateTime {
        let instant = jiff::Timestamp::from_microsecond(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        Offset::UTC.to_datetime(instant)
    }

    /// The contract's form: `YYYY-MM-DDTHH:MM:SS`, ASCII. Years outside 0 to 9999 are shown as the nearest of these.
    pub fn text(self) -> [u8; Self::TEXT_BYTES] {
        let civil = self.civil();
        let mut text = *b"0000-00-00T00:00:00";
        let mut put = |at: usize, value: i32| {
            text[at] = b'0' + (value / 10 % 10) as u8;
            text[at + 1] = b'0' + (value % 10) as u8;
        };
        let year = i32::from(civil.year()).clamp(0, 9999);
        put(0, year / 100);
        put(2, year % 100);
        put(5, civil.month().into());
        put(8, civil.day().into());
        put(11, civil.hour().into());
        put(14, civil.minute().into());
        put(17, civil.second().into());
        text
    }

    /// The form that SQL clients expect in text columns: `YYYY-MM-DD HH:MM:SS.ffffff`. Sorts as it counts.
    pub fn sql_text(self) -> String {
        let mut text = self.text();
        text[10] = b' ';
        let micros = self.0.rem_euclid(1_000_000);
        format!("{}.{micros:06}", String::from_utf8_lossy(&text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes() {
        let check = |input: &str, micros: i64, text: &str, sql: &str| {
            let timestamp = Timestamp::parse(input).unwrap();
            assert_eq!(timestamp.micros(), micros, "{input}");
            assert_eq!(timestamp.text(), *<&[u8; 19]>::try_from(text.as_bytes()).unwrap());
            assert_eq!(timestamp.sql_text(), sql);
            assert_eq!(Timestamp::parse(sql), Some(timestamp));
        };
        check("1970-01-01 00:00:00", 0, "1970-01-01T00:00:00", "1970-01-01 00:00:00.000000");
        check("2025-08-18 05:25:03", 1_755_494_703_000_000, "2025-08-18T05:25:03", "2025-08-18 05:25:03.000000");
        check("2024-02-29T23:59:59.5", 1_709_251_199_500_000, "2024-02-29T23:59:59", "2024-02-29 23:59:59.500000");
        check("1969-12-31 23:59:59.25", -750_000, "1969-12-31T23:59:59", "1969-12-31 23:59:59.250000");
    }

    #[test]
    fn goes_on_from_the_last_look() {
        let look = Look { at: Instant::now(), told: Timestamp(7) };
        let reckon = |millis| look.reckon(look.at + Duration::from_millis(millis));
        assert_eq!([0, 3, 99].map(reckon), [7, 3_007, 99_007].map(|micros| Some(Timestamp(micros))));
        assert_eq!(reckon(100), None);
        assert_eq!(look.reckon(look.at - Duration::from_millis(1)), None, "a request that took its time");
    }

    #[test]
    fn is_the_systems_time_whatever_the_moment() {
        let slow = |began| began - Duration::from_secs(3);
        let soon = |began| began + Duration::from_millis(1);
        for moment in [|began| began, slow, soon, |began| began] as [fn(Instant) -> Instant; 4] {
            let began = Instant::now();
            let (before, at, after) = (Timestamp::now(), Timestamp::at(moment(began)), Timestamp::now());
            let slack = CLOCK_LOOK_INTERVAL.as_micros() as i64;
            assert!(before.micros() - slack <= at.micros() && at.micros() <= after.micros() + slack, "{at:?}");
        }
    }

    #[test]
    fn refuses_what_is_no_time() {
        for input in ["", "yesterday", "2025-02-30 00:00:00", "2025-01-01 25:00:00", "2025-01-01 00:00:00 junk"] {
            assert_eq!(Timestamp::parse(input), None, "{input}");
        }
    }
}
