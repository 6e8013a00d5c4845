//! Checkpoints: a signed size and root of each chain, kept in the database and outside of it.
//!
//! Owns when one is due, the tree's frontier of each chain, and this instance's own folder of anchors. One instance makes a
//! checkpoint; each anchors it. Reads only the digests since the last one. A note that cannot be anchored is tried again at the
//! next look; none is ever replaced.

use std::{collections::HashMap, time::Duration};

use tokio_util::sync::CancellationToken;

use super::lease::{Cluster, Job};
use crate::{
    audit::{Checkpoint, Frontier, Head, checkpoint::origin},
    crypto::SigningKey,
    domain::ids::OrgId,
    storage::{
        Anchors, Sql, StorageError,
        sql::{CheckpointRow, Tip},
    },
};

/// Digests that are read at once.
const PAGE: u32 = 10_000;

/// Notes that are read at once.
const NOTES: u32 = 100;

/// Between two looks where several instances share the database, and where one owns it.
const SHARED: Duration = Duration::from_secs(5);
const OWN: Duration = Duration::from_secs(1);

/// Why a checkpoint was not made or anchored.
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
    deployment: String,
    entries: u64,
    seconds: Duration,
    /// How far this instance has read each chain.
    frontiers: HashMap<OrgId, Frontier>,
    /// How far a chain is anchored in this instance's folder.
    anchored: HashMap<OrgId, u64>,
}

impl Checkpoints {
    /// Of all chains of a database.
    pub fn new(sql: Sql, anchors: Anchors, key: SigningKey, config: &crate::config::AuditConfig) -> Self {
        Self {
            sql,
            anchors,
            key,
            deployment: config.deployment.clone(),
            entries: config.checkpoint_entries.max(1),
            seconds: Duration::from_secs(config.checkpoint_seconds),
            frontiers: HashMap::new(),
            anchored: HashMap::new(),
        }
    }

    /// Makes and anchors until stopped. One instance at a time makes them; where one process owns the database there is nobody
    /// to agree with, and nothing is written while nothing is due.
    pub(super) async fn look(&mut self, cluster: &Cluster, stop: CancellationToken) {
        let shared = cluster.sql.is_shared();
        let every = if shared { SHARED } else { OWN };
        let job = Job { name: "checkpoints", every, hold: every * 4 / 5 };
        let looks = async {
            loop {
                if shared {
                    cluster.try_run(job, async |_| self.make(false).await).await;
                } else if let Err(error) = self.make(false).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "chains cannot be listed for checkpoints");
                }
                self.anchor().await;
                tokio::time::sleep(if shared { job.look() } else { OWN }).await;
            }
        };
        tokio::select! {
            () = looks => {}
            () = stop.cancelled() => {}
        }
    }

    /// The last ones of this run: of every chain with anything new.
    pub(super) async fn end(&mut self) {
        if let Err(error) = self.make(true).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "the last checkpoints were not made");
        }
        self.anchor().await;
    }

    /// Makes those that are due; `all`: of every chain with anything new.
    async fn make(&mut self, all: bool) -> Result<(), StorageError> {
        for tip in self.sql.tips().await? {
            let new = tip.seq.saturating_sub(tip.covered);
            let old = tip.covered == 0 || tip.age >= self.seconds;
            if new >= self.entries || (new > 0 && (old || all)) {
                let made = self.checkpoint(&tip).await;
                if let Err(error) = made {
                    let org = &tip.org;
                    tracing::error!(org.id = %org, error = &error as &dyn std::error::Error, "a checkpoint was not made");
                }
            }
        }
        Ok(())
    }

    async fn checkpoint(&mut self, tip: &Tip) -> Result<(), CheckpointJobError> {
        let Tip { org, seq, link, covered, .. } = tip;
        // Another instance may have made the last one, and a run of this one may have been ended on its way to the next.
        let mut frontier = match self.frontiers.get(org).filter(|own| (*covered..=*seq).contains(&own.size())) {
            Some(frontier) => frontier.clone(),
            None => match self.sql.last_checkpoint(org).await? {
                None => Frontier::default(),
                Some(row) => Frontier::from_bytes(&row.frontier).ok_or(CheckpointJobError::Inconsistent)?,
            },
        };
        while frontier.size() < *seq {
            let page = self.sql.digests_after(org, frontier.size(), PAGE).await?;
            if page.is_empty() {
                return Err(CheckpointJobError::Inconsistent);
            }
            // The chain may have grown since its head was read; the head decides where this one ends.
            let room = usize::try_from(seq - frontier.size()).unwrap_or(usize::MAX);
            for digest in page.iter().take(room) {
                frontier.push(digest);
            }
            self.frontiers.insert(org.clone(), frontier.clone());
        }
        let head = Head { seq: *seq, link: *link };
        let checkpoint = Checkpoint { origin: origin(&self.deployment, org), root: frontier.root(), head };
        let row = CheckpointRow { size: *seq, frontier: frontier.to_bytes(), note: checkpoint.sign(&self.key) };
        self.sql.insert_checkpoint(org, &row).await?;
        Ok(())
    }

    /// Keeps the notes that this instance's folder does not have yet, whoever made them.
    async fn anchor(&mut self) {
        let tips = match self.sql.tips().await {
            Ok(tips) => tips,
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "what has to be anchored is not known");
                return;
            }
        };
        for tip in &tips {
            if self.anchored.get(&tip.org).is_some_and(|size| *size >= tip.covered) {
                continue;
            }
            if let Err(error) = self.keep(tip).await {
                let org = &tip.org;
                tracing::error!(org.id = %org, error = &error as &dyn std::error::Error, "a checkpoint was not anchored");
            }
        }
    }

    async fn keep(&mut self, tip: &Tip) -> Result<(), CheckpointJobError> {
        let mut size = match self.anchored.get(&tip.org) {
            Some(size) => *size,
            // A folder that is new begins with the newest: it speaks for all before it.
            None => self.anchors.largest(&tip.org)?.unwrap_or(tip.covered.saturating_sub(1)),
        };
        loop {
            let page = self.sql.notes_after(&tip.org, size, NOTES).await?;
            for (covers, note) in &page {
                self.anchors.put_note(&tip.org, *covers, note)?;
                size = *covers;
                self.anchored.insert(tip.org.clone(), size);
            }
            if page.is_empty() {
                // A folder may be ahead of a database that was restored.
                self.anchored.insert(tip.org.clone(), size);
                return Ok(());
            }
        }
    }
}
