//! What the lists of both stores share: the bounds of a page, and one statement for each combination of filters.

use crate::model::{Id, Page, Start};

/// Stands in a list's statement where the filters asked for go.
pub(super) const FILTERS_MARKER: &str = "/* filters */";

/// The bounds of a list by id, both kinds of start in one: the id that all rows are behind is the least.
pub(super) fn id_bounds(page: Page) -> (Id, i64) {
    match page.start {
        Start::Offset(rows) => (Id::MIN, sql_offset(rows)),
        Start::AfterId(id) => (id, 0),
    }
}

/// No list is longer than SQL can count.
pub(super) fn sql_offset(rows: u64) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// The number whose bits these are, the first being the least.
pub(super) fn combination<const N: usize>(bits: [bool; N]) -> usize {
    bits.iter().rev().fold(0, |number, &bit| number << 1 | usize::from(bit))
}
