//! Snapshots of all organizations in use: loading, keeping, dropping.
//!
//! Owns one cell per organization behind an atomic pointer. Loading is single-flight per organization, so a slow one never
//! delays another. Bounded in bytes: organizations that were idle longest are dropped, never one with calls under way. Rows
//! that do not hash to the head's digest are refused and alarmed, and what was loaded before is dropped with them. Whatever
//! leaves its cell says so to those who follow it.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::{ArcSwap, ArcSwapOption};

use futures_util::StreamExt as _;
use tokio_util::task::TaskTracker;

use super::{
    open_calls::OpenCalls,
    snapshot::{Snapshot, SnapshotError},
};
use crate::{
    domain::{clock::Clock, ids::OrgId, stamp::ConfigStamp},
    policy::Programs,
    storage::{Sql, StorageError},
};

/// Organizations that are loaded at once when many have changed: a slow one delays no other, and all together not the pool.
const LOADS: usize = 4;

/// What turns configuration into something that decides.
pub struct Compiler {
    /// The policy packages.
    pub programs: Arc<Programs>,
    /// Which steps this build has.
    pub has_step: fn(&str) -> bool,
    /// The preset of an organization that stored no pipeline.
    pub default_pipeline: crate::domain::plan::PipelineSpec,
    /// For assignments that end.
    pub clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Cell {
    current: ArcSwapOption<Snapshot>,
    loading: Arc<tokio::sync::Mutex<()>>,
    last_used: AtomicU64,
}

impl Cell {
    /// Puts in what decides from now on, and tells those who follow what decided until now.
    fn replace(&self, next: Option<Arc<Snapshot>>) {
        if let Some(before) = self.current.swap(next) {
            before.superseded.cancel();
        }
    }
}

/// Every organization in use.
pub struct Snapshots {
    this: Weak<Self>,
    tasks: TaskTracker,
    cells: ArcSwap<HashMap<OrgId, Arc<Cell>>>,
    adding: Mutex<()>,
    sql: Sql,
    compiler: Arc<Compiler>,
    open_calls: OpenCalls,
    most_bytes: usize,
    uses: AtomicU64,
    /// What was loaded and has not been told the other instances.
    untold: Mutex<HashMap<OrgId, u64>>,
    news: tokio::sync::Notify,
}

impl Snapshots {
    /// Nothing is loaded yet. Loads run on `tasks`.
    pub fn new(
        sql: Sql,
        compiler: Arc<Compiler>,
        open_calls: OpenCalls,
        most_bytes: usize,
        tasks: TaskTracker,
    ) -> Arc<Self> {
        let cells = ArcSwap::from_pointee(HashMap::new());
        let (adding, untold, uses) = (Mutex::default(), Mutex::default(), AtomicU64::new(0));
        let news = tokio::sync::Notify::new();
        Arc::new_cyclic(|this| {
            let this = Weak::clone(this);
            Self { this, tasks, cells, adding, sql, compiler, open_calls, most_bytes, uses, untold, news }
        })
    }

    /// What compiles configurations, for trying one before it is written.
    pub fn compiler(&self) -> Arc<Compiler> {
        Arc::clone(&self.compiler)
    }

