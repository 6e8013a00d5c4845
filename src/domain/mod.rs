//! The ground floor: values that every other floor speaks about.
//!
//! Owns identifiers, time, money, detections, the registry of steps and JSON with positions. Never does I/O and never
//! knows HTTP, SQL or Rego.

pub mod ids;
pub mod digest;
pub mod stamp;
pub mod money;
pub mod clock;
pub mod detection;
pub mod nearest;
pub mod rows;
pub mod json;
pub mod steps;
pub mod plan;
