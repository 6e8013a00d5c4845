//! Tables `data_key` and `signing_key`: wrapped and sealed keys.
//!
//! Owns the rows. Never sees a key in clear.

use sqlx::Row;

use super::{ReadTx, Sql, StorageError, WriteTx};
use crate::domain::{clock::Micros, ids::OrgId};

/// A wrapped data key.
#[derive(Clone, Debug)]
pub struct DataKeyRecord {
    /// Whose; the system's own stand under `system`.
    pub org: OrgId,
    /// 32 hexadecimal digits.
    pub id: String,
    /// `active`, `retiring` or `dead`.
    pub state: String,
    /// Which key-encryption key wrapped it.
    pub kek: String,
    /// The wrapped bytes.
    pub wrapped: Vec<u8>,
    /// When it was made.
    pub created_at: Micros,
}

/// A sealed signing key.
#[derive(Clone, Debug)]
pub struct SigningKeyRecord {
    /// Its id: the beginning of the hash of its public half.
    pub kid: String,
    /// `audit`.
    pub purpose: String,
    /// `active` or `retired`.
    pub state: String,
    /// 32 bytes.
    pub public_key: Vec<u8>,
    /// The data key it is sealed under.
    pub data_key_id: String,
    /// The sealed seed.
    pub sealed: Vec<u8>,
    /// When it was made.
    pub created_at: Micros,
}

impl WriteTx {
    /// Writes a data key.
    pub async fn insert_data_key(&mut self, key: &DataKeyRecord) -> Result<(), StorageError> {
        sqlx::query(
            "INSERT INTO data_key (org_id, id, state, kek, wrapped, created_at) VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(key.org.as_str())
        .bind(key.id.as_str())
        .bind(key.state.as_str())
        .bind(key.kek.as_str())
        .bind(&key.wrapped[..])
        .bind(key.created_at)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }

    /// Writes a signing key.
    pub async fn insert_signing_key(&mut self, key: &SigningKeyRecord) -> Result<(), StorageError> {
        sqlx::query(
            "INSERT INTO signing_key (kid, purpose, state, public_key, data_key_id, sealed, created_at) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(key.kid.as_str())
        .bind(key.purpose.as_str())
        .bind(key.state.as_str())
        .bind(&key.public_key[..])
        .bind(key.data_key_id.as_str())
        .bind(&key.sealed[..])
        .bind(key.created_at)
        .execute(&mut *self.tx)
        .await?;
        Ok(())
    }
}

impl Sql {
    /// All data keys of an organization, newest first.
    pub async fn data_keys(&self, org: &OrgId) -> Result<Vec<DataKeyRecord>, StorageError> {
        let rows = sqlx::query(
            "SELECT id, state, kek, wrapped, created_at FROM data_key WHERE org_id = $1 ORDER BY created_at DESC, id",
        )
        .bind(org.as_str())
        .fetch_all(&self.readers)
        .await?;
        let read = |row: &sqlx::sqlite::SqliteRow| {
            Ok(DataKeyRecord {
                org: org.clone(),
                id: row.try_get(0)?,
                state: row.try_get(1)?,
                kek: row.try_get(2)?,
                wrapped: row.try_get(3)?,
                created_at: row.try_get(4)?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// Whether anything is sealed: then a missing key-encryption key must stop the start.
    pub async fn has_data_keys(&self) -> Result<bool, StorageError> {
        Ok(sqlx::query("SELECT 1 FROM data_key LIMIT 1").fetch_optional(&self.readers).await?.is_some())
    }

    /// All signing keys, newest first.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKeyRecord>, StorageError> {
        let rows = sqlx::query(SIGNING).fetch_all(&self.readers).await?;
        rows.iter().map(read_signing).collect()
    }
}

impl ReadTx {
    /// All signing keys, newest first.
    pub async fn signing_keys(&mut self) -> Result<Vec<SigningKeyRecord>, StorageError> {
        let rows = sqlx::query(SIGNING).fetch_all(&mut *self.tx).await?;
        rows.iter().map(read_signing).collect()
    }
}

const SIGNING: &str = "SELECT kid, purpose, state, public_key, data_key_id, sealed, created_at FROM signing_key \
                       ORDER BY created_at DESC, kid";

fn read_signing(row: &sqlx::sqlite::SqliteRow) -> Result<SigningKeyRecord, StorageError> {
    Ok(SigningKeyRecord {
        kid: row.try_get(0)?,
        purpose: row.try_get(1)?,
        state: row.try_get(2)?,
        public_key: row.try_get(3)?,
        data_key_id: row.try_get(4)?,
        sealed: row.try_get(5)?,
        created_at: row.try_get(6)?,
    })
}
