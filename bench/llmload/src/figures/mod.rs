//! The figures of `make bench`: development gateways against a bare hyper proxy, in one interleaved run.
//!
//! Owns the order of a run: loads round by round (every target in turn within a measure, ratios taken within a round),
//! hang-ups, publishes, then starts with the databases that the loads left, then three gateways on one PostgreSQL. Never
//! measures with a setting from the caller's environment. An answer that is not a whole 200 fails the run, and no figures
//! are written then; a missed bar does not.

mod cluster;
mod disk;
mod hangup;
mod histogram;
mod mock;
mod postgres;
mod publish;
mod report;
mod rig;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    time::{Duration, Instant},
};

use crate::{
    figures::{
        cluster::Growth,
        hangup::HangUps,
        histogram::Histogram,
        mock::Mock,
        postgres::Server,
        publish::Published,
        rig::{Folder, Keys, Place, Rig},
    },
    http::Endpoint,
    load,
    measure::{self, Load, Measure, Row, Target},
    procs::{self, Counted},
};

const BARE: &str = "bare";
/// On SQLite.
const GATEWAY: &str = "gateway";
/// On PostgreSQL, whose CPU is counted in.
const GATEWAY_PG: &str = "gateway-pg";
/// On SQLite on a RAM disk.
const GATEWAY_RAM: &str = "gateway-ram";
/// One of three on one PostgreSQL.
const ONE_OF_THREE: &str = "one of three";
/// The database of `GATEWAY_PG`.
const POSTGRES_DATABASE: &str = "gateway";

const SATURATED: &str = "sat64";
const FIXED_RATE: &str = "rate500";
const STREAMS: &str = "streams";

/// How much of everything; the first round always runs, further ones while `budget` lasts.
struct Form {
    rounds: usize,
    budget: Duration,
    idle_wait: Duration,
    syncs: usize,
    hang_ups: usize,
    publishes: usize,
    cold_starts: usize,
    batch_rounds: usize,
    batch_time: Duration,
    measures: [Measure; 3],
}

const FULL: Form = Form {
    rounds: 5,
    budget: Duration::from_secs(270),
    idle_wait: Duration::from_millis(1500),
    syncs: 60,
    hang_ups: 15,
    publishes: 40,
    cold_starts: 7,
    batch_rounds: 3,
    batch_time: Duration::from_secs(3),
    measures: measures(Duration::from_millis(2500), Duration::from_secs(3), "ttft=20&gap=10&chunks=100&stamp", 100),
};

const SHORT: Form = Form {
    rounds: 2,
    budget: Duration::from_secs(40),
    idle_wait: Duration::ZERO,
    syncs: 30,
    hang_ups: 5,
    publishes: 10,
    cold_starts: 3,
    batch_rounds: 1,
    batch_time: Duration::from_millis(2500),
    measures: measures(Duration::from_millis(700), Duration::from_millis(800), "ttft=20&gap=5&chunks=100&stamp", 50),
};

/// Streams run for `longer`, plus the time of one stream: each is read to its end.
const fn measures(time: Duration, longer: Duration, streams: &'static str, count: usize) -> [Measure; 3] {
    [
        Measure { name: SATURATED, control: "", load: Load::Closed { connections: 64 }, time },
        Measure { name: FIXED_RATE, control: "", load: Load::Open { rate: 500.0 }, time: longer },
        Measure { name: STREAMS, control: streams, load: Load::Streams { count }, time: longer },
    ]
}

/// Everything that a run has seen.
#[derive(Default)]
struct Seen {
    rows: Vec<Row>,
    syncs: Vec<f64>,
    hang_ups: Vec<HangUps>,
    /// By gateway.
    own: BTreeMap<&'static str, Own>,
    published: BTreeMap<&'static str, Published>,
    growths: Vec<Growth>,
}

/// What was seen of one gateway outside the loads' rows.
#[derive(Default)]
struct Own {
    /// The gateway's own histograms, by measure.
    decision: BTreeMap<&'static str, Histogram>,
    admission: BTreeMap<&'static str, Histogram>,
    peak_mib: Option<f64>,
    database_mib: f64,
    cold_starts_ms: Vec<f64>,
    rss_mib: Option<f64>,
}

