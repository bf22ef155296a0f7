//! Times as PostgreSQL's binary form has them: microseconds since 2000, as the model has them since 1970.

use std::error::Error;

use bytes::BytesMut;
use postgres_types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::model::Timestamp;

/// What the traits of postgres-types want.
pub(super) type Outcome<T> = Result<T, Box<dyn Error + Sync + Send>>;

/// 2000-01-01, in microseconds since 1970.
const PG_EPOCH_MICROS: i64 = 946_684_800_000_000;
/// 4713 BC, the earliest that the type holds (postgres source, `MIN_TIMESTAMP`).
const PG_MICROS_MIN: i64 = -211_813_488_000_000_000;

impl ToSql for Timestamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Outcome<IsNull> {
        let micros = self.micros().saturating_sub(PG_EPOCH_MICROS).max(PG_MICROS_MIN);
        postgres_protocol::types::timestamp_to_sql(micros, out);
        Ok(IsNull::No)
    }

    accepts!(TIMESTAMP);
    to_sql_checked!();
}

impl FromSql<'_> for Timestamp {
    /// `infinity` and `-infinity`, the ends of the binary form, become the ends of ours.
    fn from_sql(_: &Type, raw: &[u8]) -> Outcome<Self> {
        let micros = postgres_protocol::types::timestamp_from_sql(raw)?;
        Ok(Self::from_micros(micros.saturating_add(PG_EPOCH_MICROS)))
    }

    // A table of another program may have the time zone too; in binary form both count from the same instant.
    accepts!(TIMESTAMP, TIMESTAMPTZ);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_come_back_as_they_went() {
        let check = |micros: i64, expect: i64| {
            let mut bytes = BytesMut::new();
            assert!(Timestamp::from_micros(micros).to_sql(&Type::TIMESTAMP, &mut bytes).is_ok());
            let read = Timestamp::from_sql(&Type::TIMESTAMP, &bytes).unwrap();
            assert_eq!(read, Timestamp::from_micros(expect));
        };
        for micros in [0, -1, 1, PG_EPOCH_MICROS, 1_755_494_703_123_456, PG_MICROS_MIN + PG_EPOCH_MICROS] {
            check(micros, micros);
        }
        check(i64::MIN, PG_MICROS_MIN + PG_EPOCH_MICROS);
        let infinity = Timestamp::from_sql(&Type::TIMESTAMP, &i64::MAX.to_be_bytes()).unwrap();
        assert_eq!(infinity, Timestamp::from_micros(i64::MAX));
    }
}
