//! Which figures there are: how each is made of what a run has seen, its bar and its aim.
//! Pure. The bars are those of the issues; where none names one for PostgreSQL there is none.

use crate::{
    figures::{
        BARE, FIXED_RATE, GATEWAY, GATEWAY_PG, GATEWAY_RAM, ONE_OF_THREE, Own, SATURATED, STREAMS, Seen,
        cluster::{Batches, CONNECTIONS, Growth},
        publish::Published,
        report::{
            figure::{Figure, Value},
            foreign,
        },
    },
    measure::{self, Column, Rows, cost, cost_of_event, median, minus, p50, ratio},
};

pub fn figures(seen: &Seen) -> Vec<Figure> {
    let mut all = loads(seen);
    all.extend(latencies(seen));
    all.extend(changes(seen));
    all.push(
        Figure::lower("foreign_cpu_percent", "the machine's share of others")
            .sqlite(Value::new("foreign_cpu_percent", foreign(seen))),
    );
    all
}

fn loads(seen: &Seen) -> Vec<Figure> {
    let rows = Rows(&seen.rows);
    let sync = median(seen.syncs.clone());
    let against_bare =
        |key, target, measure, column: Column, how| Value::new(key, rows.against(measure, target, BARE, column, how));
    let cold = |key, gateway| Value::new(key, own(seen, gateway, |own| median(own.cold_starts_ms.clone())));
    let rss = |key, gateway| Value::new(key, own(seen, gateway, |own| own.rss_mib));
    vec![
        Figure::lower("cold_start_ms", "start to first 200, existing database")
            .sqlite(cold("cold_start_ms", GATEWAY).bar(250.0).aim(100.0))
            .postgres(cold("cold_start_ms_pg", GATEWAY_PG)),
        Figure::lower("rss_idle_mib", "the gateway's resident memory after one call and 2 s")
            .sqlite(rss("rss_idle_mib", GATEWAY).bar(40.0).aim(25.0))
            .postgres(rss("rss_idle_mib_pg", GATEWAY_PG)),
        Figure::lower("cpu_ratio_bare", "CPU per request ÷ bare, 64 connections; PostgreSQL's counted in")
            .sqlite(against_bare("cpu_ratio_bare", GATEWAY, SATURATED, cost, ratio).bar(8.0).aim(4.0))
            .postgres(against_bare("cpu_ratio_bare_pg", GATEWAY_PG, SATURATED, cost, ratio)),
        Figure::higher("rps_ratio_bare", "req/s ÷ bare, 64 connections")
            .sqlite(against_bare("rps_ratio_bare", GATEWAY, SATURATED, measure::rate, ratio).bar(0.08).aim(0.15))
            .postgres(against_bare("rps_ratio_bare_pg", GATEWAY_PG, SATURATED, measure::rate, ratio)),
        Figure::higher("rps_ratio_bare_ramdisk", "the same, data on a RAM disk").sqlite(against_bare(
            "rps_ratio_bare_ramdisk",
            GATEWAY_RAM,
            SATURATED,
            measure::rate,
            ratio,
        )),
        Figure::lower("p50_above_bare_us", "p50 less bare's at 500/s; bar: 2 fdatasync + 500")
            .sqlite(
                against_bare("p50_above_bare_us", GATEWAY, FIXED_RATE, p50, minus).bar(sync.map(|s| 2.0 * s + 500.0)),
            )
            .postgres(against_bare("p50_above_bare_us_pg", GATEWAY_PG, FIXED_RATE, p50, minus)),
        Figure::lower("fdatasync_us", "after a 4-8 KiB append, beside the data, no load")
            .sqlite(Value::new("fdatasync_us", sync)),
        Figure::lower("stream_cpu_ratio_bare", "CPU per stream event ÷ bare")
            .sqlite(against_bare("stream_cpu_ratio_bare", GATEWAY, STREAMS, cost_of_event, ratio).bar(2.0).aim(1.5))
            .postgres(against_bare("stream_cpu_ratio_bare_pg", GATEWAY_PG, STREAMS, cost_of_event, ratio)),
    ]
}

