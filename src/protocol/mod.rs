//! The wire: framing, headers, the API and version table, and what the message crate lacks.
//! Does not look inside records.

pub mod schema;
