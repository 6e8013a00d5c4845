//! The PostgreSQL server of a run, by the starter that the tests use.
//!
//! Owns the one server, its settings and its databases. Durability is the server's own default: nothing here touches
//! `fsync`, `synchronous_commit` or `full_page_writes`. However this program ends, the starter's supervisor ends the server
//! and removes its folder, which lies where `TMPDIR` says. Fails where that is another disk than the gateways', and with
//! what to install where there is no PostgreSQL.

use std::{
    any::Any,
    fs,
    future::Future,
    os::unix::fs::MetadataExt,
    panic::{self, AssertUnwindSafe},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::procs::Counted;

#[path = "../../../../tests/it/support/postgres.rs"]
#[expect(dead_code, reason = "the tests ask for more")]
mod starter;

use starter::Postgres;

/// What an operator would set; the starter is made for tests and asks for less.
const SETTINGS: &[(&str, &str)] = &[("shared_buffers", "128MB")];

/// Where an interrupt finds it too.
static RUNNING: Mutex<Option<Postgres>> = Mutex::new(None);

fn running() -> MutexGuard<'static, Option<Postgres>> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends the server and removes its folder, if it runs.
pub fn end() {
    drop(running().take());
}

/// The running server; ended when dropped.
pub struct Server {
    pid: u32,
    runtime: tokio::runtime::Runtime,
}

impl Server {
    /// With its data on the disk of `folder`.
    pub fn start(folder: &Path) -> Result<Self, String> {
        let temporary = std::env::temp_dir();
        let disk = |path: &Path| fs::metadata(path).map(|m| m.dev()).map_err(|e| format!("{}: {e}", path.display()));
        if disk(&temporary)? != disk(folder)? {
            let (there, here) = (temporary.display(), folder.display());
            return Err(format!("PostgreSQL's data would lie in {there}, on another disk than {here}: set TMPDIR"));
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
        let mut server = Server { pid: 0, runtime };
        let started = server.wait_for(Postgres::start_with(SETTINGS))?;
        server.pid = started.pid().map_or(0, |pid| pid.as_raw_nonzero().get().unsigned_abs());
        *running() = Some(started);
        Ok(server)
    }

    /// All its processes: sessions, the writers in the background, those that have ended.
    pub fn counted(&self) -> Counted {
        Counted::Family(self.pid)
    }

    /// Makes a database and tells its address, over TCP as from another machine.
    pub fn create(&self, database: &str) -> Result<String, String> {
        self.sql("postgres", &format!("CREATE DATABASE {database}"))?;
        running().as_ref().map(|server| server.url(database)).ok_or_else(|| "PostgreSQL has ended".into())
    }

    /// The numbers of the one row that a query has.
    pub fn numbers<const N: usize>(&self, database: &str, query: &str) -> Result<[f64; N], String> {
        let row = self.sql(database, query)?;
        let numbers: Vec<f64> = row.split('|').filter_map(|column| column.trim().parse().ok()).collect();
        numbers.try_into().map_err(|_| format!("`{query}` gave `{row}`"))
    }

    fn sql(&self, database: &str, sql: &str) -> Result<String, String> {
        let running = running();
        let server = running.as_ref().ok_or("PostgreSQL has ended")?;
        self.wait_for(server.psql(database, sql))
    }

    /// The starter fails as a test does, by a panic; here that is an error of the run.
    fn wait_for<T>(&self, what: impl Future<Output = T>) -> Result<T, String> {
        let loud = panic::take_hook();
        panic::set_hook(Box::new(|_| {}));
        let done = panic::catch_unwind(AssertUnwindSafe(|| self.runtime.block_on(what)));
        panic::set_hook(loud);
        done.map_err(|thrown| said(&*thrown))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        end();
    }
}

fn said(thrown: &(dyn Any + Send)) -> String {
    let text = thrown.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| thrown.downcast_ref::<&str>().copied()).unwrap_or("PostgreSQL's starter failed").to_owned()
}
