//! Steps on the prompt, and the one that acts just before the call.
//!
//! Owns one file per kind of step. Pure computation over the exchange; no I/O. An error refuses, naming the step.

pub(super) mod detectors;
pub(super) mod gates;
pub(super) mod tools;
