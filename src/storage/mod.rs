//! What is kept: SQL, and what instances share in Redis; objects have their floor here too.
//!
//! Owns every statement. Decides nothing: it does what it is told inside the transaction that it is given, and it tells
//! a failure that left nothing behind from one whose outcome is unknown.

pub mod anchors;
pub mod redis;
pub mod sql;

pub use anchors::Anchors;
pub use redis::{Redis, RedisError, RedisSettings, Script};
pub use sql::{Sql, StorageError, WriteTx};
