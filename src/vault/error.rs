//! Why the vault did not seal or open.
//!
//! Owns the one error enum of this module. Never carries secret material, row bytes or stored text: messages may be
//! logged. A refusal is final; only an unreachable KMS is worth another try.

use crate::vault::kms::KmsError;

/// What a caller of the vault can act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// The data key is not cached and the KMS cannot be asked now: reply 503 and name the KMS.
    #[error("the key management service cannot be reached and no cached data key is young enough")]
    KmsUnavailable(#[source] KmsError),
    /// The KMS answered no: the wrapped data key was altered, belongs elsewhere, or access was withdrawn.
    #[error("the key management service refused the data key")]
    KmsRefused(#[source] KmsError),
    /// The row was written by a newer or an unknown program.
    #[error("a sealed row has the unknown format {0}")]
    UnknownFormat(u8),
    /// The row was sealed under another data key, or the data key is another organization's: load the right one.
    #[error("a sealed row does not belong to the data key that was given")]
    WrongDataKey,
    /// The state of the data key forbids the operation: writes want an active one, reads any but a dead one.
    #[error("the data key is in a state that forbids this use")]
    DataKeyState,
    /// The row was altered or moved from its place.
    #[error("a sealed row was refused: {0}")]
    Refused(Refusal),
    /// More clear bytes than one row may hold.
    #[error("more than {} bytes in one sealed row", crate::vault::MAX_CLEAR_BYTES)]
    TooLarge,
    /// The system gave no random bytes.
    #[error("the system's source of randomness failed")]
    Entropy,
}

/// Which check a sealed row did not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Shorter than an empty row.
    #[error("it is too short")]
    Truncated,
    /// The key commitment differs: other key, other salt, or an altered commitment.
    #[error("its key commitment does not match")]
    Commitment,
    /// The authentication tag differs: altered, or sealed for another organization, credential or field.
    #[error("it was altered or belongs elsewhere")]
    Tag,
}

impl VaultError {
    /// Whether the same call may succeed a little later.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::KmsUnavailable(_) => true,
            Self::KmsRefused(_)
            | Self::UnknownFormat(_)
            | Self::WrongDataKey
            | Self::DataKeyState
            | Self::Refused(_)
            | Self::TooLarge
            | Self::Entropy => false,
        }
    }
}

impl From<KmsError> for VaultError {
    fn from(error: KmsError) -> Self {
        if error.is_retryable() { Self::KmsUnavailable(error) } else { Self::KmsRefused(error) }
    }
}