fn latencies(seen: &Seen) -> Vec<Figure> {
    // The slowest kind of hang-up speaks for all.
    let cancel = |key, gateway| {
        let of = seen.hang_ups.iter().filter(|h| h.target == gateway);
        Value::new(key, of.filter_map(|h| h.median()).max_by(f64::total_cmp))
    };
    let decision = |key, gateway, q| {
        Value::new(key, own(seen, gateway, |own| Some(own.decision.get(FIXED_RATE)?.quantile(q)? * 1e6)))
    };
    let admission = |key, gateway, q| {
        Value::new(key, own(seen, gateway, |own| Some(own.admission.get(FIXED_RATE)?.quantile(q)? * 1e6)))
    };
    vec![
        Figure::lower("cancel_ms", "hang-up to abort at the provider: worst kind's median")
            .sqlite(cancel("cancel_ms", GATEWAY).aim(50.0))
            .postgres(cancel("cancel_ms_pg", GATEWAY_PG)),
        Figure::lower("decision_p50_us", "decision, from /metrics, at 500/s")
            .sqlite(decision("decision_p50_us", GATEWAY, 0.5))
            .postgres(decision("decision_p50_us_pg", GATEWAY_PG, 0.5)),
        Figure::lower("decision_p99_us", "").sqlite(decision("decision_p99_us", GATEWAY, 0.99)).postgres(decision(
            "decision_p99_us_pg",
            GATEWAY_PG,
            0.99,
        )),
        Figure::lower("admission_p50_us", "admission, from /metrics, at 500/s")
            .sqlite(admission("admission_p50_us", GATEWAY, 0.5))
            .postgres(admission("admission_p50_us_pg", GATEWAY_PG, 0.5)),
        Figure::lower("admission_p99_us", "").sqlite(admission("admission_p99_us", GATEWAY, 0.99)).postgres(admission(
            "admission_p99_us_pg",
            GATEWAY_PG,
            0.99,
        )),
    ]
}

/// What a change costs, and what a commit of several entries is worth.
fn changes(seen: &Seen) -> Vec<Figure> {
    let publish = |key, gateway| Value::new(key, seen.published.get(gateway).and_then(Published::median));
    let worst = |key, gateway| Value::new(key, seen.published.get(gateway).and_then(Published::worst));
    let rate = |key, batches| Value::new(key, condensed(seen, CONNECTIONS[0], batches, |g| g.entries_per_s));
    vec![
        Figure::lower("publish_ms", "publish to acknowledged, median")
            .sqlite(publish("publish_ms", GATEWAY).bar(50.0))
            .postgres(publish("publish_pg_ms", GATEWAY_PG).bar(50.0)),
        Figure::lower("publish_worst_ms", "the slowest of them")
            .sqlite(worst("publish_worst_ms", GATEWAY))
            .postgres(worst("publish_worst_pg_ms", GATEWAY_PG)),
        Figure::lower("publish_of_three_ms", "the same, acknowledged by three instances")
            .postgres(publish("publish_of_three_pg_ms", ONE_OF_THREE)),
        Figure::higher("append_batch_ratio", "entries/s on one chain: batches ÷ one by one, three gateways")
            .postgres(Value::new("append_batch_ratio_pg", batch_ratio(seen, CONNECTIONS[0])).bar(5.0)),
        Figure::higher("append_per_s", "those of the batches").postgres(rate("append_per_s_pg", Batches::Default)),
        Figure::higher("append_single_per_s", "and one by one")
            .postgres(rate("append_single_per_s_pg", Batches::OfOne)),
    ]
}

fn own(seen: &Seen, gateway: &str, what: impl Fn(&Own) -> Option<f64>) -> Option<f64> {
    seen.own.get(gateway).and_then(what)
}

