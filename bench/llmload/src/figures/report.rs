//! What a run says: a table of raw numbers, the figures with bar and aim, and the JSON.
//! Pure but for printing and the one file. What could not be measured is null, never zero.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::Path,
};

use crate::{
    figures::{BARE, FIXED_RATE, GATEWAY, GATEWAY_RAM, SATURATED, STREAMS, Seen, histogram::Histogram},
    measure::{Row, Rows, cost, cost_of_event, foreign_percent, median, minus, p50, p99, rate, ratio, show},
};

/// One line of the result.
struct Figure {
    key: &'static str,
    value: Option<f64>,
    bar: Option<f64>,
    aim: Option<f64>,
    /// Else lower is.
    higher_is_better: bool,
    what: &'static str,
}

impl Figure {
    fn lower(key: &'static str, value: Option<f64>, bar: Option<f64>, aim: Option<f64>, what: &'static str) -> Self {
        Figure { key, value, bar, aim, higher_is_better: false, what }
    }

    fn higher(key: &'static str, value: Option<f64>, bar: Option<f64>, aim: Option<f64>, what: &'static str) -> Self {
        Figure { key, value, bar, aim, higher_is_better: true, what }
    }

    fn verdict(&self) -> &'static str {
        let meets = |limit: f64| self.value.map(|v| if self.higher_is_better { v >= limit } else { v <= limit });
        if self.value.is_none() {
            return "not measured";
        }
        match (self.bar.and_then(meets), self.aim.and_then(meets)) {
            (_, Some(true)) => "aim met",
            (Some(false), _) => "BAR MISSED",
            (Some(true), _) => "bar met",
            (None, Some(false)) => "aim missed",
            (None, None) => "",
        }
    }
}

fn figures(seen: &Seen) -> Vec<Figure> {
    let rows = Rows(&seen.rows);
    let sync = median(seen.syncs.clone());
    let against_bare = |measure, target, column, how| rows.against(measure, target, BARE, column, how);
    let micros = |by_measure: &BTreeMap<&str, Histogram>, q| Some(by_measure.get(FIXED_RATE)?.quantile(q)? * 1e6);
    // The slowest kind of hang-up speaks for all.
    let cancel = seen.hang_ups.iter().filter(|h| h.target == GATEWAY).filter_map(|h| h.median()).max_by(f64::total_cmp);
    vec![
        Figure::lower(
            "cold_start_ms",
            median(seen.cold_starts_ms.clone()),
            Some(250.0),
            Some(100.0),
            "start to first 200, existing database",
        ),
        Figure::lower("rss_idle_mib", seen.rss_mib, Some(40.0), Some(25.0), "resident after one call and 2 s"),
        Figure::lower(
            "cpu_ratio_bare",
            against_bare(SATURATED, GATEWAY, cost, ratio),
            Some(8.0),
            Some(4.0),
            "CPU per request ÷ bare, 64 connections",
        ),
        Figure::higher(
            "rps_ratio_bare",
            against_bare(SATURATED, GATEWAY, rate, ratio),
            Some(0.08),
            Some(0.15),
            "req/s ÷ bare, 64 connections",
        ),
        Figure::higher(
            "rps_ratio_bare_ramdisk",
            against_bare(SATURATED, GATEWAY_RAM, rate, ratio),
            None,
            None,
            "the same, data on a RAM disk",
        ),
        Figure::lower(
            "p50_above_bare_us",
            against_bare(FIXED_RATE, GATEWAY, p50, minus),
            sync.map(|s| 2.0 * s + 500.0),
            None,
            "p50 less bare's at 500/s; bar: 2 fdatasync + 500",
        ),
        Figure::lower("fdatasync_us", sync, None, None, "after a 4-8 KiB append, beside the data, no load"),
        Figure::lower(
            "stream_cpu_ratio_bare",
            against_bare(STREAMS, GATEWAY, cost_of_event, ratio),
            Some(2.0),
            Some(1.5),
            "CPU per stream event ÷ bare",
        ),
        Figure::lower("cancel_ms", cancel, None, Some(50.0), "hang-up to abort at the provider: worst kind's median"),
        Figure::lower("decision_p50_us", micros(&seen.decision, 0.5), None, None, "decision, from /metrics, at 500/s"),
        Figure::lower("decision_p99_us", micros(&seen.decision, 0.99), None, None, ""),
        Figure::lower(
            "admission_p50_us",
            micros(&seen.admission, 0.5),
            None,
            None,
            "admission, from /metrics, at 500/s",
        ),
        Figure::lower("admission_p99_us", micros(&seen.admission, 0.99), None, None, ""),
        Figure::lower("foreign_cpu_percent", foreign(seen), None, None, "the machine's share of others"),
    ]
}

