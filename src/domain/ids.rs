//! Identifiers: one type per thing that has a name.
//!
//! Owns their syntax (`[A-Za-z0-9_.:-]`, 1 to 96 bytes). Never makes chance of its own: random parts come from the
//! caller. A text that does not fit is an `IdError` that says what would.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// Longest identifier, in bytes.
pub const MAX_ID_BYTES: usize = 96;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} must be 1 to {MAX_ID_BYTES} characters out of letters, digits and `_.:-`")]
pub struct IdError {
    what: &'static str,
}

macro_rules! id {
    ($(#[$meta:meta])* $name:ident, $what:literal) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Accepts a text that follows the syntax of identifiers.
            pub fn parse(text: &str) -> Result<Self, IdError> {
                let fits = (1..=MAX_ID_BYTES).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.:-".contains(&b));
                if fits { Ok(Self(Arc::from(text))) } else { Err(IdError { what: $what }) }
            }

            /// The text of the identifier.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Self::parse(&text).map_err(D::Error::custom)
            }
        }
    };
}

id!(/// An organization, the customer: `org_` and 16 characters of base 32.
    OrgId, "an organization id");
id!(/// A project inside an organization.
    ProjectId, "a project id");
id!(/// An agent inside a project.
    AgentId, "an agent id");
id!(/// One API key.
    KeyId, "a key id");
id!(/// One stored provider credential; a rolled credential is a new one.
    CredentialId, "a credential id");
id!(/// One policy.
    PolicyId, "a policy id");
id!(/// One run of one process: random, new at every start (admission.md rule 7).
    BootId, "a boot id");

/// Names one entry for ever: the boot that made it and that boot's own counter for the organization.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId {
    /// Whose chain.
    pub org: OrgId,
    /// Which run of which process.
    pub boot: BootId,
    /// Counts from 1 within (organization, boot).
    pub counter: u64,
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.org, self.boot, self.counter)
    }
}

/// Crockford's base 32 in lower case: no letters that are mistaken for digits.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Renders bytes in base 32, five bits a character; the last character is padded with zero bits.
pub fn base32(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut acc, mut bits) = (0_u32, 0_u32);
    for byte in bytes {
        acc = (acc << 8) | u32::from(*byte);
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            text.push(char::from(ALPHABET[(acc >> bits) as usize & 31]));
        }
    }
    if bits > 0 {
        text.push(char::from(ALPHABET[(acc << (5 - bits)) as usize & 31]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_refuses_white_space_and_emptiness() {
        assert_eq!(OrgId::parse("org_a").unwrap().as_str(), "org_a");
        assert!(AgentId::parse("").is_err());
        assert!(AgentId::parse("a b").is_err());
        assert!(AgentId::parse(&"a".repeat(97)).is_err());
    }

    #[test]
    fn base32_packs_five_bits_a_character() {
        assert_eq!(base32(&[0xff; 5]), "zzzzzzzz");
        assert_eq!(base32(&[0]), "00");
        assert_eq!(base32(&[7; 10]).len(), 16);
    }
}