/// The median over rounds of the ratio within a round.
pub fn batch_ratio(seen: &Seen, connections: usize) -> Option<f64> {
    let of = |batches| seen.growths.iter().filter(move |g| g.connections == connections && g.batches == batches);
    let single = |round| of(Batches::OfOne).find(|g| g.round == round).map(|g| g.entries_per_s);
    median(of(Batches::Default).filter_map(|g| Some(g.entries_per_s / single(g.round)?)).collect())
}

/// The median over rounds.
pub fn condensed(seen: &Seen, connections: usize, batches: Batches, what: fn(&Growth) -> f64) -> Option<f64> {
    let of = seen.growths.iter().filter(|g| g.connections == connections && g.batches == batches);
    median(of.map(what).collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::{
        figures::report::{figure::to_json, tests::row},
        measure::Row,
    };

    fn value(seen: &Seen, key: &str) -> Option<f64> {
        let figures = figures(seen);
        let all = figures.iter().flat_map(|f| f.sqlite.iter().chain(&f.postgres));
        all.into_iter().find(|v| v.key == key).and_then(|v| v.value)
    }

    #[test]
    fn ratios_are_taken_within_a_round() {
        let rows: Vec<Row> = vec![
            row(1, BARE, 1000, 0.1),
            row(1, GATEWAY, 100, 0.05),
            row(1, GATEWAY_PG, 100, 0.1),
            row(2, BARE, 500, 0.1),
            row(2, GATEWAY, 100, 0.1),
            row(3, BARE, 1000, 0.1),
            row(3, GATEWAY, 150, 0.09),
        ];
        let seen = Seen { rows, ..Seen::default() };
        assert_eq!(value(&seen, "rps_ratio_bare"), Some(0.15));
        assert!((value(&seen, "cpu_ratio_bare").unwrap() - 5.0).abs() < 1e-9);
        assert!((value(&seen, "cpu_ratio_bare_pg").unwrap() - 10.0).abs() < 1e-9);
    }

    #[test]
    fn group_commit_is_compared_within_a_round() {
        let growth = |round, batches, entries_per_s| Growth {
            round,
            batches,
            connections: CONNECTIONS[0],
            entries_per_s,
            ..Growth::default()
        };
        let growths = vec![
            growth(1, Batches::Default, 4000.0),
            growth(1, Batches::OfOne, 500.0),
            growth(2, Batches::Default, 2000.0),
            growth(2, Batches::OfOne, 400.0),
            growth(3, Batches::Default, 9000.0),
            growth(3, Batches::OfOne, 1500.0),
        ];
        let seen = Seen { growths, ..Seen::default() };
        assert_eq!(value(&seen, "append_batch_ratio_pg"), Some(6.0));
        assert_eq!(value(&seen, "append_per_s_pg"), Some(4000.0));
        assert_eq!(batch_ratio(&seen, CONNECTIONS[1]), None);
    }

    #[test]
    fn what_was_not_measured_is_null() {
        let json: serde_json::Value = serde_json::from_str(&to_json(&figures(&Seen::default()))).unwrap();
        let all = json.as_object().unwrap();
        assert!(all.values().all(serde_json::Value::is_null));
        // 14 of the first form, 11 siblings, publishes (2 medians, 2 worst, of three), appends (ratio, 2 rates).
        assert_eq!(all.len(), 33);
    }

    #[test]
    fn every_figure_of_sqlite_has_a_sibling_but_those_that_no_database_changes() {
        let figures = figures(&Seen::default());
        let alone: BTreeSet<&str> = figures.iter().filter(|f| f.postgres.is_none()).map(|f| f.name).collect();
        assert_eq!(alone, BTreeSet::from(["fdatasync_us", "foreign_cpu_percent", "rps_ratio_bare_ramdisk"]));
    }
}
