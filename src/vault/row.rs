//! A wrapped data key as it is stored.
//!
//! Owns its identity and its states. Holds nothing secret: the key inside is wrapped. A text that is no identifier or no
//! state gives `None`.

use std::fmt;

use crate::domain::{clock::Micros, ids::OrgId};

/// Names one data key for ever: 16 random bytes, written as 32 lower-case hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DataKeyId(pub [u8; 16]);

impl DataKeyId {
    /// Reads 32 lower-case hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 16];
        let lower = !text.bytes().any(|byte| byte.is_ascii_uppercase());
        (lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(Self(bytes))
    }
}

impl fmt::Display for DataKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

/// Where a data key stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataKeyState {
    /// New rows are sealed under it; an organization has one.
    Active,
    /// Its rows are being rewritten under the active one; they still open.
    Retiring,
    /// No row is left; neither seals nor opens.
    Dead,
}

impl DataKeyState {
    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Retiring => "retiring",
            Self::Dead => "dead",
        }
    }

    /// Reads the stored word.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Retiring, Self::Dead].into_iter().find(|state| state.as_str() == text)
    }
}

/// One data key, wrapped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataKeyRow {
    /// Whose rows it seals.
    pub org: OrgId,
    /// Its name.
    pub id: DataKeyId,
    /// Its place in life.
    pub state: DataKeyState,
    /// What wrapped it, `provider:version`, for people and for finding rows to wrap again; `wrapped` says it too.
    pub kek: String,
    /// The wrapped key, opaque outside its provider.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: Micros,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_key_id_reads_what_it_writes_and_nothing_else() {
        let id = DataKeyId([0xab; 16]);
        assert_eq!(DataKeyId::parse(&id.to_string()), Some(id));
        for wrong in ["", "ab", &"AB".repeat(16), &"ab".repeat(17), &"zz".repeat(16)] {
            assert_eq!(DataKeyId::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_state_reads_what_it_writes() {
        for state in [DataKeyState::Active, DataKeyState::Retiring, DataKeyState::Dead] {
            assert_eq!(DataKeyState::parse(state.as_str()), Some(state));
        }
        assert_eq!(DataKeyState::parse("alive"), None);
    }
}
