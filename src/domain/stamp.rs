//! Which configuration a decision was made under.
//!
//! Owns the triple that the head, every snapshot and every admission carry. Never compares numbers alone: after a lost
//! commit the same number may mean something else, so equality includes the tag (admission.md rule 12).

use serde::{Deserialize, Serialize};

use super::digest::Digest;

/// `config_version` (number and tag) and `config_digest` of an organization.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ConfigStamp {
    /// Counts the changes of the organization from 1; 0 is "nothing yet".
    pub version: u64,
    /// The link of the change that made this version.
    pub tag: Digest,
    /// Hash over the configuration's content.
    pub digest: Digest,
}

impl ConfigStamp {
    /// Before the first change.
    pub const NONE: Self = Self { version: 0, tag: Digest::ZERO, digest: Digest::ZERO };
}
