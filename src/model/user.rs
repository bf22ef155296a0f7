//! Users: the owners of short URLs.

use super::{Id, Timestamp};

/// A row of `users`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// Primary key.
    pub id: Id,
    /// Unique name.
    pub username: String,
    /// Unique address.
    pub email: String,
    /// When the row was made.
    pub created_at: Timestamp,
}

/// A user to be created; the fields are valid already (see [`super::validate`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewUser {
    /// Unique name.
    pub username: String,
    /// Unique address.
    pub email: String,
    /// Given by a bulk import; otherwise the present.
    pub created_at: Option<Timestamp>,
}

/// The fields of a user to be changed; `None` leaves one as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserPatch {
    /// New name.
    pub username: Option<String>,
    /// New address.
    pub email: Option<String>,
}
