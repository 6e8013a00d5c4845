//! What unit tests of running calls share: a database with a writer, and instances that load from it.
//!
//! Owns a folder that is gone when the test ends. Writes as the product does, through the outbox, so that what is loaded is
//! what a gateway would load. Part of the tests only.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{ChangeSet, Changes, Compiler, OpenCalls, Reborn, Snapshots, Writer, WriterConfig, found_organization};
use crate::{
    crypto::SigningKey,
    domain::{
        clock::{Clock, ManualClock},
        ids::{BootId, OrgId},
        plan::PipelineSpec,
        rows::Write,
    },
    policy::Programs,
    storage::Sql,
    tenants::OrgConfig,
};

/// A database, and another instance that writes to it.
pub(crate) struct Rig {
    pub(crate) sql: Sql,
    changes: Arc<Changes>,
    dir: std::path::PathBuf,
}

impl Rig {
    /// Runs a test beside the writer.
    pub(crate) async fn run(test: impl AsyncFnOnce(&Self)) {
        let mut name = [0; 8];
        getrandom::fill(&mut name).unwrap();
        let dir = std::env::temp_dir().join(format!("tappass-rig-{}", hex::encode(name)));
        std::fs::create_dir(&dir).unwrap();
        let sql = Sql::open(&dir.join("tappass.db")).await.unwrap();
        let boot = BootId::parse("boot_elsewhere").unwrap();
        sql.register_boot(&boot, "1", Duration::from_secs(30)).await.unwrap();
        let key = Arc::new(SigningKey::from_seed(&SigningKey::generate().unwrap()).unwrap());
        let bounds = WriterConfig { max_batch: 8, linger: Duration::ZERO, max_backlog_bytes: 1 << 20 };
        let clock = Arc::new(ManualClock::at(0));
        let reborn: Reborn = Box::new(|| Box::pin(async { panic!("nobody closes this boot") }));
        let stop = CancellationToken::new();
        let (writer, outbox) = Writer::new(sql.clone(), boot, clock, Arc::clone(&key), (bounds, reborn), stop);
        let changes = Arc::new(Changes::new(sql.clone(), outbox, key, TaskTracker::new()));
        let rig = Self { sql, changes, dir };
        tokio::select! {
            _ = writer.run() => panic!("nobody stopped the writer"),
            () = test(&rig) => {}
        }
    }

    /// An instance that has loaded nothing yet.
    pub(crate) fn instance(&self, clock: Arc<dyn Clock>, most_bytes: usize) -> (Arc<Snapshots>, OpenCalls) {
        let compiler = Compiler {
            programs: Programs::load().unwrap(),
            has_step: |_| true,
            default_pipeline: PipelineSpec::default(),
            clock,
        };
        let calls = OpenCalls::default();
        let snapshots =
            Snapshots::new(self.sql.clone(), Arc::new(compiler), calls.clone(), most_bytes, TaskTracker::new());
        (snapshots, calls)
    }

    /// A new organization.
    pub(crate) async fn found(&self, org: &OrgId) {
        self.changes.make(org, found_organization(org.clone(), "one".to_owned(), 0)).await.unwrap();
    }

    /// A change of an organization, made by the other instance: nobody here is told.
    pub(crate) async fn change(&self, org: &OrgId, writes: Vec<Write>) {
        let make = move |_: Option<&OrgConfig>| Ok(ChangeSet { kind: "test.changed", content: json!({}), writes });
        self.changes.make(org, make).await.unwrap();
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}
