//! What a statement gave back. Nothing here trusts the server's bytes: a wrong length is an error, never a panic.

use std::sync::Arc;

use postgres_types::{FromSql, Type};

use super::error::{Error, Result};

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// As the statement names it.
    pub name: Box<str>,
    /// Types that `postgres-types` does not know by number have the name `unknown`.
    pub ty: Type,
}

/// The rows of one statement, in a buffer of their own.
#[derive(Clone, Debug)]
pub struct Rows {
    columns: Arc<[Column]>,
    /// The bodies of the DataRow messages, each after its length (4 bytes, big-endian, counting itself).
    data: Vec<u8>,
    count: usize,
    affected: u64,
}

/// One row, borrowed from its [`Rows`].
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    columns: &'a [Column],
    /// Number of fields (2 bytes), then for each its length (4 bytes, -1 for NULL) and its bytes.
    body: &'a [u8],
}

impl Rows {
    /// No rows yet, of these columns.
    pub fn new(columns: Arc<[Column]>) -> Self {
        Self { columns, data: Vec::new(), count: 0, affected: 0 }
    }

    /// Appends the body of a DataRow message.
    pub fn push(&mut self, body: &[u8]) {
        // The length fits: frames are bounded far below 4 GiB (limits::PG_MESSAGE_BYTES_MAX).
        let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
        self.data.reserve(body.len() + 4);
        self.data.extend_from_slice(&length.to_be_bytes());
        self.data.extend_from_slice(body);
        self.count += 1;
    }

    pub(super) fn set_affected(&mut self, affected: u64) {
        self.affected = affected;
    }

    /// Number of rows.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Rows that the statement selected, inserted, updated or deleted, as its command tag says.
    pub fn affected(&self) -> u64 {
        self.affected
    }

    /// The columns of every row.
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The rows in order.
    pub fn iter(&self) -> Iter<'_> {
        Iter { columns: &self.columns, data: &self.data, left: self.count }
    }

    /// The first row, if there is one.
    pub fn first(&self) -> Option<Row<'_>> {
        self.iter().next()
    }
}

impl<'a> IntoIterator for &'a Rows {
    type Item = Row<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

/// Iterates over the rows of a result.
#[derive(Clone, Debug)]
pub struct Iter<'a> {
    columns: &'a [Column],
    data: &'a [u8],
    left: usize,
}

impl<'a> Iterator for Iter<'a> {
    type Item = Row<'a>;

    fn next(&mut self) -> Option<Row<'a>> {
        let (length, _) = self.data.split_first_chunk::<4>()?;
        let (row, rest) = self.data.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        self.data = rest;
        self.left -= 1;
        Some(Row { columns: self.columns, body: row.get(4..)? })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Iter<'_> {}

impl<'a> Row<'a> {
    /// The value of a column, counted from 0. `&str` and `&[u8]` borrow from the [`Rows`]; `Option` admits NULL.
    pub fn get<T: FromSql<'a>>(&self, index: usize) -> Result<T> {
        let column = self.columns.get(index).ok_or_else(|| {
            Error::usage(format!("column {index} was asked for, but the row has {}", self.columns.len()))
        })?;
        if !T::accepts(&column.ty) {
            let wanted = std::any::type_name::<T>();
            return Err(Error::usage(format!("column {} ({}) is not a {wanted}", column.name, column.ty)));
        }
        let raw = self.field(index).ok_or_else(|| Error::protocol("a row is shorter than its own lengths say"))?;
        T::from_sql_nullable(&column.ty, raw)
            .map_err(|error| Error::usage(format!("column {} ({}) cannot be read: {error}", column.name, column.ty)))
    }

    /// The bytes of a field: `Some(None)` for NULL, `None` if the row is cut or has fewer fields.
    fn field(&self, index: usize) -> Option<Option<&'a [u8]>> {
        let (count, mut rest) = self.body.split_first_chunk::<2>()?;
        if index >= usize::from(u16::from_be_bytes(*count)) {
            return None;
        }
        for _ in 0..index {
            (_, rest) = split_field(rest)?;
        }
        split_field(rest).map(|(field, _)| field)
    }
}

/// A field's bytes, `None` if it is NULL, and what comes after it.
type SplitField<'a> = (Option<&'a [u8]>, &'a [u8]);

fn split_field(data: &[u8]) -> Option<SplitField<'_>> {
    let (length, rest) = data.split_first_chunk::<4>()?;
    match usize::try_from(i32::from_be_bytes(*length)) {
        Ok(length) => rest.split_at_checked(length).map(|(field, rest)| (Some(field), rest)),
        Err(_) => Some((None, rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rows(types: &[Type], bodies: &[&[u8]]) -> Rows {
        let columns = types.iter().map(|ty| Column { name: "c".into(), ty: ty.clone() }).collect();
        let mut rows = Rows::new(columns);
        bodies.iter().for_each(|body| rows.push(body));
        rows
    }

    #[test]
    fn typed_values_come_out_as_they_went_in() {
        let body = b"\0\x03\0\0\0\x08\0\0\0\0\0\0\0\x2a\0\0\0\x03abc\xff\xff\xff\xff";
        let rows = rows(&[Type::INT8, Type::TEXT, Type::TEXT], &[body, body]);
        assert_eq!(rows.len(), 2);
        for row in &rows {
            assert_eq!(row.get::<i64>(0), Ok(42));
            assert_eq!(row.get::<&str>(1), Ok("abc"));
            assert_eq!(row.get::<Option<&str>>(2), Ok(None));
        }
    }

    #[test]
    fn wrong_uses_are_errors_that_name_the_column() {
        let rows = rows(&[Type::INT8, Type::TEXT], &[b"\0\x02\0\0\0\x02\0\0\xff\xff\xff\xff"]);
        let row = rows.first().unwrap();
        for (error, says) in [
            (row.get::<i64>(0).unwrap_err(), "cannot be read"),
            (row.get::<&str>(0).unwrap_err(), "column c (int8) is not a &str"),
            (row.get::<&str>(1).unwrap_err(), "NULL"),
            (row.get::<&str>(2).unwrap_err(), "column 2 was asked for, but the row has 2"),
        ] {
            assert!(error.to_string().contains(says), "{error} does not say {says:?}");
        }
    }

    #[test]
    fn cut_rows_are_errors() {
        for body in [&b""[..], b"\0", b"\0\x01", b"\0\x01\0\0\0\x08\0", b"\0\0"] {
            let rows = rows(&[Type::INT8], &[body]);
            assert!(matches!(rows.first().unwrap().get::<i64>(0), Err(Error::Protocol(_))), "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bodies_never_panic(body in proptest::collection::vec(any::<u8>(), 0..64), index in 0usize..6) {
            let rows = rows(&[Type::INT8, Type::TEXT, Type::TIMESTAMP, Type::BOOL, Type::INT8_ARRAY], &[&body]);
            let row = rows.first().unwrap();
            let _ = (row.get::<i64>(index), row.get::<Option<&str>>(index), row.get::<Option<bool>>(index));
            let _ = (row.get::<Vec<i64>>(index), row.get::<std::time::SystemTime>(index));
        }
    }
}
