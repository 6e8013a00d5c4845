//! Tables `boot` and `boot_snapshot`: runs of the process, their leases, and what each has loaded.
//!
//! Owns registering, renewing and closing boots, all by the database's clock. Never reopens one.

use std::time::Duration;

use super::{ReadTx, Sql, StorageError, args, by_clock, micros};
use crate::domain::{
    clock::Micros,
    ids::{BootId, OrgId},
};

/// A boot whose lease has not run out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveBoot {
    /// Its id.
    pub id: String,
    /// When it began.
    pub started_at: Micros,
    /// Until when it lives without another heartbeat.
    pub lease_until: Micros,
    /// What it runs; empty where it did not say.
    pub version: String,
}

impl Sql {
    /// Registers this run. The statement may be made twice, where the answer to the first was lost.
    pub async fn register_boot(&self, boot: &BootId, version: &str, lease: Duration) -> Result<(), StorageError> {
        let text = by_clock!(
            self,
            "INSERT INTO boot (id, started_at, lease_until, closed, version) VALUES ($1, ",
            ", ",
            " + $2, 0, $3) ON CONFLICT (id) DO NOTHING"
        );
        self.write(text, args![boot.as_str(), micros(lease), version]).await?;
        Ok(())
    }

    /// Renews a boot's lease. False: it is closed.
    pub async fn renew_boot(&self, boot: &BootId, lease: Duration) -> Result<bool, StorageError> {
        let text = by_clock!(self, "UPDATE boot SET lease_until = ", " + $2 WHERE id = $1 AND closed = 0 RETURNING id");
        Ok(!self.write(text, args![boot.as_str(), micros(lease)]).await?.is_empty())
    }

    /// Closes one boot.
    pub async fn close_boot(&self, boot: &BootId) -> Result<(), StorageError> {
        self.write("UPDATE boot SET closed = 1 WHERE id = $1", args![boot.as_str()]).await?;
        Ok(())
    }

    /// Closes every boot but this one; answers how many were open. Right only where one process owns the database.
    pub async fn close_other_boots(&self, own: &BootId) -> Result<usize, StorageError> {
        let text = "UPDATE boot SET closed = 1 WHERE id <> $1 AND closed = 0 RETURNING id";
        Ok(self.write(text, args![own.as_str()]).await?.len())
    }

    /// Closes the boots whose lease ran out; answers them.
    pub async fn close_expired_boots(&self) -> Result<Vec<String>, StorageError> {
        let text = by_clock!(self, "UPDATE boot SET closed = 1 WHERE closed = 0 AND lease_until <= ", " RETURNING id");
        self.write(text, args![]).await?.iter().map(|row| Ok(row.text(0)?)).collect()
    }

    /// The boots that live.
    pub async fn live_boots(&self) -> Result<Vec<LiveBoot>, StorageError> {
        let text = by_clock!(
            self,
            "SELECT id, started_at, lease_until, version FROM boot WHERE closed = 0 AND lease_until > ",
            " ORDER BY started_at, id"
        );
        let read = |row: &super::Row| {
            let (id, version) = (row.text(0)?, row.text(3)?);
            Ok(LiveBoot { id, started_at: row.int(1)?, lease_until: row.int(2)?, version })
        };
        self.read(text, args![]).await?.iter().map(read).collect()
    }

    /// Notes which configuration an instance has loaded; only where there are several.
    pub async fn note_loaded(&self, boot: &BootId, org: &OrgId, version: u64) -> Result<(), StorageError> {
        if self.postgres().is_none() {
            return Ok(());
        }
        let text = "INSERT INTO boot_snapshot (boot, org_id, config_version) VALUES ($1, $2, $3) \
                    ON CONFLICT (boot, org_id) DO UPDATE SET config_version = excluded.config_version";
        self.write(text, args![boot.as_str(), org.as_str(), version]).await?;
        Ok(())
    }

    /// How many instances live, and how many of them have nothing older loaded than a version.
    pub async fn live_on(&self, org: &OrgId, version: u64) -> Result<(u64, u64), StorageError> {
        if self.postgres().is_none() {
            return Ok((1, 1));
        }
        let text = "SELECT count(*), count(*) FILTER (WHERE s.config_version IS NULL OR s.config_version >= $2) \
                    FROM boot b LEFT JOIN boot_snapshot s ON s.boot = b.id AND s.org_id = $1 \
                    WHERE b.closed = 0 AND b.lease_until > tappass_now()";
        let rows = self.read_admin(text, args![org.as_str(), version]).await?;
        let row = rows.first().ok_or(StorageError::Inconsistent { table: "boot" })?;
        Ok((row.count("boot", 0)?, row.count("boot", 1)?))
    }
}

impl ReadTx {
    /// The boots that are closed.
    pub async fn closed_boots(&mut self) -> Result<Vec<String>, StorageError> {
        let rows = self.rows("SELECT id FROM boot WHERE closed <> 0", args![]).await?;
        rows.iter().map(|row| Ok(row.text(0)?)).collect()
    }
}
