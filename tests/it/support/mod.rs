//! What the tests share: the gateway as a child process, a scripted provider, raw HTTP clients, the exported chain, and
//! real database servers behind wires that can be cut.
//!
//! Owns every helper that two themes use. Never reaches into the product: what it knows, it learned over a socket, from
//! the command line or from the files of the data directory. Fails by panicking with what it waited for.

pub mod chain;
pub mod chaos;
pub mod client;
pub mod cluster;
pub mod control;
pub mod database;
pub mod gateway;
pub mod http2;
pub mod load;
pub mod openai;
pub mod postgres;
pub mod redis;
pub mod round_robin;
pub mod script;
pub mod sse;
pub mod upstream;
pub mod wait;
