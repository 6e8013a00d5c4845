//! The figures of `make bench`: a development gateway against a bare hyper proxy, in one interleaved run.
//!
//! Owns the order of a run: loads round by round (every target in turn within a measure, ratios taken within a round),
//! hang-ups, then starts with the database that the loads left. Never measures with a setting from the caller's
//! environment. An answer that is not a whole 200 fails the run, and no figures are written then; a missed bar does not.

mod disk;
mod hangup;
mod histogram;
mod mock;
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
        hangup::HangUps,
        histogram::Histogram,
        mock::Mock,
        rig::{Folder, Keys, Process, Rig},
    },
    load,
    measure::{self, Load, Measure, Row, Target},
    procs,
};

const BARE: &str = "bare";
const GATEWAY: &str = "gateway";
const GATEWAY_RAM: &str = "gateway-ram";

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
    cold_starts: usize,
    measures: [Measure; 3],
}

const FULL: Form = Form {
    rounds: 5,
    budget: Duration::from_secs(200),
    idle_wait: Duration::from_millis(1500),
    syncs: 60,
    hang_ups: 15,
    cold_starts: 7,
    measures: measures(Duration::from_millis(2500), Duration::from_secs(3), "ttft=20&gap=10&chunks=100&stamp", 100),
};

const SHORT: Form = Form {
    rounds: 2,
    budget: Duration::from_secs(24),
    idle_wait: Duration::ZERO,
    syncs: 30,
    hang_ups: 5,
    cold_starts: 3,
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
    /// The gateway's own histograms, by measure.
    decision: BTreeMap<&'static str, Histogram>,
    admission: BTreeMap<&'static str, Histogram>,
    hang_ups: Vec<HangUps>,
    peak_mib: Option<f64>,
    database_mib: f64,
    cold_starts_ms: Vec<f64>,
    rss_mib: Option<f64>,
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
    let rig = Rig::start(binary, folder.path())?;
    let mock = Mock::new(rig.mock.port);
    let data = folder.path().join("data");

    let (gateway, keys) = rig.gateway(&data)?;
    let on_ram = ram.as_ref().map(|f| rig.gateway(&f.path().join("data"))).transpose()?;
    let mut targets = vec![target(BARE, &rig.bare, rig::PROVIDER_KEY), target(GATEWAY, &gateway, &keys.agent)];
    targets.extend(on_ram.iter().map(|(process, keys)| target(GATEWAY_RAM, process, &keys.agent)));
    let pids = rig.pids().into_iter().chain(targets.iter().map(|t| t.pid)).collect();

    let mut seen = Seen::default();
    eprintln!("{}", report::heading(binary, on_ram.is_some()));
    let loads = Loads { form, mock: &mock, targets: &targets, pids, gateway: &gateway, keys: &keys };
    loads.run(folder.path(), &mut seen)?;
    seen.hang_ups = hangup::run(&mock, &[&targets[0], &targets[1]], form.hang_ups)?;
    seen.peak_mib = procs::memory(gateway.pid(), "VmHWM:");
    gateway.stop()?;
    on_ram.map_or(Ok(()), |(process, _)| process.stop())?;
    cold_starts(&rig, &data, &keys, form.cold_starts, &mut seen)?;

    report::print(&seen);
    println!("{} rounds, {:.0} s", report::rounds(&seen), begin.elapsed().as_secs_f64());
    let errors = report::errors(&seen.rows);
    if !errors.is_empty() {
        return Err(format!("answers that were not a whole 200, so nothing is written:\n{}", errors.join("\n")));
    }
    report::write(&seen, out)
}

fn target(name: &'static str, process: &Process, key: &str) -> Target {
    Target { name, endpoint: process.at("/v1/chat/completions", Some(key)), pid: process.pid() }
}

struct Loads<'a> {
    form: &'a Form,
    mock: &'a Mock,
    targets: &'a [Target],
    /// All processes of the rig, gateways included.
    pids: BTreeSet<u32>,
    gateway: &'a Process,
    keys: &'a Keys,
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
        let row = measure::one(target, &self.pids, measure, round, self.form.idle_wait);
        if let (Some(before), Some(after)) = (before, self.histograms(target)) {
            seen.decision.entry(measure.name).or_default().add_between(&before.0, &after.0);
            seen.admission.entry(measure.name).or_default().add_between(&before.1, &after.1);
        }
        eprintln!("{}", report::line(&row));
        let dead = row.outcome.ok == 0;
        seen.rows.push(row);
        if dead {
            let errors = report::errors(&seen.rows);
            return Err(format!("{} answered nothing in {}:\n{}", target.name, measure.name, errors.join("\n")));
        }
        // What the target still has in hand is not to fall into the next one's measure.
        std::thread::sleep(Duration::from_millis(200));
        Ok(())
    }

    /// The gateway's histograms of decisions and admissions; none for other targets, or where it shows no metrics.
    fn histograms(&self, target: &Target) -> Option<(Histogram, Histogram)> {
        if target.name != GATEWAY {
            return None;
        }
        let metrics = self.gateway.at("/metrics", Some(&self.keys.admin));
        let (status, body) = load::ask(&metrics, &metrics.get()).ok()?;
        let text = String::from_utf8(body).ok().filter(|_| status == 200)?;
        let histogram = |name| Histogram::parse(&text, name);
        Some((histogram("tappass_decision_seconds"), histogram("tappass_admission_seconds")))
    }
}

/// Starts with the database that the loads left, until the first 200; the last one stays for the idle memory.
fn cold_starts(rig: &Rig, data: &Path, keys: &Keys, count: usize, seen: &mut Seen) -> Result<(), String> {
    seen.database_mib = size(data) as f64 / 1024.0 / 1024.0;
    let body = measure::body(false, 64);
    for n in 1..=count {
        let begin = Instant::now();
        let mut gateway = rig.spawn_gateway(data)?;
        let chat = gateway.at("/v1/chat/completions", Some(&keys.agent));
        gateway.await_200(&chat, &chat.post(&body))?;
        seen.cold_starts_ms.push(begin.elapsed().as_secs_f64() * 1e3);
        if n == count {
            std::thread::sleep(Duration::from_secs(2));
            seen.rss_mib = procs::memory(gateway.pid(), "VmRSS:");
        }
        gateway.stop()?;
    }
    Ok(())
}

/// Bytes of the files of a data folder (it has no folders that matter).
fn size(folder: &Path) -> u64 {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|f| f.metadata().ok()).filter(fs::Metadata::is_file).map(|m| m.len()).sum()
}
