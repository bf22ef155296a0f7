//! What callers ask for: SQL texts known at compile time, with the types of their parameters.

use postgres_types::{ToSql, Type};

/// A statement of the program. It is prepared once on each connection, together with its first use.
///
/// The parameter types are written down so that no round trip is needed to ask for them.
///
/// ```
/// use snip::pg::{Statement, Type};
/// static USER: Statement = Statement::new("user_by_id", "SELECT username FROM users WHERE id = $1", &[Type::INT8]);
/// ```
#[derive(Debug)]
pub struct Statement {
    pub(super) name: &'static str,
    pub(super) sql: &'static str,
    pub(super) params: &'static [Type],
    pub(super) read_only: bool,
}

impl Statement {
    /// A statement under a name for logs, with the types of `$1`, `$2`, ….
    pub const fn new(name: &'static str, sql: &'static str, params: &'static [Type]) -> Self {
        Self { name, sql, params, read_only: false }
    }

    /// Says that the statement changes nothing, so that it may be sent again after a connection broke.
    pub const fn read_only(self) -> Self {
        Self { read_only: true, ..self }
    }

    /// The name for logs.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The text.
    pub fn sql(&self) -> &'static str {
        self.sql
    }
}

/// One use of a statement.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub(super) statement: &'a Statement,
    pub(super) params: &'a [&'a (dyn ToSql + Sync)],
}

impl<'a> Call<'a> {
    /// The statement with values for its parameters.
    pub fn new(statement: &'a Statement, params: &'a [&'a (dyn ToSql + Sync)]) -> Self {
        Self { statement, params }
    }
}
