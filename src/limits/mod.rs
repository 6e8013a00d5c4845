//! How fast: GCRA over calls, per agent and per address.
//!
//! Owns the arithmetic and the local store. Never does I/O. A limiter cannot be absent: a limit of nothing is written as
//! "no limit" by its caller, not by a missing limiter. The store is bounded; when it is full, callers that have been idle
//! for their whole window are forgotten, which hands nobody an allowance they did not have.

mod gcra;
mod local;

pub use gcra::{Quota, Rate};
pub use local::LocalQuotas;
