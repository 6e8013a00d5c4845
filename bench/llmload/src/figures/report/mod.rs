//! What a run says: a table of raw numbers, the figures with bar and aim, and the JSON.
//! Pure but for printing and the one file. What could not be measured is null, never zero.

mod figure;
mod list;

use std::{collections::BTreeSet, fmt::Write, fs, path::Path};

use crate::{
    figures::{
        BARE, FIXED_RATE, GATEWAY, GATEWAY_PG, GATEWAY_RAM, SATURATED, STREAMS, Seen,
        cluster::{Batches, CONNECTIONS},
        publish,
    },
    measure::{Row, Rows, cost, cost_of_event, foreign_percent, median, p50, p99, rate, show},
};
use list::{batch_ratio, condensed, figures};

/// Where so much of the machine is in use, a rate says what the CPU can do.
const BUSY: f64 = 0.9;

fn foreign(seen: &Seen) -> Option<f64> {
    let appends = seen.growths.iter().map(|g| g.foreign * 100.0);
    median(seen.rows.iter().map(foreign_percent).chain(appends).collect())
}

/// What is measured, on what, and how busy it was before.
pub fn heading(binary: &Path, ram: bool) -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: Vec<&str> = load.split(' ').take(3).collect();
    let ram = if ram { "" } else { "; no RAM disk with room here" };
    format!("{}, {cores} cores, load before {}{ram}", binary.display(), load.join(" "))
}

/// One measure of one target, as it ends.
pub fn line(row: &Row) -> String {
    format!(
        "{} {:<8} {:<12} {:>7.0}/s  p50 {:>7.0}  p99 {:>8.0} us  cpu {:>6.1} us/req  ok {:>6}  errors {}  foreign {:.0}%",
        row.round,
        row.measure,
        row.target,
        rate(row),
        p50(row),
        p99(row),
        cost(row),
        row.outcome.ok,
        row.outcome.errors,
        foreign_percent(row)
    )
}

/// What was answered otherwise than by a whole 200, one line a measure.
pub fn errors(seen: &Seen) -> Vec<String> {
    let loads = seen.rows.iter().filter(|r| r.outcome.errors > 0 || r.outcome.ok == 0).map(|r| {
        let bad = &r.outcome.bad;
        format!(
            "round {} {} {}: {} with 200; others by status (0: connection) {bad:?}",
            r.round, r.measure, r.target, r.outcome.ok
        )
    });
    let appends = seen.growths.iter().filter(|g| g.errors > 0 || g.calls == 0).map(|g| {
        let (round, connections, name) = (g.round, g.connections, g.batches.name());
        format!("round {round} append {name}, {connections} connections: {} with 200, {} others", g.calls, g.errors)
    });
    loads.chain(appends).collect()
}

pub fn rounds(seen: &Seen) -> usize {
    seen.rows.iter().map(|r| r.round).collect::<BTreeSet<_>>().len()
}

pub fn print(seen: &Seen) {
    println!("{}{}\n{}", raw(seen), appends(seen), figure::table(&figures(seen)));
    if foreign(seen).is_some_and(|f| f > 15.0) {
        println!("others used more than 15 % of the machine: rates and latencies are suspect, CPU ratios less so");
    }
}

