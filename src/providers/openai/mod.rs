//! The wire form of OpenAI's chat completions: reading requests, answers and chunks; changing bytes only where told.
//!
//! Owns which members mean what. Never keeps a second representation: everything is a view over the bytes as they came.
//! What is malformed is an error with the member's name; what is unknown is left alone.

mod answer;
mod chunk;
mod request;

pub use answer::{ChatAnswer, ToolCall};
pub use chunk::{ChatChunk, Delta, DeltaChannel};
pub use request::{ChatRequest, InvalidRequest, Tool, Upstream};
