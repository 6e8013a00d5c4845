//! What is kept: SQL now; Redis and objects have their floor here too.
//!
//! Owns every statement. Decides nothing: it does what it is told inside the transaction that it is given, and it tells
//! a failure that left nothing behind from one whose outcome is unknown.

pub mod anchors;
pub mod sql;

pub use anchors::Anchors;
pub use sql::{Sql, StorageError, WriteTx};
