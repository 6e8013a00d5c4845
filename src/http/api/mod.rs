//! Handlers: thin. Each reads, asks one service, renders; whether it may was asked before, by its route.
//!
//! Owns the shapes of requests and replies. Never decides.

pub(super) mod admin;
pub(super) mod chat_completions;
pub(super) mod health;
pub(super) mod jwks;
pub(super) mod me;
pub(super) mod metrics;
pub(super) mod models;
