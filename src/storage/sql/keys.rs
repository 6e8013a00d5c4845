//! Tables `data_key` and `signing_key`: wrapped and sealed keys.
//!
//! Owns the rows. Never sees a key in clear.

use super::{Row, Sql, StorageError, args};
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

impl Sql {
    /// Writes a data key. False: another process made the organization's active one meanwhile.
    pub async fn insert_data_key(&self, key: &DataKeyRecord) -> Result<bool, StorageError> {
        let text = "INSERT INTO data_key (org_id, id, state, kek, wrapped, created_at) VALUES ($1, $2, $3, $4, $5, $6) \
                    ON CONFLICT DO NOTHING RETURNING 1";
        let DataKeyRecord { org, id, state, kek, wrapped, created_at } = key;
        let args = args![org.as_str(), id.as_str(), state.as_str(), kek.as_str(), wrapped, *created_at];
        Ok(!self.write(text, args).await?.is_empty())
    }

    /// Writes a signing key.
    pub async fn insert_signing_key(&self, key: &SigningKeyRecord) -> Result<(), StorageError> {
        let text = "INSERT INTO signing_key (kid, purpose, state, public_key, data_key_id, sealed, created_at) \
                    VALUES ($1, $2, $3, $4, $5, $6, $7)";
        let SigningKeyRecord { kid, purpose, state, public_key, data_key_id, sealed, created_at } = key;
        let (kid, purpose, state) = (kid.as_str(), purpose.as_str(), state.as_str());
        self.write(text, args![kid, purpose, state, public_key, data_key_id.as_str(), sealed, *created_at]).await?;
        Ok(())
    }

    /// All data keys of an organization, newest first.
    pub async fn data_keys(&self, org: &OrgId) -> Result<Vec<DataKeyRecord>, StorageError> {
        let text = "SELECT id, state, kek, wrapped, created_at FROM data_key WHERE org_id = $1 \
                    ORDER BY created_at DESC, id";
        let read = |row: &Row| {
            Ok(DataKeyRecord {
                org: org.clone(),
                id: row.text(0)?,
                state: row.text(1)?,
                kek: row.text(2)?,
                wrapped: row.bytes(3)?,
                created_at: row.int(4)?,
            })
        };
        self.read(text, args![org.as_str()]).await?.iter().map(read).collect()
    }

    /// Whether anything is sealed: then a missing key-encryption key must stop the start.
    pub async fn has_data_keys(&self) -> Result<bool, StorageError> {
        Ok(!self.read("SELECT 1 FROM data_key LIMIT 1", args![]).await?.is_empty())
    }

    /// All signing keys, newest first.
    pub async fn signing_keys(&self) -> Result<Vec<SigningKeyRecord>, StorageError> {
        self.read(SIGNING, args![]).await?.iter().map(read_signing).collect()
    }
}

const SIGNING: &str = "SELECT kid, purpose, state, public_key, data_key_id, sealed, created_at FROM signing_key \
                       ORDER BY created_at DESC, kid";

fn read_signing(row: &Row) -> Result<SigningKeyRecord, StorageError> {
    Ok(SigningKeyRecord {
        kid: row.text(0)?,
        purpose: row.text(1)?,
        state: row.text(2)?,
        public_key: row.bytes(3)?,
        data_key_id: row.text(4)?,
        sealed: row.bytes(5)?,
        created_at: row.int(6)?,
    })
}
