//! Extractors: what a handler is given, and how it replies.
//!
//! Owns reading bodies (bounded as sent and as decompressed, in time) and JSON in our error shape.

mod body;
mod json;

pub(super) use body::read_body;
pub(super) use json::Json;
