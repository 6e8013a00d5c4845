//! Checkpoints: a signed size and root of each chain, kept in the database and outside of it.
//!
//! Owns when one is due and the tree's frontier of each chain. Reads only the digests since the last one. A checkpoint that
//! cannot be anchored is tried again at the next look; none is ever replaced.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::{
    audit::{Checkpoint, Frontier, Head, checkpoint::origin},
    crypto::SigningKey,
    domain::{
        clock::{Clock, Running},
        ids::OrgId,
    },
    storage::{Anchors, Sql, StorageError, sql::CheckpointRow},
};

/// Digests that are read at once.
const PAGE: u32 = 10_000;

/// Why a checkpoint was not made.
#[derive(Debug, thiserror::Error)]
pub(super) enum CheckpointJobError {
    /// The database does not answer.
    #[error("the database does not answer")]
    Storage(#[from] StorageError),
    /// The anchor cannot be written.
    #[error("the anchor cannot be written")]
    Anchor(#[from] std::io::Error),
    /// The stored frontier or link does not make sense.
    #[error("the last checkpoint does not make sense")]
    Inconsistent,
}

/// Makes checkpoints.
pub struct Checkpoints {
    sql: Sql,
    anchors: Anchors,
    key: SigningKey,
    clock: Arc<dyn Clock>,
    deployment: String,
    entries: u64,
    seconds: Duration,
    last: HashMap<OrgId, (Frontier, Running)>,
}

impl Checkpoints {
    /// Of all chains of a database.
    pub fn new(
        sql: Sql,
        anchors: Anchors,
        key: SigningKey,
        clock: Arc<dyn Clock>,
        config: &crate::config::AuditConfig,
    ) -> Self {
        Self {
            sql,
            anchors,
            key,
            clock,
            deployment: config.deployment.clone(),
            entries: config.checkpoint_entries.max(1),
            seconds: Duration::from_secs(config.checkpoint_seconds),
            last: HashMap::new(),
        }
    }

    /// Makes those that are due; `all`: of every chain with anything new.
    pub async fn look(&mut self, all: bool) {
        let chains = match self.sql.chains().await {
            Ok(chains) => chains,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "chains cannot be listed for checkpoints");
                return;
            }
        };
        for org in chains {
            if let Err(error) = self.chain(&org, all).await {
                tracing::error!(org.id = %org, error = &error as &dyn std::error::Error, "a checkpoint was not made");
            }
        }
    }

    async fn chain(&mut self, org: &OrgId, all: bool) -> Result<(), CheckpointJobError> {
        let Some(head) = self.sql.head(org).await? else { return Ok(()) };
        if !self.last.contains_key(org) {
            let frontier = match self.sql.last_checkpoint(org).await? {
                None => Frontier::default(),
                Some(row) => {
                    // What is stored may not have been anchored yet.
                    self.anchors.put_note(org, row.size, &row.note)?;
                    Frontier::from_bytes(&row.frontier).ok_or(CheckpointJobError::Inconsistent)?
                }
            };
            self.last.insert(org.clone(), (frontier, self.clock.running()));
        }
        let Some((frontier, since)) = self.last.get(org) else { return Ok(()) };
        let new = head.seq.saturating_sub(frontier.size());
        let old = self.clock.running() >= since.after(self.seconds);
        let due = new >= self.entries || (new > 0 && (old || all || frontier.size() == 0));
        if !due {
            return Ok(());
        }
        let mut frontier = frontier.clone();
        while frontier.size() < head.seq {
            let page = self.sql.digests_after(org, frontier.size(), PAGE).await?;
            if page.is_empty() {
                return Err(CheckpointJobError::Inconsistent);
            }
            // The chain may have grown since its head was read; the head decides where this one ends.
            let room = usize::try_from(head.seq - frontier.size()).unwrap_or(usize::MAX);
            for digest in page.iter().take(room) {
                frontier.push(digest);
            }
        }
        self.store(org, frontier, Head { seq: head.seq, link: head.link }).await
    }

    async fn store(&mut self, org: &OrgId, frontier: Frontier, head: Head) -> Result<(), CheckpointJobError> {
        let checkpoint = Checkpoint { origin: origin(&self.deployment, org), root: frontier.root(), head };
        let note = checkpoint.sign(&self.key);
        let at = self.clock.now();
        let row = CheckpointRow { size: head.seq, frontier: frontier.to_bytes(), note: note.clone(), at };
        self.sql.insert_checkpoint(org, &row).await?;
        self.anchors.put_note(org, head.seq, &note)?;
        self.last.insert(org.clone(), (frontier, self.clock.running()));
        Ok(())
    }
}
