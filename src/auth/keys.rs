//! API keys as text: `tp_` + organization (16) + secret (32) + checksum (7), in base 32.
//!
//! Owns making and reading them. The checksum is no secret: it only tells slips and nonsense from keys without a read.
//! Never keeps a key: what is stored is its SHA-256.

use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest as _, Sha256};

use crate::domain::{
    digest::Digest,
    ids::{OrgId, base32},
};

const PREFIX: &str = "tp_";
const ORG_CHARS: usize = 16;
const SECRET_BYTES: usize = 20;
const SECRET_CHARS: usize = 32;
const CHECK_CHARS: usize = 7;

/// A key that was just made; shown once.
pub struct KeyText(SecretString);

impl KeyText {
    /// Makes a key for an organization whose id is `org_` and 16 characters. Fails only if the system has no randomness.
    pub fn make(org: &OrgId) -> Result<Self, getrandom::Error> {
        let mut secret = [0; SECRET_BYTES];
        getrandom::fill(&mut secret)?;
        let org = org.as_str().strip_prefix("org_").unwrap_or_default();
        let body = format!("{PREFIX}{org}{}", base32(&secret));
        let key = format!("{body}{}", checksum(&body));
        Ok(Self(SecretString::from(key)))
    }

    /// The text, to be shown once.
    pub fn reveal(&self) -> &str {
        self.0.expose_secret()
    }

    /// The visible beginning.
    pub fn prefix(&self) -> String {
        self.reveal().chars().take(PREFIX.len() + 4).collect()
    }

    /// What is stored.
    pub fn hash(&self) -> Digest {
        hash_key(self.reveal())
    }
}

/// A key that a caller presented.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresentedKey {
    /// Of our own form, checksum right: its organization and hash.
    Agent {
        /// Whose key it claims to be.
        org: OrgId,
        /// SHA-256 over it.
        hash: Digest,
    },
    /// Anything else; only a bootstrap key can look like this.
    Other {
        /// SHA-256 over it.
        hash: Digest,
    },
}

impl PresentedKey {
    /// Reads what stood in the header. Total: any text gives one or the other.
    pub fn read(text: &str) -> Self {
        let hash = hash_key(text);
        match organization(text) {
            Some(org) => Self::Agent { org, hash },
            None => Self::Other { hash },
        }
    }
}

/// The organization inside a well-formed key.
fn organization(text: &str) -> Option<OrgId> {
    let length = PREFIX.len() + ORG_CHARS + SECRET_CHARS + CHECK_CHARS;
    if text.len() != length || !text.is_ascii() {
        return None;
    }
    let (body, check) = text.split_at_checked(length - CHECK_CHARS)?;
    if checksum(body) != check {
        return None;
    }
    let org = body.strip_prefix(PREFIX)?.get(..ORG_CHARS)?;
    OrgId::parse(&format!("org_{org}")).ok()
}

fn checksum(body: &str) -> String {
    base32(&crc32fast::hash(body.as_bytes()).to_be_bytes())
}

/// SHA-256 over a key. A key has 160 random bits, so no salt or stretching is needed.
pub fn hash_key(key: &str) -> Digest {
    Digest(Sha256::digest(key.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn org() -> OrgId {
        OrgId::parse("org_0123456789abcdef").unwrap()
    }

    #[test]
    fn a_key_carries_its_organization() {
        let key = KeyText::make(&org()).unwrap();
        let read = PresentedKey::read(key.reveal());
        assert_eq!(read, PresentedKey::Agent { org: org(), hash: key.hash() });
    }

    #[test]
    fn a_slip_in_any_character_is_seen_without_a_look_up() {
        let key = KeyText::make(&org()).unwrap();
        for at in 0..key.reveal().len() {
            let mut slip = key.reveal().as_bytes().to_vec();
            slip[at] = if slip[at] == b'0' { b'1' } else { b'0' };
            let slip = String::from_utf8(slip).unwrap();
            assert!(matches!(PresentedKey::read(&slip), PresentedKey::Other { .. }), "at {at}");
        }
    }

    #[test]
    fn any_text_is_read_without_a_panic() {
        for text in ["", "tp_", "tp_é", &"é".repeat(29), &"x".repeat(100_000)] {
            assert!(matches!(PresentedKey::read(text), PresentedKey::Other { .. }));
        }
    }
}
