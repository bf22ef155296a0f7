//! Fields of many rows as arrays for `unnest`, written straight into the request: of a batch of clicks nothing is collected
//! on the way, which would be as large again.

use std::fmt;

use bytes::BytesMut;
use postgres_protocol::IsNull as ElementIsNull;
use postgres_protocol::types::{ArrayDimension, array_to_sql};
use postgres_types::{IsNull, Kind, ToSql, Type, accepts, to_sql_checked};

use super::values::Outcome;
use crate::model::Click;

/// One field of each row.
pub(super) struct Column<'r, R, F> {
    rows: &'r [R],
    field: F,
}

/// One field of each row: an array.
pub(super) fn column<'r, R, T, F: Fn(&'r R) -> T>(rows: &'r [R], field: F) -> Column<'r, R, F> {
    Column { rows, field }
}

impl<R, F> fmt::Debug for Column<'_, R, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Column").field("rows", &self.rows.len()).finish_non_exhaustive()
    }
}

impl<'r, R, T: ToSql, F: Fn(&'r R) -> T> ToSql for Column<'r, R, F> {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Outcome<IsNull> {
        let Kind::Array(member) = ty.kind() else { return Err(format!("{ty} is no array").into()) };
        let dimension = ArrayDimension { len: self.rows.len().try_into()?, lower_bound: 1 };
        let write = |element: T, out: &mut BytesMut| {
            Ok(match element.to_sql(member, out)? {
                IsNull::Yes => ElementIsNull::Yes,
                IsNull::No => ElementIsNull::No,
            })
        };
        array_to_sql([dimension], member.oid(), self.rows.iter().map(&self.field), write, out)?;
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        matches!(ty.kind(), Kind::Array(member) if T::accepts(member))
    }

    to_sql_checked!();
}

/// A click's details, as JSON text.
#[derive(Debug)]
pub(super) struct ClickDetails<'a>(pub &'a Click);

impl ToSql for ClickDetails<'_> {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Outcome<IsNull> {
        self.0.write_details(out);
        Ok(IsNull::No)
    }

    accepts!(TEXT);
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the library makes of the same values in a vector.
    fn written(array: &dyn ToSql, ty: &Type) -> BytesMut {
        let mut out = BytesMut::new();
        assert!(matches!(array.to_sql_checked(ty, &mut out), Ok(IsNull::No)));
        out
    }

    #[test]
    fn is_written_as_a_vector_of_the_same() {
        let rows = [("one", Some(1_i64)), ("", None), ("three", Some(-3))];
        for rows in [&rows[..], &[]] {
            let (texts, numbers): (Vec<&str>, Vec<Option<i64>>) = rows.iter().copied().unzip();
            let check = |array: &dyn ToSql, vector: &dyn ToSql, ty| assert_eq!(written(array, ty), written(vector, ty));
            check(&column(rows, |row| row.0), &texts, &Type::TEXT_ARRAY);
            check(&column(rows, |row| row.1), &numbers, &Type::INT8_ARRAY);
        }
    }

    #[test]
    fn other_types_are_refused() {
        let refused = |ty| column(&[1_i64], |number| *number).to_sql_checked(ty, &mut BytesMut::new()).is_err();
        assert!(refused(&Type::TEXT_ARRAY) && refused(&Type::INT8) && !refused(&Type::INT8_ARRAY));
    }
}
