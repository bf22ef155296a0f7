//! The questions under way, one for a code at a time, and those who wait for their answers. Pure.
//!
//! A change of a link takes the question about it off the board: its answer still goes to those who waited for it, for
//! they began before the change was known, but is not remembered, and whoever comes later asks anew.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use ahash::RandomState;

/// A question under way. `W` is somebody who waits.
#[derive(Debug)]
pub struct Flight<W> {
    waiters: Mutex<Vec<W>>,
}

impl<W> Flight<W> {
    fn new() -> Self {
        Self { waiters: Mutex::new(Vec::new()) }
    }

    /// Those who wait. To be asked when the flight is off the board, so that nobody comes too late.
    pub fn take_waiters(&self) -> Vec<W> {
        std::mem::take(&mut *self.waiters.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Who is to ask.
#[derive(Debug)]
pub enum Part<W> {
    /// The caller.
    Lead(Arc<Flight<W>>),
    /// Somebody else, already: the waiter was taken in.
    Join,
}

/// All questions under way.
#[derive(Debug)]
pub struct Board<W> {
    flights: HashMap<Box<str>, Arc<Flight<W>>, RandomState>,
}

impl<W> Default for Board<W> {
    fn default() -> Self {
        Self { flights: HashMap::default() }
    }
}

impl<W> Board<W> {
    /// Joins the flight for a code, or begins one.
    pub fn take_part(&mut self, code: &str, waiter: impl FnOnce() -> W) -> Part<W> {
        if let Some(flight) = self.flights.get(code) {
            flight.waiters.lock().unwrap_or_else(PoisonError::into_inner).push(waiter());
            return Part::Join;
        }
        let flight = Arc::new(Flight::new());
        self.flights.insert(code.into(), Arc::clone(&flight));
        Part::Lead(flight)
    }

    /// Ends a flight; whether its answer may be remembered: not if it was canceled, or another is in its place.
    pub fn land(&mut self, code: &str, flight: &Arc<Flight<W>>) -> bool {
        let is_on_board = self.flights.get(code).is_some_and(|on_board| Arc::ptr_eq(on_board, flight));
        if is_on_board {
            self.flights.remove(code);
        }
        is_on_board
    }

    /// Takes the flight for a code off the board.
    pub fn cancel(&mut self, code: &str) {
        self.flights.remove(code);
    }

    /// Takes all flights off the board.
    pub fn cancel_all(&mut self) {
        self.flights.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lead(board: &mut Board<u8>, code: &str) -> Arc<Flight<u8>> {
        match board.take_part(code, || 0) {
            Part::Lead(flight) => flight,
            Part::Join => panic!("another asks already"),
        }
    }

    #[test]
    fn one_asks_for_all_and_a_canceled_answer_is_not_remembered() {
        let mut board = Board::default();
        let first = lead(&mut board, "a");
        assert!(matches!(board.take_part("a", || 1), Part::Join));
        board.cancel("a");
        let second = lead(&mut board, "a");
        assert!(!board.land("a", &first), "canceled");
        assert_eq!(first.take_waiters(), [1]);
        assert!(board.land("a", &second));
        assert!(!board.land("a", &second), "landed already");
        let third = lead(&mut board, "a");
        board.cancel_all();
        assert!(!board.land("a", &third));
    }
}