fn foreign(seen: &Seen) -> Option<f64> {
    median(seen.rows.iter().map(foreign_percent).collect())
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

/// What was answered otherwise than by a whole 200, one line a row.
pub fn errors(rows: &[Row]) -> Vec<String> {
    rows.iter()
        .filter(|r| r.outcome.errors > 0 || r.outcome.ok == 0)
        .map(|r| {
            let bad = &r.outcome.bad;
            format!(
                "round {} {} {}: {} with 200; others by status (0: connection) {bad:?}",
                r.round, r.measure, r.target, r.outcome.ok
            )
        })
        .collect()
}

pub fn rounds(seen: &Seen) -> usize {
    seen.rows.iter().map(|r| r.round).collect::<BTreeSet<_>>().len()
}

pub fn print(seen: &Seen) {
    println!("{}\n{}", raw(seen), table(&figures(seen)));
    if foreign(seen).is_some_and(|f| f > 15.0) {
        println!("others used more than 15 % of the machine: rates and latencies are suspect, CPU ratios less so");
    }
}

fn table(figures: &[Figure]) -> String {
    let mut text = format!("{:<24}{:>10}{:>10}{:>8}  {:<13}\n", "figure", "value", "bar", "aim", "");
    for f in figures {
        let (value, bar, aim) = (show(f.value), show(f.bar), show(f.aim));
        let _ = writeln!(text, "{:<24}{value:>10}{bar:>10}{aim:>8}  {:<13}{}", f.key, f.verdict(), f.what);
    }
    text
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
        for target in [BARE, GATEWAY, GATEWAY_RAM] {
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
            "hang-up {:<22} {:<8} median {median} ms, worst {worst} ms, {n} times{unseen}",
            h.what, h.target
        );
    }
    for (name, by_measure) in [("decision", &seen.decision), ("admission", &seen.admission)] {
        for (measure, histogram) in by_measure {
            let us = |q| show(histogram.quantile(q).map(|s| s * 1e6));
            let _ = writeln!(text, "{name:<9} {measure:<8} p50 {} us, p99 {} us", us(0.5), us(0.99));
        }
    }
    let of = |v: &[f64]| v.iter().map(|x| show(Some(*x))).collect::<Vec<_>>().join(" ");
    let _ = writeln!(text, "cold starts, ms: {} (data folder {:.1} MiB)", of(&seen.cold_starts_ms), seen.database_mib);
    let _ = writeln!(text, "peak resident under these loads: {} MiB", show(seen.peak_mib));
    text
}

pub fn write(seen: &Seen, out: &Path) -> Result<(), String> {
    let json = to_json(&figures(seen));
    fs::write(out, json).map_err(|e| format!("{}: {e}", out.display()))?;
    println!("written to {}", out.display());
    Ok(())
}

/// In the order of the table, three digits after the point.
fn to_json(figures: &[Figure]) -> String {
    let number = |v: Option<f64>| v.map_or("null".to_owned(), |v| format!("{:?}", (v * 1e3).round() / 1e3));
    let lines: Vec<String> = figures.iter().map(|f| format!("  \"{}\": {}", f.key, number(f.value))).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::Outcome;

    fn row(round: usize, target: &'static str, ok: u64, cpu: f64) -> Row {
        let outcome = Outcome { seconds: 1.0, ok, ..Outcome::default() };
        Row { round, measure: SATURATED, target, outcome, cpu, foreign: 0.1 }
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rows = vec![
            row(1, BARE, 1000, 0.1),
            row(1, GATEWAY, 100, 0.05),
            row(2, BARE, 500, 0.1),
            row(2, GATEWAY, 100, 0.1),
            row(3, BARE, 1000, 0.1),
            row(3, GATEWAY, 150, 0.09),
        ];
        let figures = figures(&Seen { rows, ..Seen::default() });
        let value = |key| figures.iter().find(|f| f.key == key).and_then(|f| f.value);
        assert_eq!(value("rps_ratio_bare"), Some(0.15));
        assert!((value("cpu_ratio_bare").unwrap() - 5.0).abs() < 1e-9);
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let json: serde_json::Value = serde_json::from_str(&to_json(&figures(&Seen::default()))).unwrap();
        assert_eq!(json.as_object().unwrap().len(), 14);
        assert!(json.as_object().unwrap().values().all(serde_json::Value::is_null));
    }

    #[test]
    fn verdicts_look_the_right_way() {
        let verdict = |higher_is_better, value| {
            Figure {
                key: "k",
                value,
                bar: Some(2.0),
                aim: Some(if higher_is_better { 3.0 } else { 1.0 }),
                higher_is_better,
                what: "",
            }
            .verdict()
        };
        assert_eq!([0.5, 1.5, 2.5].map(|v| verdict(false, Some(v))), ["aim met", "bar met", "BAR MISSED"]);
        assert_eq!([3.5, 2.5, 1.5].map(|v| verdict(true, Some(v))), ["aim met", "bar met", "BAR MISSED"]);
        assert_eq!(verdict(true, None), "not measured");
    }

    #[test]
    fn a_row_with_one_bad_answer_is_an_error() {
        let mut bad = row(1, GATEWAY, 10, 0.1);
        bad.outcome.errors = 1;
        bad.outcome.bad.insert(503, 1);
        assert_eq!(errors(&[row(1, BARE, 10, 0.1), bad]).len(), 1);
    }
}
