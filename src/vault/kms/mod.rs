//! Key-encryption keys: who wraps the data keys.
//!
//! Owns the seam between the vault and whoever holds the key-encryption key, and the frame of wrapped blobs:
//!
//! ```text
//! blob = fmt(1) | length (2 bytes, big end first) provider | length (2) key version | body
//! ```
//!
//! A key-encryption key never leaves its provider. Never caches, never retries beyond what a provider does inside one
//! call. A provider bounds its own calls in time, and fails with a `KmsError` that says whether to ask again.

use async_trait::async_trait;

use crate::vault::DataKeyBytes;

pub mod local;

/// Wraps and unwraps data keys.
#[async_trait]
pub trait Kms: Send + Sync {
    /// The provider's name, as in wrapped blobs: at most 32 graphic ASCII characters.
    fn name(&self) -> &str;

    /// Wraps a data key; the blob opens only with the same `aad`.
    async fn wrap(&self, key: &DataKeyBytes, aad: &[u8]) -> Result<Vec<u8>, KmsError>;

    /// Opens a blob that this provider wrapped with the same `aad`.
    async fn unwrap(&self, wrapped: &[u8], aad: &[u8]) -> Result<Unwrapped, KmsError>;
}

/// What an unwrap yields.
pub struct Unwrapped {
    /// The data key in clear.
    pub key: DataKeyBytes,
    /// It was wrapped by a version that is no longer the primary one: wrap it again.
    pub stale: bool,
}

/// Why a provider did not wrap or unwrap. Reasons are the provider's own words, never key material.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KmsError {
    /// Not reached, or too slow, or overloaded.
    #[error("the provider cannot be reached: {reason}")]
    Unavailable {
        /// What happened.
        reason: String,
    },
    /// Reached, and the answer is no: permission withdrawn, key version disabled or destroyed.
    #[error("the provider denied the use of its key: {reason}")]
    Denied {
        /// What it said.
        reason: String,
    },
    /// The blob was altered, or wrapped for another organization, data key or deployment.
    #[error("the wrapped key was altered or belongs elsewhere")]
    Refused,
    /// The blob names a key that this provider does not hold.
    #[error("wrapped by `{provider}` version `{version}`, which is not configured here")]
    UnknownKey {
        /// The provider that the blob names.
        provider: String,
        /// The key version that the blob names.
        version: String,
    },
    /// The blob does not follow the frame.
    #[error("the wrapped key is malformed")]
    Malformed,
    /// The system gave no random bytes.
    #[error("the system's source of randomness failed")]
    Entropy,
}

impl KmsError {
    /// Whether the same call may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Unavailable { .. } => true,
            Self::Denied { .. } | Self::Refused | Self::UnknownKey { .. } | Self::Malformed | Self::Entropy => false,
        }
    }
}

const BLOB_FORMAT_V1: u8 = 1;
const MAX_PROVIDER_BYTES: usize = 32;
/// Cloud providers name a key version by a path of several hundred bytes.
const MAX_VERSION_BYTES: usize = 512;

/// A wrapped blob, taken apart but not verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Blob<'a> {
    /// Who wrapped it.
    pub provider: &'a str,
    /// With which version of its key.
    pub version: &'a str,
    /// The frame before the body, for binding it into the provider's AAD.
    pub header: &'a [u8],
    /// What the provider made.
    pub body: &'a [u8],
}

impl<'a> Blob<'a> {
    /// Reads the frame; the texts are bounded and graphic ASCII, so that they may stand in messages.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, KmsError> {
        let Some((&BLOB_FORMAT_V1, rest)) = bytes.split_first() else { return Err(KmsError::Malformed) };
        let (provider, rest) = split_text(rest, MAX_PROVIDER_BYTES)?;
        let (version, body) = split_text(rest, MAX_VERSION_BYTES)?;
        let (header, _) = bytes.split_at_checked(bytes.len() - body.len()).ok_or(KmsError::Malformed)?;
        Ok(Self { provider, version, header, body })
    }

    /// What wrapped it, `provider:version`.
    pub fn kek(&self) -> String {
        format!("{}:{}", self.provider, self.version)
    }
}

/// The start of a blob, before the body.
pub fn blob_header(provider: &str, version: &str) -> Result<Vec<u8>, KmsError> {
    let mut header = vec![BLOB_FORMAT_V1];
    for (text, most) in [(provider, MAX_PROVIDER_BYTES), (version, MAX_VERSION_BYTES)] {
        let length = u16::try_from(text.len()).map_err(|_| KmsError::Malformed)?;
        if !is_printable(text.as_bytes(), most) {
            return Err(KmsError::Malformed);
        }
        header.extend_from_slice(&length.to_be_bytes());
        header.extend_from_slice(text.as_bytes());
    }
    Ok(header)
}

fn split_text(bytes: &[u8], most: usize) -> Result<(&str, &[u8]), KmsError> {
    let (length, rest) = bytes.split_first_chunk().ok_or(KmsError::Malformed)?;
    let (text, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length))).ok_or(KmsError::Malformed)?;
    let text = std::str::from_utf8(text).ok().filter(|text| is_printable(text.as_bytes(), most));
    Ok((text.ok_or(KmsError::Malformed)?, rest))
}

fn is_printable(text: &[u8], most: usize) -> bool {
    (1..=most).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_blob_reads_what_was_framed() {
        let mut bytes = blob_header("local", "0011").unwrap();
        let header = bytes.clone();
        bytes.extend_from_slice(b"body");
        let blob = Blob::parse(&bytes).unwrap();
        assert_eq!(blob, Blob { provider: "local", version: "0011", header: &header, body: b"body" });
        assert_eq!(blob.kek(), "local:0011");
    }

    #[test]
    fn a_frame_refuses_texts_that_a_message_should_not_carry() {
        for (provider, version) in [("", "1"), ("local", ""), ("lo cal", "1"), ("local", "\n"), ("é", "1")] {
            assert!(blob_header(provider, version).is_err(), "{provider:?} {version:?}");
        }
        assert!(blob_header(&"p".repeat(33), "1").is_err());
        assert!(blob_header("p", &"v".repeat(513)).is_err());
        assert!(Blob::parse(b"\x01\x00\x02a\n\x00\x011").is_err());
    }

    #[test]
    fn only_an_unreachable_provider_is_worth_another_try() {
        assert!(KmsError::Unavailable { reason: "timed out".into() }.is_retryable());
        assert!(!KmsError::Denied { reason: "permission".into() }.is_retryable());
        assert!(!KmsError::Refused.is_retryable());
    }

    proptest! {
        #[test]
        fn parsing_a_blob_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..64), framed in any::<bool>()) {
            let mut input = if framed { blob_header("local", "1").unwrap() } else { Vec::new() };
            input.extend_from_slice(&bytes);
            if let Ok(blob) = Blob::parse(&input) {
                prop_assert_eq!([blob.header, blob.body].concat(), input);
            }
        }
    }
}
