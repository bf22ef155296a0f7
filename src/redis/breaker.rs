//! A circuit breaker: after some failures in a row nobody asks for a while, then one caller tries for all.
//!
//! Pure: time comes in as an argument.

use std::time::{Duration, Instant};

use crate::limits::{REDIS_BREAKER_FAILURES, REDIS_BREAKER_PAUSE_MAX, REDIS_BREAKER_PAUSE_MIN};

/// Whether the server is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Yes.
    Closed,
    /// Not for now.
    Open,
    /// One caller is trying.
    HalfOpen,
}

impl State {
    /// For metrics: 0 closed, 1 half open, 2 open.
    pub fn as_number(self) -> u64 {
        match self {
            Self::Closed => 0,
            Self::HalfOpen => 1,
            Self::Open => 2,
        }
    }
}

/// The breaker.
#[derive(Debug)]
pub struct Breaker {
    state: State,
    /// Failures in a row.
    failures: u32,
    /// Times that it opened in a row.
    openings: u32,
    /// When the next may try.
    retry_at: Option<Instant>,
    /// How often it opened since the start.
    opened: u64,
}

impl Default for Breaker {
    fn default() -> Self {
        Self { state: State::Closed, failures: 0, openings: 0, retry_at: None, opened: 0 }
    }
}

impl Breaker {
    /// Whether a caller may ask now. While the breaker is half open, this holds for the one who was told so.
    pub fn admits(&mut self, now: Instant) -> bool {
        match self.state {
            State::Closed => true,
            State::Open | State::HalfOpen if self.retry_at.is_none_or(|at| now >= at) => {
                // Should this one never tell how it went, another may try after the same pause.
                self.state = State::HalfOpen;
                self.retry_at = Some(now + pause(self.openings));
                true
            }
            State::Open | State::HalfOpen => false,
        }
    }

    /// The server answered.
    pub fn succeeded(&mut self) {
        (self.state, self.failures, self.openings) = (State::Closed, 0, 0);
    }

    /// The server did not answer.
    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        let opens = match self.state {
            State::Closed => self.failures >= REDIS_BREAKER_FAILURES,
            State::HalfOpen => true,
            // From a caller who asked before it opened.
            State::Open => false,
        };
        if opens {
            self.openings = self.openings.saturating_add(1);
            self.opened += 1;
            self.state = State::Open;
            self.retry_at = Some(now + pause(self.openings));
        }
    }

    /// The state.
    pub fn state(&self) -> State {
        self.state
    }

    /// How often it opened since the start.
    pub fn opened(&self) -> u64 {
        self.opened
    }
}

fn pause(openings: u32) -> Duration {
    let doubled = REDIS_BREAKER_PAUSE_MIN.saturating_mul(1 << openings.saturating_sub(1).min(16));
    doubled.min(REDIS_BREAKER_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_after_failures_in_a_row_and_lets_one_try() {
        let mut breaker = Breaker::default();
        let start = Instant::now();
        for _ in 1..REDIS_BREAKER_FAILURES {
            breaker.failed(start);
        }
        breaker.succeeded();
        for _ in 0..REDIS_BREAKER_FAILURES {
            assert!(breaker.admits(start));
            breaker.failed(start);
        }
        assert_eq!((breaker.state(), breaker.opened()), (State::Open, 1));
        assert!(!breaker.admits(start));
        let later = start + REDIS_BREAKER_PAUSE_MIN;
        assert!(breaker.admits(later));
        assert!(!breaker.admits(later), "one tries for all");
        breaker.failed(later);
        assert!(!breaker.admits(later + REDIS_BREAKER_PAUSE_MIN), "the pause doubles");
        assert!(breaker.admits(later + 2 * REDIS_BREAKER_PAUSE_MIN));
        breaker.succeeded();
        assert_eq!((breaker.state(), breaker.admits(later)), (State::Closed, true));
    }

    #[test]
    fn pauses_have_an_end_and_a_lost_try_is_not_the_last() {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            now += REDIS_BREAKER_PAUSE_MAX;
            assert!(breaker.admits(now));
            breaker.failed(now);
        }
        assert!(breaker.admits(now + REDIS_BREAKER_PAUSE_MAX));
        // Nothing is heard of that try.
        assert!(breaker.admits(now + 2 * REDIS_BREAKER_PAUSE_MAX));
    }
}
