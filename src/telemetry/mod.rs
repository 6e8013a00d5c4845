//! What operators see: log lines and metrics.
//!
//! Owns the shape of both. Never fails a request: a line or a number that cannot be written is lost in silence. Secrets,
//! prompts and answers are never fields or labels; labels come from closed lists.

mod logs;
mod metrics;

pub use logs::{LogGuard, start_logs};
pub use metrics::{JobEnd, Metrics, Outcome};
