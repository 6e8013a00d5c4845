//! The chain: every link names all that stands before it.
//!
//! Owns how an entry's digest becomes a link. Never reads an entry and never stores one: whoever holds the lock on a
//! head (see `admission`) moves it along. Nothing here can fail. The same bytes are hashed by the SQL function on
//! Postgres, so the domain bytes are single and public.

use serde::{Deserialize, Serialize};

use crate::{crypto::sha256, domain::digest::Digest};

/// Domain byte before an entry's bytes. It differs from those of the tree (0 and 1), so no hash serves in two places.
pub const ENTRY_DOMAIN: u8 = b'E';
/// Domain byte before previous link, sequence number and digest.
pub const LINK_DOMAIN: u8 = b'L';

/// Digest of an entry: SHA-256 over `E` and the canonical bytes.
pub fn digest(body: &[u8]) -> Digest {
    sha256(&[&[ENTRY_DOMAIN], body])
}

/// Link of an entry: SHA-256 over `L`, the previous link, the sequence number (64 bits, big endian) and the digest.
pub fn link(previous: &Digest, seq: u64, digest: &Digest) -> Digest {
    sha256(&[&[LINK_DOMAIN], &previous.0, &seq.to_be_bytes(), &digest.0])
}

/// Where a chain ends: sequence number and link of its last entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// Sequence number, from 1; 0 before the first entry.
    pub seq: u64,
    /// Link, 32 zero bytes before the first entry.
    pub link: Digest,
}

impl Head {
    /// An empty chain.
    pub const START: Self = Self { seq: 0, link: Digest::ZERO };

    /// The head after one more entry.
    #[must_use]
    pub fn next(self, digest: &Digest) -> Self {
        let seq = self.seq.saturating_add(1);
        Self { seq, link: link(&self.link, seq, digest) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_digest_and_link_are_fixed() {
        let first = digest(b"{}");
        assert_eq!(first, sha256(&[b"E{}"]));
        let mut bytes = vec![b'L'];
        bytes.extend([0; 32]);
        bytes.extend([0, 0, 0, 0, 0, 0, 0, 1]);
        bytes.extend(first.0);
        assert_eq!(Head::START.next(&first), Head { seq: 1, link: sha256(&[&bytes]) });
    }

    #[test]
    fn a_link_depends_on_place_and_past() {
        let entry = digest(b"{}");
        let second = Head::START.next(&entry).next(&entry);
        assert_ne!(second.link, link(&Digest::ZERO, 2, &entry));
        assert_ne!(second.link, Head::START.next(&entry).link);
    }
}
