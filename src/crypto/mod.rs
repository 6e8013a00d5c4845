//! Hashing, signing and comparing.
//!
//! Owns SHA-256 over parts, Ed25519 keys and their public key set. Never stores a key, never seals (that is `vault`)
//! and never decides what is signed: callers own their domain bytes. Fails as a `CryptoError`, which says nothing of
//! secrets.

pub mod ed25519;
pub mod jwks;

pub use self::{
    ed25519::{Seed, SigningKey, VerifyingKey},
    jwks::Jwks,
};

use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use crate::domain::digest::Digest;

/// What can go wrong with keys.
#[derive(Debug, thiserror::Error)]
pub enum CryptoError {
    /// The system's source of chance failed.
    #[error("the system gives no random bytes")]
    Random(#[source] getrandom::Error),
    /// The library did not take the bytes as a key.
    #[error("these bytes are no Ed25519 key")]
    Key,
    /// The text is no key set, or one of its Ed25519 keys is spoiled.
    #[error("this is no usable key set: {0}")]
    KeySet(String),
}

/// SHA-256 over the parts, one after the other. The parts are not separated: lengths that vary are the caller's to
/// encode.
pub fn sha256(parts: &[&[u8]]) -> Digest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part);
    }
    Digest(hash.finalize().into())
}

/// Whether two secrets are equal, in a time that depends on their lengths only.
pub fn is_same_secret(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hash_like_their_concatenation() {
        let known = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(sha256(&[b"abc"]).to_string(), known);
        assert_eq!(sha256(&[b"a", b"", b"bc"]).to_string(), known);
    }

    #[test]
    fn secrets_are_equal_only_byte_for_byte() {
        assert!(is_same_secret(b"abc", b"abc"));
        assert!(!is_same_secret(b"abc", b"abd"));
        assert!(!is_same_secret(b"abc", b"ab"));
    }
}