impl Seen {
    fn own(&mut self, gateway: &'static str) -> &mut Own {
        self.own.entry(gateway).or_default()
    }
}

/// Runs everything with the gateway `binary`, prints, and writes the figures to `out`.
pub fn run(binary: &Path, out: &Path, short: bool) -> Result<(), String> {
    let form = if short { &SHORT } else { &FULL };
    let begin = Instant::now();
    rig::clean_up_on_signals()?;
    // Figures of an earlier run must not be taken for this one's.
    let _ = fs::remove_file(out);
    let folder = Folder::make_in(out.parent().unwrap_or(Path::new(".")))?;
    let ram = disk::ram().map(Folder::make_in).transpose()?;
    let server = Server::start(folder.path())?;
    let rig = Rig::start(binary, folder.path())?;
    let mock = Mock::new(rig.mock.port);

    let data = |name: &str| folder.path().join(format!("data-{name}"));
    let url = ("DATABASE_URL", server.create(POSTGRES_DATABASE)?);
    let sqlite = Place { name: GATEWAY, data: data("sqlite"), settings: Vec::new() };
    let postgres = Place { name: GATEWAY_PG, data: data("postgres"), settings: vec![url] };
    let gateways = [rig.gateway(&sqlite)?, rig.gateway(&postgres)?];
    // A gateway that ignored its address would be measured on SQLite twice.
    let [_] = server.numbers(POSTGRES_DATABASE, "SELECT sum(seq) FROM audit_head")?;
    let ram = ram.as_ref().map(|f| Place { name: GATEWAY_RAM, data: f.path().join("data"), settings: Vec::new() });
    let on_ram = ram.map(|place| rig.gateway(&place)).transpose()?;
    let keys = gateways.each_ref().map(|gateway| gateway.keys.clone());

    let mut targets = vec![
        rig.bare.target(BARE, rig::PROVIDER_KEY),
        gateways[0].target(None),
        gateways[1].target(Some(server.counted())),
    ];
    targets.extend(on_ram.iter().map(|gateway| gateway.target(None)));

    let mut seen = Seen::default();
    eprintln!("{}", report::heading(binary, on_ram.is_some()));
    let processes = targets.iter().flat_map(|target| target.processes.clone()).chain(rig.processes()).collect();
    let metrics = gateways.iter().map(|gateway| (gateway.name, gateway.admin("/metrics"))).collect();
    let loads = Loads { form, mock: &mock, targets: &targets, processes, metrics };
    loads.run(folder.path(), &mut seen)?;
    seen.hang_ups = hangup::run(&mock, &[&targets[0], &targets[1], &targets[2]], form.hang_ups)?;
    let published = publish::run(&gateways.each_ref(), form.publishes)?;
    seen.published = gateways.iter().map(|gateway| gateway.name).zip(published).collect();

    for gateway in gateways {
        seen.own(gateway.name).peak_mib = procs::memory(gateway.process.pid(), "VmHWM:");
        gateway.process.stop()?;
    }
    on_ram.map_or(Ok(()), |gateway| gateway.process.stop())?;
    seen.own(GATEWAY).database_mib = mib(size(&sqlite.data) as f64);
    let [size] = server.numbers(POSTGRES_DATABASE, "SELECT pg_database_size(current_database())")?;
    seen.own(GATEWAY_PG).database_mib = mib(size);
    for (place, keys) in [&sqlite, &postgres].into_iter().zip(&keys) {
        cold_starts(&rig, place, keys, form.cold_starts, &mut seen)?;
    }
    let (growths, published) = cluster::run(&rig, &server, folder.path(), form)?;
    seen.growths = growths;
    seen.published.insert(ONE_OF_THREE, published);

    report::print(&seen);
    println!("{} rounds, {:.0} s", report::rounds(&seen), begin.elapsed().as_secs_f64());
    let errors = report::errors(&seen);
    if !errors.is_empty() {
        return Err(format!("answers that were not a whole 200, so nothing is written:\n{}", errors.join("\n")));
    }
    report::write(&seen, out)
}

