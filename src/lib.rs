//! The map of tappass: one binary between AI agents and model providers that makes every call governed.
//!
//! Owns nothing but the list of modules. A module imports lower floors only, and modules of one floor do not import one
//! another; `tests/it/architecture.rs` checks both and names the few exceptions with their reasons. The life of a
//! request stands in [`pipeline`], the moment that counts in [`admission`], the way from settings to a listener in
//! [`app`].
//!
//! # Floor 0: ground
//!
//! Values and plain tools that every other floor speaks with. No I/O but log lines.
//!
//! - [`domain`]: identifiers, time, money, detections, JSON with positions, the 49 steps and the plans made of them.
//! - [`crypto`]: SHA-256 over parts, Ed25519 keys, the public key set.
//! - [`telemetry`]: log lines and metrics; closed lists of labels, never a prompt or a key.
//!
//! # Floor 1: settings and the way out
//!
//! What is read once at the start, and the only place that builds outgoing clients.
//!
//! - [`config`]: every key with its default, the file, the environment; an unknown key is an error.
//! - [`net`]: outgoing HTTP with its TLS roots, time limits and rules of egress; content encodings.
//!
//! # Floor 2: storage
//!
//! Does what it is told inside the transaction that it is given. Decides nothing.
//!
//! - [`storage`]: the SQLite database, one file per table, and the anchors beside it; the connection to Redis.
//!
//! # Floor 3: services
//!
//! Each knows one thing and no other service; where two are needed, the pipeline joins them.
//!
//! - [`audit`]: entries, chains, signed batches, checkpoints, exports and the offline verifier; pure.
//! - [`auth`]: the form of keys, their hashes, principals and roles.
//! - [`detect`]: one pass over a text, all findings; classification and redaction; pure.
//! - [`limits`]: rate limits by GCRA, kept in Redis, or in memory without it.
//! - [`policy`]: rules, the cascade, Rego, decisions and their memo.
//! - [`providers`]: sending a call and reading what comes back, whole or as events.
//! - [`sessions`]: what is remembered of a caller's session, in Redis or in memory.
//! - [`tenants`]: organizations, projects, agents and what is configured for them.
//! - [`usage`]: tokens, prices, what a call costs.
//! - [`vault`]: provider keys and signing keys, sealed under a data key per organization.
//!
//! # Floor 4: admission
//!
//! The moment that counts. The only place that opens a transaction on the head of a chain.
//!
//! - [`admission`]: snapshots, admissions and their permits, completions, changes, recovery; one writer task commits.
//!
//! # Floor 5: what happens
//!
//! To a request, and in the background.
//!
//! - [`pipeline`]: decide, admit, call, answer; the page of steps.
//! - [`jobs`]: the timetable: checkpoints, sums of what is only counted, data keys ahead of their age.
//!
//! # Floor 6: the door
//!
//! Bytes in, bytes out. The only place that knows axum. Never touches storage.
//!
//! - [`http`]: the page of routes, the page of layers, handlers, the shapes of replies.
//!
//! # Floor 7: assembly
//!
//! Sees everything, decides nothing that a service could.
//!
//! - [`app`]: builds everything in order, starts and stops it; the command line.

pub mod domain;
pub mod crypto;
pub mod telemetry;
pub mod config;
pub mod net;
pub mod storage;
pub mod audit;
pub mod auth;
pub mod detect;
pub mod limits;
pub mod policy;
pub mod providers;
pub mod sessions;
pub mod tenants;
pub mod usage;
pub mod vault;
pub mod admission;
pub mod pipeline;
pub mod http;
pub mod jobs;
pub mod app;
