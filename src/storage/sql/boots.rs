//! Table `boot`: runs of the process.
//!
//! Owns registering and closing boots. Never reopens one.

use sqlx::Row;

use super::{ReadTx, StorageError, WriteTx};
use crate::domain::{clock::Micros, ids::BootId};

impl WriteTx {
    /// Registers this run.
    pub async fn insert_boot(&mut self, boot: &BootId, now: Micros) -> Result<(), StorageError> {
        sqlx::query("INSERT INTO boot (id, started_at, lease_until, closed) VALUES ($1, $2, $2, 0)")
            .bind(boot.as_str())
            .bind(now)
            .execute(&mut *self.tx)
            .await?;
        Ok(())
    }

    /// Closes one boot.
    pub async fn close_boot(&mut self, boot: &BootId) -> Result<(), StorageError> {
        sqlx::query("UPDATE boot SET closed = 1 WHERE id = $1").bind(boot.as_str()).execute(&mut *self.tx).await?;
        Ok(())
    }

    /// Closes every boot but this one; answers those that were open. Right only where one process owns the database.
    pub async fn close_other_boots(&mut self, own: &BootId) -> Result<Vec<String>, StorageError> {
        let rows = sqlx::query("UPDATE boot SET closed = 1 WHERE id <> $1 AND closed = 0 RETURNING id")
            .bind(own.as_str())
            .fetch_all(&mut *self.tx)
            .await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}

impl ReadTx {
    /// The boots that are closed.
    pub async fn closed_boots(&mut self) -> Result<Vec<String>, StorageError> {
        let rows = sqlx::query("SELECT id FROM boot WHERE closed <> 0").fetch_all(&mut *self.tx).await?;
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }
}
