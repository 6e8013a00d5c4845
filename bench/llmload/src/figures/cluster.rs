//! Three gateways on one PostgreSQL and one organization: what it is worth to commit several entries at once.
//!
//! Owns two such clusters, each with a database of its own: one with the default batches, one that commits every entry by
//! itself. Both get the same load in turn, and the chain's own counter says how many entries it grew by, so a commit that
//! failed counts for nothing. Says how busy the machine was: where that is near 100 %, the ratio is one of CPU as well.

use std::{
    collections::BTreeSet,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use crate::{
    figures::{
        Form,
        postgres::Server,
        publish::{self, Published},
        rig::{Gateway, Place, Rig},
    },
    load::{self, Outcome},
    measure,
    procs::{self, Counted},
};

const GATEWAYS: usize = 3;
/// The first is the figure; with the second there is less to put into one commit, and less CPU is used.
pub const CONNECTIONS: [usize; 2] = [64, 12];
/// From the start of the load until it is counted, and at its end.
const MARGIN: Duration = Duration::from_millis(300);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Batches {
    #[default]
    Default,
    /// `admission.max_batch = 1`.
    OfOne,
}

/// One load on one cluster.
#[derive(Debug, Default)]
pub struct Growth {
    pub round: usize,
    pub batches: Batches,
    pub connections: usize,
    /// Entries that the chain grew by, and transactions that wrote (the attempts that failed among them), in a second.
    pub entries_per_s: f64,
    pub transactions_per_s: f64,
    /// CPU microseconds of gateways and server together.
    pub cpu_per_entry_us: f64,
    /// Shares of the machine, 0 to 1: everything that ran, and what nothing of this run used.
    pub busy: f64,
    pub foreign: f64,
    /// Answers that were not a whole 200, and those that were.
    pub errors: u64,
    pub calls: u64,
}

struct Cluster {
    batches: Batches,
    database: &'static str,
    gateways: Vec<Gateway>,
}

/// Measures group commit, then publishes on three instances; `folder` is for the gateways' data.
pub fn run(rig: &Rig, server: &Server, folder: &Path, form: &Form) -> Result<(Vec<Growth>, Published), String> {
    let clusters = [
        Cluster::start(Batches::Default, "batches", rig, server, folder)?,
        Cluster::start(Batches::OfOne, "single", rig, server, folder)?,
    ];
    let gateways = clusters.iter().flat_map(Cluster::processes);
    let ours: BTreeSet<Counted> = gateways.chain(rig.processes()).collect();
    let mut all = Vec::new();
    for round in 1..=form.batch_rounds {
        for connections in CONNECTIONS {
            for turn in 0..clusters.len() {
                let cluster = &clusters[(turn + round) % clusters.len()];
                let growth = cluster.load(&ours, server, connections, round, form.batch_time)?;
                eprintln!("{}", line(&growth));
                all.push(growth);
            }
        }
    }
    let [batched, single] = clusters;
    single.stop()?;
    let published = publish::run(&[&batched.gateways[0]], form.publishes)?.pop().unwrap_or_default();
    batched.stop()?;
    Ok((all, published))
}

impl Cluster {
    /// One gateway after the other: the first makes the tables, the organization and the key file.
    fn start(
        batches: Batches,
        database: &'static str,
        rig: &Rig,
        server: &Server,
        folder: &Path,
    ) -> Result<Self, String> {
        let url = server.create(database)?;
        let mut settings = vec![
            ("DATABASE_URL", url),
            ("TAPPASS_ADMIN_KEY", format!("admin-of-{database}-on-loopback")),
            ("TAPPASS_BOOTSTRAP_AGENT_KEY", format!("agent-of-{database}-on-loopback")),
            ("TAPPASS_VAULT__KEK_FILE", folder.join(format!("kek-{database}")).display().to_string()),
        ];
        if batches == Batches::OfOne {
            settings.push(("TAPPASS_ADMISSION__MAX_BATCH", "1".into()));
        }
        let place =
            |n| Place { name: database, data: folder.join(format!("data-{database}-{n}")), settings: settings.clone() };
        let gateways = (1..=GATEWAYS).map(|n| rig.gateway(&place(n))).collect::<Result<_, _>>()?;
        Ok(Cluster { batches, database, gateways })
    }

    fn load(
        &self,
        ours: &BTreeSet<Counted>,
        server: &Server,
        connections: usize,
        round: usize,
        time: Duration,
    ) -> Result<Growth, String> {
        let own: BTreeSet<Counted> = self.processes().chain([server.counted()]).collect();
        let rest: BTreeSet<Counted> = ours.difference(&own).copied().collect();
        let body = &measure::body_for("tappass/echo", false, 64);
        thread::scope(|scope| {
            let callers: Vec<_> = (0..GATEWAYS)
                .map(|n| {
                    let to = self.gateways[n].target(None).endpoint;
                    let share = connections / GATEWAYS + usize::from(n < connections % GATEWAYS);
                    scope.spawn(move || load::closed(&to, body, share, time + 2 * MARGIN, false))
                })
                .collect();
            thread::sleep(MARGIN);
            let before = self.reading(server, &own, &rest);
            thread::sleep(time);
            let after = self.reading(server, &own, &rest);
            let outcomes: Vec<Outcome> = callers.into_iter().filter_map(|caller| caller.join().ok()).collect();
            // The next load is not to pay for what this one has left over.
            self.come_to_rest(server)?;
            let (before, after) = (before?, after?);
            let seconds = after.at - before.at;
            let entries = after.entries - before.entries;
            let (busy, total) = (after.machine.0 - before.machine.0, (after.machine.1 - before.machine.1).max(0.01));
            Ok(Growth {
                round,
                batches: self.batches,
                connections,
                entries_per_s: entries / seconds,
                transactions_per_s: (after.transactions - before.transactions) / seconds,
                cpu_per_entry_us: (after.own - before.own) * 1e6 / entries.max(1.0),
                busy: busy / total,
                foreign: ((busy - (after.own - before.own) - (after.rest - before.rest)) / total).max(0.0),
                errors: outcomes.iter().map(|outcome| outcome.errors).sum(),
                calls: outcomes.iter().map(|outcome| outcome.ok).sum(),
            })
        })
    }

    fn reading(&self, server: &Server, own: &BTreeSet<Counted>, rest: &BTreeSet<Counted>) -> Result<Reading, String> {
        let query = "SELECT extract(epoch FROM clock_timestamp()), (SELECT sum(seq) FROM audit_head), \
                     pg_snapshot_xmax(pg_current_snapshot())";
        let [at, entries, transactions] = server.numbers(self.database, query)?;
        let (machine, own, rest) = (procs::machine(), procs::cpu(own), procs::cpu(rest));
        Ok(Reading { at, entries, transactions, machine, own, rest })
    }

    /// Until the chain no longer grows, a bounded time.
    fn come_to_rest(&self, server: &Server) -> Result<(), String> {
        let begin = Instant::now();
        let mut before = [-1.0];
        while begin.elapsed() < Duration::from_secs(5) {
            let now = server.numbers(self.database, "SELECT sum(seq) FROM audit_head")?;
            if now == before {
                break;
            }
            before = now;
            thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    fn processes(&self) -> impl Iterator<Item = Counted> {
        self.gateways.iter().map(|gateway| Counted::Process(gateway.process.pid()))
    }

    fn stop(self) -> Result<(), String> {
        self.gateways.into_iter().try_for_each(|gateway| gateway.process.stop())
    }
}

struct Reading {
    at: f64,
    entries: f64,
    transactions: f64,
    machine: (f64, f64),
    own: f64,
    rest: f64,
}

/// One load as it ends.
fn line(of: &Growth) -> String {
    format!(
        "{} append   {:<12} {:>7.0} entries/s in {:>6.0} transactions/s, {} connections, cpu {:>6.1} us/entry  \
         calls {:>6}  errors {}  busy {:.0}%  foreign {:.0}%",
        of.round,
        of.batches.name(),
        of.entries_per_s,
        of.transactions_per_s,
        of.connections,
        of.cpu_per_entry_us,
        of.calls,
        of.errors,
        of.busy * 100.0,
        of.foreign * 100.0
    )
}

impl Batches {
    pub fn name(self) -> &'static str {
        match self {
            Batches::Default => "batches",
            Batches::OfOne => "one by one",
        }
    }
}
