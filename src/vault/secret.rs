//! Types that hold something secret.
//!
//! Owns wiping: what they hold is overwritten when they go. They have no `Debug`, `Display`, `Serialize` or `Clone` on
//! purpose, so that a secret in a log line or a second copy does not compile; do not derive any. What the caller takes
//! out through `expose` and copies is the caller's to wipe.

use zeroize::{Zeroize, Zeroizing};

use crate::vault::VaultError;

/// Secret bytes, wiped on drop.
pub struct SecretBytes(Zeroizing<Vec<u8>>);

impl SecretBytes {
    /// Takes the bytes over without copying them.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The same memory as text; bytes that are not UTF-8 are wiped and give `None`.
    pub fn into_text(mut self) -> Option<SecretText> {
        match String::from_utf8(std::mem::take(&mut *self.0)) {
            Ok(text) => Some(SecretText::new(text)),
            Err(error) => {
                error.into_bytes().zeroize();
                None
            }
        }
    }
}

/// A secret text, wiped on drop.
pub struct SecretText(Zeroizing<String>);

impl SecretText {
    /// Takes the text over without copying it.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A data key in clear: 32 bytes on the heap, so that moving it leaves no copy behind; wiped on drop.
pub struct DataKeyBytes(Box<Zeroizing<[u8; 32]>>);

impl DataKeyBytes {
    /// A new random key.
    pub fn generate() -> Result<Self, VaultError> {
        let mut key = Self(Box::default());
        getrandom::fill(key.0.as_mut_slice()).map_err(|_| VaultError::Entropy)?;
        Ok(key)
    }

    /// Copies exactly 32 bytes; any other length gives `None`.
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        let mut key = Self(Box::default());
        if bytes.len() != key.0.len() {
            return None;
        }
        key.0.copy_from_slice(bytes);
        Some(key)
    }

    /// The key itself.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_bytes_become_text_only_when_they_are_utf_8() {
        assert_eq!(SecretBytes::new(b"sk-canary".to_vec()).into_text().unwrap().expose(), "sk-canary");
        assert!(SecretBytes::new(vec![0xff, 0xfe]).into_text().is_none());
    }

    #[test]
    fn a_data_key_is_32_bytes_and_never_the_same_twice() {
        assert!(DataKeyBytes::from_slice(&[1; 31]).is_none());
        assert!(DataKeyBytes::from_slice(&[1; 33]).is_none());
        assert_eq!(DataKeyBytes::from_slice(&[1; 32]).unwrap().expose(), &[1; 32]);
        assert_ne!(DataKeyBytes::generate().unwrap().expose(), DataKeyBytes::generate().unwrap().expose());
    }
}
