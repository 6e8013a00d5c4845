//! Secrets at rest: provider keys and signing keys, sealed under a data key per organization.
//!
//! Owns sealing and opening of rows (`envelope`), the data keys that do it (`data_keys`) and whoever wraps those (`kms`).
//! Never reads a database, never decides who may open, never hands out a data key or a key-encryption key. There is no
//! plain path: development seals the same way under a local key. A row opens only for the organization, credential,
//! field and data key that it was sealed for. With the KMS away, cached data keys serve until their hard age ends, then
//! opening fails with `VaultError::KmsUnavailable`.
//!
//! A signing key is sealed like a provider key, under a credential id and a field name of its own.

use std::sync::Arc;

use subtle::ConstantTimeEq;

use crate::domain::{
    clock::Clock,
    ids::{CredentialId, OrgId},
};

mod data_keys;
mod envelope;
mod error;
pub mod kms;
mod row;
mod secret;
#[cfg(test)]
mod tests;

pub use data_keys::{DataKeyLimits, DataKeyName, DueKey};
pub use envelope::MAX_CLEAR_BYTES;
pub use error::{Refusal, VaultError};
pub use row::{DataKeyId, DataKeyRow, DataKeyState};
pub use secret::{DataKeyBytes, SecretBytes, SecretText};

use data_keys::{DataKeys, UnwrapCall};
use envelope::Place;
use kms::{Blob, Kms, KmsError};

/// Seals and opens rows.
pub struct Vault {
    kms: Arc<dyn Kms>,
    clock: Arc<dyn Clock>,
    deployment: String,
    data_keys: DataKeys,
}

impl Vault {
    /// A vault over one provider of key-encryption keys. `deployment` is bound into every wrapped data key: a copy of
    /// the database opens under no other name.
    pub fn new(kms: Arc<dyn Kms>, clock: Arc<dyn Clock>, deployment: &str, limits: DataKeyLimits) -> Self {
        let data_keys = DataKeys::new(Arc::clone(&kms), Arc::clone(&clock), limits);
        Self { kms, clock, deployment: deployment.to_owned(), data_keys }
    }

    /// Makes and wraps a new active data key, for the caller to store before anything is sealed under it.
    ///
    /// It is unwrapped once, so that no row is ever sealed under a key that does not come back; that also caches it.
    pub async fn new_data_key(&self, org: &OrgId) -> Result<DataKeyRow, VaultError> {
        let mut id = DataKeyId([0; 16]);
        getrandom::fill(&mut id.0).map_err(|_| VaultError::Entropy)?;
        let key = DataKeyBytes::generate()?;
        let wrapped = self.kms.wrap(&key, &self.wrap_aad(org, id)).await?;
        let kek = Blob::parse(&wrapped)?.kek();
        let created_at = self.clock.now();
        let row = DataKeyRow { org: org.clone(), id, state: DataKeyState::Active, kek, wrapped, created_at };
        let back = self.data_keys.get(&name_of(&row), || self.unwrap_call(&row)).await?;
        if !bool::from(back.key.expose().ct_eq(key.expose())) {
            self.data_keys.drop_org(org);
            return Err(VaultError::KmsRefused(KmsError::Refused));
        }
        Ok(row)
    }

    /// Seals one row under an active data key.
    pub async fn seal(
        &self,
        data_key: &DataKeyRow,
        org: &OrgId,
        credential: &CredentialId,
        field: &str,
        clear: &[u8],
    ) -> Result<Vec<u8>, VaultError> {
        check_use(data_key, org, &[DataKeyState::Active])?;
        let held = self.data_keys.get(&name_of(data_key), || self.unwrap_call(data_key)).await?;
        envelope::seal(&held.key, &data_key.id, &Place { org, credential, field }, clear)
    }

    /// Opens one row, asking the KMS for the data key if it is not cached.
    pub async fn open(
        &self,
        data_key: &DataKeyRow,
        org: &OrgId,
        credential: &CredentialId,
        field: &str,
        sealed: &[u8],
    ) -> Result<SecretBytes, VaultError> {
        if let Some(opened) = self.open_cached(data_key, org, credential, field, sealed) {
            return opened;
        }
        let held = self.data_keys.get(&name_of(data_key), || self.unwrap_call(data_key)).await?;
        envelope::open(&held.key, &data_key.id, &Place { org, credential, field }, sealed)
    }

    /// Opens one row without waiting. `None`: its data key is not cached, so `open` would ask the KMS. What is plainly
    /// wrong is refused here already and costs no call.
    pub fn open_cached(
        &self,
        data_key: &DataKeyRow,
        org: &OrgId,
        credential: &CredentialId,
        field: &str,
        sealed: &[u8],
    ) -> Option<Result<SecretBytes, VaultError>> {
        if let Err(error) = check_open(data_key, org, sealed) {
            return Some(Err(error));
        }
        let held = self.data_keys.cached(&name_of(data_key))?;
        Some(envelope::open(&held.key, &data_key.id, &Place { org, credential, field }, sealed))
    }

    /// Which data key a sealed row needs, for finding it. Nothing is verified yet.
    pub fn data_key_of(sealed: &[u8]) -> Result<DataKeyId, VaultError> {
        envelope::data_key_of(sealed)
    }

    /// Unwraps a data key afresh, cached or not: the pre-warm job. `true` says that its key-encryption key has a newer
    /// version, so that it should be wrapped again. A failure leaves a cached key serving until its age ends.
    pub async fn warm(&self, data_key: &DataKeyRow) -> Result<bool, VaultError> {
        check_use(data_key, &data_key.org, &[DataKeyState::Active, DataKeyState::Retiring])?;
        let held = self.data_keys.refresh(&name_of(data_key), || self.unwrap_call(data_key)).await?;
        Ok(held.stale)
    }

    /// Cached data keys that should be warmed, those used last first. Also wipes those past their hard age, so it is
    /// worth a call every minute or so.
    pub fn refresh_due(&self) -> Vec<DueKey> {
        self.data_keys.refresh_due()
    }

    /// Wipes the cached data keys of an organization: after a revocation or a shred.
    pub fn drop_org(&self, org: &OrgId) {
        self.data_keys.drop_org(org);
    }

    fn unwrap_call(&self, data_key: &DataKeyRow) -> UnwrapCall {
        let aad = self.wrap_aad(&data_key.org, data_key.id);
        UnwrapCall { wrapped: data_key.wrapped.clone(), aad }
    }

    /// What a wrapped data key is bound to: a copy under another organization, id or deployment does not unwrap.
    fn wrap_aad(&self, org: &OrgId, id: DataKeyId) -> Vec<u8> {
        envelope::bind(b"vault-dek/v1", &[self.deployment.as_bytes(), org.as_str().as_bytes(), &id.0])
    }
}

fn name_of(data_key: &DataKeyRow) -> DataKeyName {
    DataKeyName { org: data_key.org.clone(), id: data_key.id }
}

fn check_use(data_key: &DataKeyRow, org: &OrgId, allowed: &[DataKeyState]) -> Result<(), VaultError> {
    if data_key.org != *org {
        return Err(VaultError::WrongDataKey);
    }
    if allowed.contains(&data_key.state) { Ok(()) } else { Err(VaultError::DataKeyState) }
}

fn check_open(data_key: &DataKeyRow, org: &OrgId, sealed: &[u8]) -> Result<(), VaultError> {
    check_use(data_key, org, &[DataKeyState::Active, DataKeyState::Retiring])?;
    if envelope::data_key_of(sealed)? == data_key.id { Ok(()) } else { Err(VaultError::WrongDataKey) }
}
