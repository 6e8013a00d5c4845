//! The record: what an entry is, how entries are chained and signed, and how anybody checks that offline.
//!
//! Owns the formats and the pure functions over them. Never opens a database, reads a clock or decides what is
//! recorded: `admission` appends, `storage` keeps the exact bytes, and the verifier needs only an export, public keys
//! and a checkpoint kept outside. Each part fails with its own error; the verifier never fails, it reports.

pub mod batch;
pub mod chain;
pub mod checkpoint;
pub mod entry;
pub mod export;
pub mod merkle;
pub mod verify;

pub use self::{
    batch::{Batch, BatchRow},
    chain::Head,
    checkpoint::Checkpoint,
    entry::{Entry, EntryBody, EntryRef, Header, kind},
    merkle::Frontier,
    verify::{Evidence, Report, Verifier},
};

use serde::{Deserialize, Serialize};

use crate::domain::digest::Digest;

/// An entry as it is stored and exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredEntry {
    /// Place in the chain, from 1.
    pub seq: u64,
    /// Its link.
    pub link: Digest,
    /// Its digest.
    pub digest: Digest,
    /// The exact canonical text.
    pub body: String,
}
