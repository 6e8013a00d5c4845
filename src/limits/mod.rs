//! How fast: GCRA over calls and tokens, per agent, key, organization and address.
//!
//! Owns the arithmetic, the count in memory, the count in Redis and the change-over between them. A limiter cannot be
//! absent: a limit of nothing is written as "no charge" by its caller, not by a missing limiter. Without Redis it never
//! does I/O. With Redis away it counts in memory, at the limit divided by the number of live instances; it never lets
//! everything pass and never refuses everything.

mod charge;
mod fallback;
mod gcra;
mod local;
mod shared;
#[cfg(test)]
mod tests;

pub use charge::{Cell, Charge, Charges, Exceeded, MOST, Standing, Standings, Subject, Unit, Verdict};
pub use fallback::{Hold, Limiter};
pub use gcra::{Quota, Rate};
pub use shared::{Away, QuotaStore, SharedQuotas};