struct Loads<'a> {
    form: &'a Form,
    mock: &'a Mock,
    targets: &'a [Target],
    /// All processes of the run, gateways and PostgreSQL included.
    processes: BTreeSet<Counted>,
    /// Where gateways show their histograms.
    metrics: BTreeMap<&'static str, Endpoint>,
}

impl Loads<'_> {
    fn run(&self, folder: &Path, seen: &mut Seen) -> Result<(), String> {
        let begin = Instant::now();
        for round in 1..=self.form.rounds {
            // A further round begins only if one like those before still fits.
            let so_far = begin.elapsed();
            if round > 1 && so_far + so_far / (round as u32 - 1) > self.form.budget {
                break;
            }
            seen.syncs.extend(disk::syncs(folder, self.form.syncs)?);
            for measure in &self.form.measures {
                self.mock.set(measure.control)?;
                for i in 0..self.targets.len() {
                    self.one(&self.targets[(i + round) % self.targets.len()], measure, round, seen)?;
                }
            }
        }
        self.mock.set("")
    }

    fn one(&self, target: &Target, measure: &Measure, round: usize, seen: &mut Seen) -> Result<(), String> {
        // The RAM disk answers one question only: how much of the saturated rate is the disk.
        if target.name == GATEWAY_RAM && measure.name != SATURATED {
            return Ok(());
        }
        let before = self.histograms(target);
        let row = measure::one(target, &self.processes, measure, round, self.form.idle_wait);
        if let (Some(before), Some(after)) = (before, self.histograms(target)) {
            let own = seen.own(target.name);
            own.decision.entry(measure.name).or_default().add_between(&before.0, &after.0);
            own.admission.entry(measure.name).or_default().add_between(&before.1, &after.1);
        }
        eprintln!("{}", report::line(&row));
        let dead = row.outcome.ok == 0;
        seen.rows.push(row);
        if dead {
            let errors = report::errors(seen);
            return Err(format!("{} answered nothing in {}:\n{}", target.name, measure.name, errors.join("\n")));
        }
        // What the target still has in hand is not to fall into the next one's measure.
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    }

    /// The gateway's histograms of decisions and admissions; none for other targets, or where it shows no metrics.
    fn histograms(&self, target: &Target) -> Option<(Histogram, Histogram)> {
        let metrics = self.metrics.get(target.name)?;
        let (status, body) = load::ask(metrics, &metrics.get()).ok()?;
        let text = String::from_utf8(body).ok().filter(|_| status == 200)?;
        let histogram = |name| Histogram::parse(&text, name);
        Some((histogram("tappass_decision_seconds"), histogram("tappass_admission_seconds")))
    }
}

/// Starts with the database that the loads left, until the first 200; the last one stays for the idle memory.
fn cold_starts(rig: &Rig, place: &Place, keys: &Keys, count: usize, seen: &mut Seen) -> Result<(), String> {
    let body = measure::body(false, 64);
    for n in 1..=count {
        let begin = Instant::now();
        let mut process = rig.spawn_gateway(place)?;
        let chat = process.at("/v1/chat/completions", Some(&keys.agent));
        process.await_200(&chat, &chat.post(&body))?;
        seen.own(place.name).cold_starts_ms.push(begin.elapsed().as_secs_f64() * 1e3);
        if n == count {
            std::thread::sleep(Duration::from_secs(2));
            seen.own(place.name).rss_mib = procs::memory(process.pid(), "VmRSS:");
        }
        process.stop()?;
    }
    Ok(())
}

fn mib(bytes: f64) -> f64 {
    bytes / 1024.0 / 1024.0
}

/// Bytes of the files of a data folder (it has no folders that matter).
fn size(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|f| f.metadata().ok()).filter(fs::Metadata::is_file).map(|m| m.len()).sum()
}
