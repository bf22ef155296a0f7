//! Servers that the tests start for themselves.

pub mod postgres;
