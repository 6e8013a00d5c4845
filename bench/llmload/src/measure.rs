//! One measure of one target: what is sent, what it cost, and how busy the rest of the machine was.
//! Owns the rows that every report is made of; starts and stops no process; a failed request is counted, never hidden.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use crate::{
    http::Endpoint,
    load::{self, Outcome},
    procs::{self, Counted},
};

/// Bytes of the user's message in every measure.
pub const PROMPT: usize = 1024;
/// A name that a gateway routes to its OpenAI provider, and that holds none of the mock's words.
const MODEL: &str = "gpt-4o-mini";

/// A chat-completions endpoint and the processes behind it whose CPU time is its price.
#[derive(Clone)]
pub struct Target {
    pub name: &'static str,
    pub endpoint: Endpoint,
    pub processes: BTreeSet<Counted>,
}

/// A chat request with a user's message of `prompt` bytes, to the mock provider.
pub fn body(stream: bool, prompt: usize) -> String {
    body_for(MODEL, stream, prompt)
}

pub fn body_for(model: &str, stream: bool, prompt: usize) -> String {
    let text: String = "Please summarise the quarterly report for the board. ".chars().cycle().take(prompt).collect();
    format!(
        "{{\"model\":\"{model}\",\"messages\":[{{\"role\":\"system\",\"content\":\"You are terse.\"}},\
         {{\"role\":\"user\",\"content\":\"{text}\"}}],\"max_tokens\":256,\"temperature\":0.2,\"stream\":{stream}}}"
    )
}

pub enum Load {
    /// So many connections, each asking again as soon as it is answered.
    Closed { connections: usize },
    /// So many requests a second, sent when due.
    Open { rate: f64 },
    /// So many streams at a time.
    Streams { count: usize },
}

pub struct Measure {
    pub name: &'static str,
    /// The mock's words while it runs.
    pub control: &'static str,
    pub load: Load,
    pub time: Duration,
}

/// What one measure of one target gave.
pub struct Row {
    pub round: usize,
    pub measure: &'static str,
    pub target: &'static str,
    pub outcome: Outcome,
    /// CPU seconds of the target's processes.
    pub cpu: f64,
    /// Share of the machine (0 to 1) that neither the target nor the rig used.
    pub foreign: f64,
}

/// Waits, a bounded time, for others to leave the machine alone.
fn await_quiet(limit: Duration) {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        let before = procs::machine();
        std::thread::sleep(Duration::from_millis(300));
        let after = procs::machine();
        let share = (after.0 - before.0) / (after.1 - before.1).max(0.01);
        if share < 0.10 {
            return;
        }
    }
}

/// Runs one measure. `rig` are the processes that the load needs (the mock, the other targets, this one): what they use
/// is neither the target's nor foreign. `idle_wait` bounds the wait for the rest of the machine to be quiet.
pub fn one(target: &Target, rig: &BTreeSet<Counted>, measure: &Measure, round: usize, idle_wait: Duration) -> Row {
    let stream = matches!(measure.load, Load::Streams { .. });
    let body = body(stream, PROMPT);
    // A short warm-up: connections and caches. What it is refused counts all the same.
    let warm = load::closed(&target.endpoint, &body, 8, Duration::from_millis(200), stream);
    await_quiet(idle_wait);
    let own = &target.processes;
    let others: BTreeSet<Counted> = rig.difference(own).copied().collect();
    let (machine, cpu, rest) = (procs::machine(), procs::cpu(own), procs::cpu(&others));
    let mut outcome = match measure.load {
        Load::Closed { connections } => load::closed(&target.endpoint, &body, connections, measure.time, false),
        Load::Open { rate } => load::open(&target.endpoint, &body, rate, 64, measure.time),
        Load::Streams { count } => load::closed(&target.endpoint, &body, count, measure.time, true),
    };
    // What a target does after its last answer (closing entries, say) is part of the price.
    std::thread::sleep(Duration::from_millis(100));
    let (machine2, cpu2, rest2) = (procs::machine(), procs::cpu(own), procs::cpu(&others));
    let (busy, total) = (machine2.0 - machine.0, (machine2.1 - machine.1).max(0.01));
    let cpu = cpu2 - cpu;
    outcome.errors += warm.errors;
    for (status, n) in warm.bad {
        *outcome.bad.entry(status).or_default() += n;
    }
    Row {
        round,
        measure: measure.name,
        target: target.name,
        cpu,
        foreign: ((busy - cpu - (rest2 - rest)) / total).max(0.0),
        outcome,
    }
}

pub fn median(mut v: Vec<f64>) -> Option<f64> {
    v.retain(|x| x.is_finite());
    if v.is_empty() {
        return None;
    }
    v.sort_by(f64::total_cmp);
    let n = v.len();
    Some(if n % 2 == 1 { v[n / 2] } else { (v[n / 2 - 1] + v[n / 2]) / 2.0 })
}

pub fn show(x: Option<f64>) -> String {
    match x {
        None => "-".into(),
        Some(x) if x.abs() >= 100.0 => format!("{x:.0}"),
        Some(x) if x.abs() >= 10.0 => format!("{x:.1}"),
        Some(x) => format!("{x:.2}"),
    }
}

/// What one row says, as a number.
pub type Column = fn(&Row) -> f64;

/// All rows of a run, to be condensed over its rounds.
#[derive(Clone, Copy)]
pub struct Rows<'a>(pub &'a [Row]);

impl Rows<'_> {
    fn by_round(&self, measure: &str, target: &str, f: Column) -> BTreeMap<usize, f64> {
        self.0.iter().filter(|r| r.measure == measure && r.target == target).map(|r| (r.round, f(r))).collect()
    }

    pub fn median(&self, measure: &str, target: &str, f: Column) -> Option<f64> {
        median(self.by_round(measure, target, f).into_values().collect())
    }

    /// The median over rounds of this target's figure against another's in the same round.
    pub fn against(
        &self,
        measure: &str,
        target: &str,
        other: &str,
        f: Column,
        how: fn(f64, f64) -> f64,
    ) -> Option<f64> {
        let b = self.by_round(measure, other, f);
        let a = self.by_round(measure, target, f);
        median(a.iter().filter_map(|(r, x)| b.get(r).map(|y| how(*x, *y))).collect())
    }
}

pub fn rate(row: &Row) -> f64 {
    row.outcome.ok as f64 / row.outcome.seconds
}

/// CPU microseconds per answer.
pub fn cost(row: &Row) -> f64 {
    row.cpu * 1e6 / row.outcome.ok.max(1) as f64
}

/// CPU microseconds per event of a stream.
pub fn cost_of_event(row: &Row) -> f64 {
    row.cpu * 1e6 / row.outcome.events.max(1) as f64
}

pub fn p50(row: &Row) -> f64 {
    row.outcome.latency.p50
}

pub fn p99(row: &Row) -> f64 {
    row.outcome.latency.p99
}

pub fn foreign_percent(row: &Row) -> f64 {
    row.foreign * 100.0
}

pub fn ratio(a: f64, b: f64) -> f64 {
    a / b
}

pub fn minus(a: f64, b: f64) -> f64 {
    a - b
}
