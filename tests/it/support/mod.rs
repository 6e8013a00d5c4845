//! What the tests share: the gateway as a child process, a scripted provider, raw HTTP clients, the exported chain.
//!
//! Owns every helper that two themes use. Never reaches into the product: what it knows, it learned over a socket, from
//! the command line or from the files of the data directory. Fails by panicking with what it waited for.

pub mod chain;
pub mod client;
pub mod control;
pub mod database;
pub mod gateway;
pub mod http2;
pub mod openai;
pub mod redis_server;
pub mod script;
pub mod sse;
pub mod upstream;
pub mod wait;
