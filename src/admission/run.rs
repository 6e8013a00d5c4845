//! One run of this process under one boot id.
//!
//! Owns the boot's counters, the numbers of its batches and the head of each chain that it saw last. A process that was
//! closed by recovery goes on under a new one. Never shared between processes.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    audit::{Batch, Head},
    crypto::SigningKey,
    domain::{
        digest::Digest,
        ids::{BootId, EntryId, OrgId},
    },
    storage::{StorageError, sql::BatchRow},
};

/// A boot and what it has given out.
pub(super) struct Run {
    boot: BootId,
    first_batch: u64,
    chains: Mutex<HashMap<OrgId, Chain>>,
}

/// What a boot knows of one chain.
struct Chain {
    counter: u64,
    batch: u64,
    seen: Head,
}

impl Run {
    pub(super) fn new(boot: BootId) -> Self {
        Self { boot, first_batch: 0, chains: Mutex::default() }
    }

    /// The same process under another boot: it counts anew and knows what it has seen.
    pub(super) fn successor(&self, boot: BootId) -> Self {
        let chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = chains.iter().map(|(org, chain)| (org.clone(), Chain { counter: 0, batch: 0, seen: chain.seen }));
        Self { chains: Mutex::new(seen.collect()), ..Self::new(boot) }
    }

    /// What is left of a boot that this process no longer has: it is closed, so nothing of it is written any more, and
    /// the number of its batch only has to be one that it never used.
    pub(super) fn leftover(boot: &BootId) -> Self {
        static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1 << 40);
        let run = Self::new(boot.clone());
        let number = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Self { first_batch: number, ..run }
    }

    pub(super) fn boot(&self) -> &BootId {
        &self.boot
    }

    fn with<T>(&self, org: &OrgId, work: impl FnOnce(&mut Chain) -> T) -> T {
        let mut chains = self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        match chains.get_mut(org) {
            Some(chain) => work(chain),
            None => {
                let new = Chain { counter: 0, batch: self.first_batch, seen: Head::START };
                work(chains.entry(org.clone()).or_insert(new))
            }
        }
    }

    /// An id that ends as an entry.
    pub(super) fn next_id(&self, org: &OrgId) -> EntryId {
        let counter = self.with(org, |chain| {
            chain.counter += 1;
            chain.counter
        });
        EntryId { org: org.clone(), boot: self.boot.clone(), counter }
    }

    /// Notes how far a chain has come; what two tasks learn out of order does not go back.
    pub(super) fn sees(&self, org: &OrgId, head: Head) {
        self.with(org, |chain| {
            if head.seq > chain.seen.seq {
                chain.seen = head;
            }
        });
    }

    /// Signs what is about to be appended. A lost commit leaves a gap in the numbers, never a number twice.
    pub(super) fn sign(
        &self,
        org: &OrgId,
        items: Vec<(u64, Digest)>,
        key: &SigningKey,
    ) -> Result<(BatchRow, Head), StorageError> {
        let (number, seen) = self.with(org, |chain| {
            chain.batch += 1;
            (chain.batch, chain.seen)
        });
        let batch = Batch::new(org.clone(), self.boot.clone(), number, seen, items);
        let batch = batch.map_err(|_| StorageError::Inconsistent { table: "audit_batch" })?.sign(key);
        let row = BatchRow {
            boot: batch.boot.as_str().to_owned(),
            number,
            message: batch.message,
            kid: batch.kid,
            signature: batch.signature,
            unwritten: batch.unwritten,
        };
        Ok((row, seen))
    }
}