    /// What is loaded, without waiting.
    pub fn current(&self, org: &OrgId) -> Option<Arc<Snapshot>> {
        let cells = self.cells.load();
        let cell = cells.get(org)?;
        cell.last_used.store(self.uses.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        cell.current.load_full()
    }

    /// What is loaded, or loads it. `None`: there is no such organization.
    pub async fn get(&self, org: &OrgId) -> Result<Option<Arc<Snapshot>>, SnapshotError> {
        match self.current(org) {
            Some(snapshot) => Ok(Some(snapshot)),
            None => self.refresh(org, None).await,
        }
    }

    /// Loads the newest configuration; `at_least`: unless that one is loaded already.
    pub async fn refresh(
        &self,
        org: &OrgId,
        at_least: Option<ConfigStamp>,
    ) -> Result<Option<Arc<Snapshot>>, SnapshotError> {
        let Some(cell) = self.cell(org).await? else { return Ok(None) };
        let before = cell.current.load_full().map(|snapshot| snapshot.stamp);
        let one = Arc::clone(&cell.loading).lock_owned().await;
        if let Some(loaded) = cell.current.load_full() {
            let wanted = at_least.is_some_and(|stamp| loaded.stamp == stamp);
            // Somebody else loaded while we waited; what it read is not older than our question.
            if wanted || (at_least.is_none() && before != Some(loaded.stamp)) {
                return Ok(Some(loaded));
            }
        }
        let (Some(this), org) = (self.this.upgrade(), org.clone()) else { return Ok(None) };
        // It goes on when its caller no longer waits: begun anew by each, one that takes longer than they do never ends.
        let loading = self.tasks.spawn(async move {
            let _one = one;
            this.load_into(&cell, &org).await
        });
        loading.await.unwrap_or(Err(SnapshotError::Storage(StorageError::Inconsistent { table: "snapshot" })))
    }

    async fn load_into(&self, cell: &Arc<Cell>, org: &OrgId) -> Result<Option<Arc<Snapshot>>, SnapshotError> {
        match self.load(org).await {
            Ok(snapshot) => {
                cell.replace(Some(Arc::clone(&snapshot)));
                self.note(org, snapshot.stamp.version);
                self.shrink(org);
                if self.cells.load().get(org).is_none_or(|there| !Arc::ptr_eq(there, cell)) {
                    // The cell was dropped while this loaded: nothing will replace it there, so whoever follows it asks again.
                    snapshot.superseded.cancel();
                }
                Ok(Some(snapshot))
            }
            Err(error) => {
                if matches!(error, SnapshotError::Tampered { .. }) {
                    tracing::error!(org.id = %org, error = &error as &dyn std::error::Error, "alarm: configuration was edited outside of tappass");
                    cell.replace(None);
                }
                Err(error)
            }
        }
    }

    /// Loads again if the database has a newer configuration than what is loaded; for keys that the snapshot does not know.
    pub async fn refresh_if_newer(&self, org: &OrgId) -> Result<Option<Arc<Snapshot>>, SnapshotError> {
        let Some(head) = self.sql.head(org).await? else { return Ok(None) };
        match self.current(org) {
            Some(snapshot) if snapshot.stamp == head.stamp => Ok(Some(snapshot)),
            _ => self.refresh(org, Some(head.stamp)).await,
        }
    }

    /// Loads again what the database has newer, of the organizations with calls under way; asks in one statement.
    pub async fn refresh_open(&self) -> Result<(), StorageError> {
        let orgs = self.open_calls.organizations();
        if orgs.is_empty() {
            return Ok(());
        }
        let stamps = self.sql.stamps(&orgs).await?;
        let newer = stamps.into_iter().filter(|(org, stamp)| self.current(org).is_none_or(|now| now.stamp != *stamp));
        futures_util::stream::iter(newer)
            .for_each_concurrent(LOADS, async |(org, stamp)| {
                if let Err(error) = self.refresh(&org, Some(stamp)).await {
                    tracing::warn!(org.id = %org, error = &error as &dyn std::error::Error, "a newer configuration was not loaded");
                }
            })
            .await;
        Ok(())
    }

    fn note(&self, org: &OrgId, version: u64) {
        if self.sql.is_shared() {
            self.untold.lock().unwrap_or_else(PoisonError::into_inner).insert(org.clone(), version);
            self.news.notify_one();
        }
    }

    /// Waits for something to be loaded; answers what was since the last time.
    pub async fn loaded(&self) -> HashMap<OrgId, u64> {
        self.news.notified().await;
        std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether at least one organization could be served.
    pub fn any_loaded(&self) -> bool {
        self.cells.load().values().any(|cell| cell.current.load().is_some())
    }

    async fn load(&self, org: &OrgId) -> Result<Arc<Snapshot>, SnapshotError> {
        let mut tx = self.sql.begin_read().await?;
        let head = tx.head(org).await?.ok_or(SnapshotError::Missing)?;
        let rows = tx.config_rows(org).await?;
        tx.end().await;
        if rows.digest() != head.stamp.digest {
            return Err(SnapshotError::Tampered { org: org.clone(), version: head.stamp.version });
        }
        Ok(Arc::new(Snapshot::compile(org.clone(), head.stamp, &rows, Arc::clone(&self.compiler))?))
    }

    /// The cell of an organization that exists. Nonsense ids make no cell, or they would fill the memory.
    async fn cell(&self, org: &OrgId) -> Result<Option<Arc<Cell>>, SnapshotError> {
        if let Some(cell) = self.cells.load().get(org) {
            return Ok(Some(Arc::clone(cell)));
        }
        if self.sql.head(org).await?.is_none_or(|head| head.stamp.version == 0) {
            return Ok(None);
        }
        let _one = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let mut cells = HashMap::clone(&self.cells.load());
        let cell = Arc::clone(cells.entry(org.clone()).or_default());
        self.cells.store(Arc::new(cells));
        Ok(Some(cell))
    }

    /// Drops those that were idle longest until the rest fits; `keep` stays, and what has calls under way.
    fn shrink(&self, keep: &OrgId) {
        let _one = self.adding.lock().unwrap_or_else(PoisonError::into_inner);
        let cells = self.cells.load_full();
        let size = |cell: &Cell| cell.current.load().as_ref().map_or(0, |snapshot| snapshot.bytes());
        let mut total: usize = cells.values().map(|cell| size(cell)).sum();
        if total <= self.most_bytes {
            return;
        }
        let mut left = HashMap::clone(&cells);
        let mut dropped = Vec::new();
        let mut idle: Vec<_> = cells.iter().filter(|(org, _)| *org != keep && !self.open_calls.has(org)).collect();
        idle.sort_by_key(|(_, cell)| cell.last_used.load(Ordering::Relaxed));
        for (org, cell) in idle {
            if total <= self.most_bytes {
                break;
            }
            total -= size(cell);
            left.remove(org);
            dropped.push(Arc::clone(cell));
        }
        self.cells.store(Arc::new(left));
        // A call may have begun since it was asked whether there are any: it looks again, and loads what it follows.
        for cell in dropped {
            cell.replace(None);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        admission::rig::Rig,
        domain::{
            clock::ManualClock,
            ids::ProjectId,
            rows::{Table, Write},
        },
        tenants::Project,
    };

    fn org(name: &str) -> OrgId {
        OrgId::parse(name).unwrap()
    }

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::at(0))
    }

    #[tokio::test]
    async fn a_change_made_elsewhere_reaches_those_who_have_calls_under_way() {
        Rig::run(async |elsewhere| {
            let org = org("org_a");
            elsewhere.found(&org).await;
            let (here, calls) = elsewhere.instance(clock(), usize::MAX);
            let before = here.get(&org).await.unwrap().unwrap();
            let project =
                Project { project_id: ProjectId::parse("new").unwrap(), name: "new".to_owned(), created_at: 0 };
            elsewhere.change(&org, vec![Write::put(Table::Project, "new", &project).unwrap()]).await;
            here.refresh_open().await.unwrap();
            assert!(!before.superseded.is_cancelled(), "nobody has a call under way, so nobody asks");
            let _call = calls.enter(&org);
            here.refresh_open().await.unwrap();
            assert!(before.superseded.is_cancelled());
            let after = here.current(&org).unwrap();
            assert_eq!((before.stamp.version, after.stamp.version), (1, 2));
            here.refresh_open().await.unwrap();
            assert!(!after.superseded.is_cancelled(), "what has not changed is not loaded again");
        })
        .await;
    }

    #[tokio::test]
    async fn an_organization_with_calls_under_way_stays_and_one_that_is_dropped_says_so() {
        Rig::run(async |elsewhere| {
            let (busy, idle, last) = (org("org_a"), org("org_b"), org("org_c"));
            let (here, calls) = elsewhere.instance(clock(), 1);
            let _call = calls.enter(&busy);
            let mut told = Vec::new();
            for org in [&busy, &idle, &last] {
                elsewhere.found(org).await;
                told.push(here.get(org).await.unwrap().unwrap());
            }
            let told: Vec<bool> = told.iter().map(|snapshot| snapshot.superseded.is_cancelled()).collect();
            assert_eq!(told, [false, true, false]);
            assert!(here.current(&busy).is_some() && here.current(&idle).is_none());
        })
        .await;
    }

    #[tokio::test]
    async fn rows_that_were_edited_end_what_was_loaded_before() {
        Rig::run(async |elsewhere| {
            let org = org("org_a");
            elsewhere.found(&org).await;
            let (here, _calls) = elsewhere.instance(clock(), usize::MAX);
            let before = here.get(&org).await.unwrap().unwrap();
            let mut tx = elsewhere.sql.begin().await.unwrap().unwrap();
            tx.apply(&org, &[Write::delete(Table::Project, "default")]).await.unwrap();
            tx.commit().await.unwrap();
            assert!(matches!(here.refresh(&org, None).await, Err(SnapshotError::Tampered { .. })));
            assert!(before.superseded.is_cancelled() && here.current(&org).is_none());
        })
        .await;
    }
}
