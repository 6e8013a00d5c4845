//! One attempt to commit: what is signed and sent, and what came back.
//!
//! Owns an attempt from its signing to its answer, so that one that waits for a head which somebody else has locked can be
//! under way beside others. Never reads the answer: the writer does.

use std::{pin::Pin, sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    append::append,
    queue::{Append, Together},
    run::Run,
};
use crate::{
    crypto::SigningKey,
    domain::{
        clock::Micros,
        ids::{BootId, OrgId},
    },
    storage::{
        Sql, StorageError,
        sql::{Appended, Group},
    },
};

/// What is to be committed together.
pub(super) struct Attempt {
    run: Arc<Run>,
    together: Vec<Together>,
}

/// What came of it.
pub(super) struct Tried {
    pub(super) run: Arc<Run>,
    pub(super) together: Vec<Together>,
    pub(super) took: Duration,
    pub(super) result: Result<Vec<Appended>, StorageError>,
}

/// An attempt at the entries of one organization whose head somebody else has locked.
pub(super) struct Waiting {
    pub(super) org: OrgId,
    pub(super) attempt: Pin<Box<dyn Future<Output = Tried> + Send>>,
}

impl Attempt {
    /// Sorts what waits by chain and signs it. In order of id, so that two writers lock heads in the same order.
    pub(super) fn sign(run: Arc<Run>, appends: Vec<Append>, key: &SigningKey) -> Result<Self, StorageError> {
        let mut all: Vec<(OrgId, BootId, Vec<Append>)> = Vec::with_capacity(1);
        for append in appends {
            let id = append.id();
            match all.iter_mut().find(|(org, boot, _)| *org == id.org && *boot == id.boot) {
                Some((_, _, appends)) => appends.push(append),
                None => all.push((id.org.clone(), id.boot.clone(), vec![append])),
            }
        }
        all.sort_by(|a, b| (&a.0, &a.1).cmp(&(&b.0, &b.1)));
        let sign = |(org, boot, appends): (OrgId, BootId, Vec<Append>)| {
            let pairs = appends.iter().map(|append| (append.id().counter, append.entry.digest)).collect();
            // What is left of an earlier boot is signed by itself: a number that it had not used.
            let (batch, seen) = if boot == *run.boot() {
                run.sign(&org, pairs, key)?
            } else {
                Run::leftover(&boot).sign(&org, pairs, key)?
            };
            Ok(Together { org, boot, batch, seen, appends })
        };
        let together = all.into_iter().map(sign).collect::<Result<_, StorageError>>()?;
        Ok(Self { run, together })
    }

    /// One transaction. Waits for a head only where there is one alone; among others one that is busy is skipped.
    pub(super) async fn make(self, sql: Sql, now: Micros) -> Tried {
        let Self { run, together } = self;
        let began = Instant::now();
        let result = {
            let mut groups: Vec<Group<'_>> = together.iter().map(Together::group).collect();
            let alone = groups.len() == 1;
            append(&sql, &mut groups, alone, now).await
        };
        Tried { run, together, took: began.elapsed(), result }
    }
}

/// Comes back with what was waited for; never where nothing is.
pub(super) async fn waited(waiting: &mut Option<Waiting>) -> Tried {
    match waiting {
        Some(waiting) => (&mut waiting.attempt).await,
        None => std::future::pending().await,
    }
}
