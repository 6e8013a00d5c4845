//! Provider keys: where the vault and the stored rows meet.
//!
//! Owns which data key an organization seals under, kept in memory once read. Never keeps a provider key: one is opened
//! for a call and dropped with it. KMS away: what is cached serves, then `CredentialError::Kms`.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    domain::ids::{CredentialId, OrgId},
    storage::{Sql, StorageError, sql::DataKeyRecord},
    tenants::Credential,
    vault::{DataKeyId, DataKeyRow, DataKeyState, SecretText, Vault, VaultError},
};

/// The field name that provider keys are sealed under.
const FIELD: &str = "api_key";

/// Why a credential cannot be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The key management service does not answer and nothing cached is young enough.
    #[error("the key management service (KMS) cannot be reached")]
    Kms(#[source] VaultError),
    /// The row does not open: altered, moved, or of an unknown form.
    #[error("the stored credential does not open")]
    Vault(#[source] VaultError),
    /// The row or its data key does not make sense.
    #[error("the stored credential does not make sense")]
    Inconsistent,
    /// The database does not answer.
    #[error("the database does not answer")]
    Storage(#[from] StorageError),
}

impl From<VaultError> for CredentialError {
    fn from(error: VaultError) -> Self {
        if error.is_retryable() { Self::Kms(error) } else { Self::Vault(error) }
    }
}

/// Seals and opens what is stored.
pub struct Credentials {
    vault: Vault,
    sql: Sql,
    data_keys: Mutex<HashMap<(OrgId, String), Arc<DataKeyRow>>>,
}

impl Credentials {
    /// Over a vault and a database.
    pub fn new(vault: Vault, sql: Sql) -> Self {
        Self { vault, sql, data_keys: Mutex::default() }
    }

    /// Seals bytes for an organization; makes its data key at the first time. Answers the data key's id and the row.
    pub async fn seal_bytes(
        &self,
        org: &OrgId,
        credential: &CredentialId,
        field: &str,
        clear: &[u8],
    ) -> Result<(String, Vec<u8>), CredentialError> {
        let key = self.active(org).await?;
        let sealed = self.vault.seal(&key, org, credential, field, clear).await?;
        Ok((key.id.to_string(), sealed))
    }

    /// Opens bytes that `seal_bytes` made.
    pub async fn open_bytes(
        &self,
        org: &OrgId,
        credential: &CredentialId,
        field: &str,
        data_key_id: &str,
        sealed: &[u8],
    ) -> Result<crate::vault::SecretBytes, CredentialError> {
        let key = self.data_key(org, data_key_id).await?;
        Ok(self.vault.open(&key, org, credential, field, sealed).await?)
    }

    /// Seals a provider's key: the data key's id and the base64 text of the row.
    pub async fn seal(
        &self,
        org: &OrgId,
        credential: &CredentialId,
        key: &SecretText,
    ) -> Result<(String, String), CredentialError> {
        let (data_key_id, sealed) = self.seal_bytes(org, credential, FIELD, key.expose().as_bytes()).await?;
        Ok((data_key_id, STANDARD.encode(sealed)))
    }

    /// Opens a provider's key for one call.
    pub async fn open(&self, org: &OrgId, credential: &Credential) -> Result<SecretText, CredentialError> {
        let sealed = STANDARD.decode(&credential.sealed).map_err(|_| CredentialError::Inconsistent)?;
        let id = &credential.credential_id;
        let opened = self.open_bytes(org, id, FIELD, &credential.data_key_id, &sealed).await?;
        opened.into_text().ok_or(CredentialError::Inconsistent)
    }

    /// Unwraps what is due ahead of its age; a failure leaves what is cached.
    pub async fn warm(&self) {
        for due in self.vault.refresh_due() {
            let row = self.data_key(&due.name.org, &due.name.id.to_string()).await;
            let warmed = match row {
                Ok(row) => self.vault.warm(&row).await.map(|_| ()).map_err(CredentialError::from),
                Err(error) => Err(error),
            };
            if let Err(error) = warmed {
                tracing::warn!(org.id = %due.name.org, error = &error as &dyn std::error::Error, "a data key was not refreshed");
            }
        }
    }

    async fn active(&self, org: &OrgId) -> Result<Arc<DataKeyRow>, CredentialError> {
        let stored = self.sql.data_keys(org).await?;
        if let Some(record) = stored.into_iter().find(|record| record.state == DataKeyState::Active.as_str()) {
            return self.keep(record);
        }
        let made = self.vault.new_data_key(org).await?;
        let record = DataKeyRecord {
            org: org.clone(),
            id: made.id.to_string(),
            state: made.state.as_str().to_owned(),
            kek: made.kek.clone(),
            wrapped: made.wrapped.clone(),
            created_at: made.created_at,
        };
        if self.sql.insert_data_key(&record).await? {
            return Ok(Arc::new(made));
        }
        // Another instance made one meanwhile: that one it is.
        let stored = self.sql.data_keys(org).await?;
        let active = stored.into_iter().find(|record| record.state == DataKeyState::Active.as_str());
        self.keep(active.ok_or(CredentialError::Inconsistent)?)
    }

    async fn data_key(&self, org: &OrgId, id: &str) -> Result<Arc<DataKeyRow>, CredentialError> {
        let known = {
            let keys = self.data_keys.lock().unwrap_or_else(PoisonError::into_inner);
            keys.get(&(org.clone(), id.to_owned())).cloned()
        };
        if let Some(key) = known {
            return Ok(key);
        }
        let stored = self.sql.data_keys(org).await?;
        let record = stored.into_iter().find(|record| record.id == id).ok_or(CredentialError::Inconsistent)?;
        self.keep(record)
    }

    fn keep(&self, record: DataKeyRecord) -> Result<Arc<DataKeyRow>, CredentialError> {
        let name = (record.org.clone(), record.id.clone());
        let row = Arc::new(DataKeyRow {
            id: DataKeyId::parse(&record.id).ok_or(CredentialError::Inconsistent)?,
            state: DataKeyState::parse(&record.state).ok_or(CredentialError::Inconsistent)?,
            org: record.org,
            kek: record.kek,
            wrapped: record.wrapped,
            created_at: record.created_at,
        });
        let mut keys = self.data_keys.lock().unwrap_or_else(PoisonError::into_inner);
        keys.insert(name, Arc::clone(&row));
        Ok(row)
    }
}
