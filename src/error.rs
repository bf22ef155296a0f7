//! What can go wrong below the API, in the terms that the API needs to choose an answer.

use std::fmt;

/// A unique constraint of the contract's tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Constraint {
    /// `users.username`
    Username,
    /// `users.email`
    Email,
    /// `urls.short_code`
    ShortCode,
}

/// A row that a write refers to and that does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reference {
    /// A row of `users`.
    User,
    /// A row of `urls`.
    Url,
}

/// Why a store did not do what it was asked. The text parts are for the log, never for a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreError {
    /// The queue in front of the store is full. Nothing was done; the caller may try again.
    Busy,
    /// The store cannot be reached or did not answer within its deadline. A write may or may not have been done.
    Unavailable(String),
    /// A unique constraint refused the write.
    Conflict(Constraint),
    /// The write refers to a row that does not exist.
    Missing(Reference),
    /// Seed data was to be loaded into a store that has rows.
    NotEmpty,
    /// Anything else: a defect, a corrupt file, a schema that is not ours.
    Internal(String),
}

/// The result of a store call.
pub type StoreResult<T> = Result<T, StoreError>;

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Busy => f.write_str("the store's queue is full"),
            Self::Unavailable(why) => write!(f, "the store is unavailable: {why}"),
            Self::Conflict(constraint) => write!(f, "a row with this {constraint:?} exists already"),
            Self::Missing(reference) => write!(f, "the {reference:?} referred to does not exist"),
            Self::NotEmpty => f.write_str("the store is not empty"),
            Self::Internal(why) => write!(f, "the store failed: {why}"),
        }
    }
}

impl std::error::Error for StoreError {}