/// Medians over the rounds, and what has no rounds.
fn raw(seen: &Seen) -> String {
    let rows = Rows(&seen.rows);
    let mut text = format!(
        "{:<9}{:<13}{:>9}{:>9}{:>9}{:>12}{:>14}{:>13}{:>14}{:>9}{:>8}{:>10}\n",
        "measure",
        "target",
        "req/s",
        "p50 us",
        "p99 us",
        "CPU us/req",
        "CPU us/event",
        "TTFB p50 us",
        "chunk p50 us",
        "ok",
        "errors",
        "foreign %"
    );
    for measure in [SATURATED, FIXED_RATE, STREAMS] {
        for target in [BARE, GATEWAY, GATEWAY_PG, GATEWAY_RAM] {
            let of: Vec<&Row> = seen.rows.iter().filter(|r| r.measure == measure && r.target == target).collect();
            if of.is_empty() {
                continue;
            }
            let column = |f| show(rows.median(measure, target, f));
            let streamed = |f| if measure == STREAMS { column(f) } else { "-".into() };
            let ok: u64 = of.iter().map(|r| r.outcome.ok).sum();
            let errors: u64 = of.iter().map(|r| r.outcome.errors).sum();
            let _ = writeln!(
                text,
                "{measure:<9}{target:<13}{:>9}{:>9}{:>9}{:>12}{:>14}{:>13}{:>14}{ok:>9}{errors:>8}{:>10}",
                column(rate),
                column(p50),
                column(p99),
                column(cost),
                streamed(cost_of_event),
                streamed(|r| r.outcome.first.p50),
                streamed(|r| r.outcome.chunk.p50),
                column(foreign_percent)
            );
        }
    }
    text.push('\n');
    for h in &seen.hang_ups {
        let (median, worst, n) = (show(h.median()), show(h.worst()), h.ms.len());
        let unseen = if h.unseen > 0 { format!(", {} NOT SEEN IN TIME", h.unseen) } else { String::new() };
        let _ = writeln!(
            text,
            "hang-up   {:<13} {:<22} median {median} ms, worst {worst} ms, {n} times{unseen}",
            h.target, h.what
        );
    }
    for (gateway, own) in &seen.own {
        for (name, by_measure) in [("decision", &own.decision), ("admission", &own.admission)] {
            for (measure, histogram) in by_measure {
                let us = |q| show(histogram.quantile(q).map(|s| s * 1e6));
                let _ = writeln!(text, "{name:<9} {gateway:<13} {measure:<8} p50 {} us, p99 {} us", us(0.5), us(0.99));
            }
        }
    }
    for (gateway, published) in &seen.published {
        let _ = writeln!(text, "{}", publish::line(gateway, published));
    }
    for (gateway, own) in &seen.own {
        let starts = own.cold_starts_ms.iter().map(|x| show(Some(*x))).collect::<Vec<_>>().join(" ");
        let (size, peak) = (own.database_mib, show(own.peak_mib));
        let _ = writeln!(
            text,
            "{gateway:<23} cold starts {starts} ms with a database of {size:.1} MiB; peak resident under the loads {peak} MiB"
        );
    }
    text
}

/// How fast one chain grows, and whether it is the commits that say so.
fn appends(seen: &Seen) -> String {
    let mut text = String::new();
    for connections in CONNECTIONS {
        for batches in [Batches::Default, Batches::OfOne] {
            let of = |what| condensed(seen, connections, batches, what);
            let _ = writeln!(
                text,
                "append    {:<13} {connections:>2} connections: {} entries/s in {} writing transactions/s, CPU {} us/entry, machine {}% busy, {}% by others",
                batches.name(),
                show(of(|g| g.entries_per_s)),
                show(of(|g| g.transactions_per_s)),
                show(of(|g| g.cpu_per_entry_us)),
                show(of(|g| g.busy * 100.0)),
                show(of(|g| g.foreign * 100.0))
            );
        }
        let ratio = show(batch_ratio(seen, connections));
        let is_full = |batches| condensed(seen, connections, batches, |g| g.busy).is_some_and(|busy| busy > BUSY);
        let why = match [Batches::Default, Batches::OfOne].map(is_full) {
            [true, true] => "; the machine is full with either: the ratio is one of CPU as much as of commits",
            [true, false] => "; the machine is full with batches: with more CPU the ratio grows",
            [false, _] => "",
        };
        let _ = writeln!(text, "append    ratio         {connections:>2} connections: {ratio}{why}");
    }
    text
}

pub fn write(seen: &Seen, out: &Path) -> Result<(), String> {
    let json = figure::to_json(&figures(seen));
    fs::write(out, json).map_err(|e| format!("{}: {e}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{figures::cluster::Growth, load::Outcome};

    pub fn row(round: usize, target: &'static str, ok: u64, cpu: f64) -> Row {
        let outcome = Outcome { seconds: 1.0, ok, ..Outcome::default() };
        Row { round, measure: SATURATED, target, outcome, cpu, foreign: 0.1 }
    }

    #[test]
    fn a_row_with_one_bad_answer_is_an_error() {
        let mut bad = row(1, GATEWAY, 10, 0.1);
        bad.outcome.errors = 1;
        bad.outcome.bad.insert(503, 1);
        let rows = vec![row(1, BARE, 10, 0.1), bad];
        let growths =
            vec![Growth { calls: 10, ..Growth::default() }, Growth { calls: 9, errors: 1, ..Growth::default() }];
        assert_eq!(errors(&Seen { rows, growths, ..Seen::default() }).len(), 2);
    }

    #[test]
    fn a_busy_machine_is_named() {
        let growth = |batches, busy| Growth { connections: CONNECTIONS[0], batches, busy, ..Growth::default() };
        let told = |batched, single| {
            let growths = vec![growth(Batches::Default, batched), growth(Batches::OfOne, single)];
            appends(&Seen { growths, ..Seen::default() })
        };
        assert!(told(0.97, 0.5).contains("full with batches") && told(0.97, 0.95).contains("full with either"));
        assert!(!told(0.6, 0.5).contains("full"));
    }
}
