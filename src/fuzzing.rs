//! The private pure code that the fuzz targets (`fuzz/`) call, in one place. Nothing else may use it.

pub use crate::api::json::Object;
pub use crate::api::query::Query;
pub use crate::api::upload::{boundary, users};
pub use crate::http::body::Chunked;
