//! What a misbehaving instance may sign: freshness, money, and counters that never become entries.

use std::collections::HashSet;

use super::*;

#[test]
fn a_stale_admission_after_a_change_breaks_freshness_and_nothing_else() {
    let mut world = World::busy();
    let same_number = ConfigStamp { tag: Digest([1; 32]), ..world.config };
    for config in [world.old_config, same_number] {
        let mut ask = world.ask(0, kind::ADMISSION, json!({"reserved_nano": 1}));
        ask.config = config;
        world.commit(0, &[ask]);
    }
    let report = world.report();
    assert_eq!(report.freshness.first.as_ref().unwrap().seq, Some(world.head.seq - 1));
    assert_eq!(report.freshness.findings, 2);
    assert!(report.integrity.is_ok() && report.completeness.is_ok() && report.budget.is_ok(), "{report}");
}

#[test]
fn a_change_starts_from_what_is_in_force_and_counts_by_one() {
    for (version, config, said) in
        [(3, None, "change from version 1 to 3"), (2, Some(ConfigStamp::NONE), "change under version 0")]
    {
        let mut world = World::new();
        let mut ask = world.ask(0, "key.revoked", json!({"produced": {"digest": Digest::ZERO, "version": version}}));
        ask.config = config.unwrap_or(world.config);
        world.commit(0, &[ask]);
        let report = verify(Evidence { config: None, ..world.evidence() }, &world.keys(), world.entries.clone());
        let found = report.freshness.first.unwrap();
        assert_eq!((found.seq, found.why.starts_with(said)), (Some(2), true), "{}", found.why);
    }
    let mut world = World::new();
    let ask = world.ask(0, "key.revoked", json!({"produced": {"version": "2"}}));
    world.commit(0, &[ask]);
    assert_eq!(first(&world.report().freshness).0, Some(2));
}

#[test]
fn a_head_row_with_another_configuration_breaks_freshness() {
    let world = World::busy();
    let report = verify(Evidence { config: Some(world.old_config), ..world.evidence() }, &world.keys(), world.entries);
    assert!(report.integrity.is_ok() && !report.freshness.is_ok());
}

#[test]
fn money_that_does_not_add_up_is_found() {
    let closing = |admission: Value, settled: i64| json!({"admission": admission, "settled_nano": settled});
    let cases = [
        (kind::ADMISSION, json!({}), "without a `reserved_nano`"),
        (kind::ADMISSION, json!({"reserved_nano": -1}), "without a `reserved_nano`"),
        (kind::COMPLETION, json!({"settled_nano": 1}), "names no admission"),
        (kind::COMPLETION, closing(json!({"boot": "boot_9", "counter": 1}), 1), "not admitted before"),
        (kind::COMPLETION, closing(json!({"boot": "boot_2", "counter": 1}), 901), "settled 901"),
        (kind::COMPLETION, closing(json!({"boot": "boot_2", "counter": 2}), 1), "second completion"),
        (kind::COMPLETION, json!({"admission": {"boot": "boot_2", "counter": 1}}), "without a `settled_nano`"),
    ];
    for (kind, content, said) in cases {
        let mut world = World::new();
        world.admit(1, 2);
        world.open.pop_front();
        world.complete(2);
        let ask = world.ask(0, kind, content);
        world.commit(0, &[ask]);
        let report = world.report();
        let found = report.budget.first.clone().expect(said);
        assert!(found.seq == Some(world.head.seq) && found.why.contains(said), "{}", found.why);
        assert!(report.integrity.is_ok() && report.completeness.is_ok() && report.freshness.is_ok());
    }
}

/// Two admissions of the second boot, 900 each; what the third boot then says about the first of them, and the findings
/// about money that this makes, with held and settled sums at the end.
fn said_about_the_first(entries: &[(&'static str, Value)]) -> (Vec<u64>, Option<String>, (i64, i64)) {
    let mut world = World::new();
    world.admit(1, 2);
    let mut findings = Vec::new();
    let mut report = world.report();
    for (kind, content) in entries {
        let mut content = content.clone();
        content["admission"] = json!({"boot": "boot_2", "counter": 1});
        let ask = world.ask(2, kind, content);
        world.commit(2, &[ask]);
        report = world.report();
        findings.push(report.budget.findings);
        assert!(report.integrity.is_ok() && report.completeness.is_ok() && report.freshness.is_ok(), "{report}");
    }
    let why = report.budget.first.map(|finding| finding.why);
    (findings, why, (report.counts.held_nano.0, report.counts.settled_nano.0))
}

fn more(reserved: i64) -> (&'static str, Value) {
    (kind::EXTENSION, json!({ "reserved_nano": reserved }))
}

fn ended(outcome: &str, settled: i64) -> (&'static str, Value) {
    (kind::COMPLETION, json!({ "outcome": outcome, "settled_nano": settled }))
}

fn late(by: i64, settled: i64) -> (&'static str, Value) {
    (kind::LATE, json!({ "by_nano": by, "settled_nano": settled }))
}

#[test]
fn an_extension_adds_to_what_its_admission_reserved() {
    assert_eq!(said_about_the_first(&[more(50)]), (vec![0], None, (1850, 0)));
    let (findings, why, sums) = said_about_the_first(&[more(50), more(1), ended("completed", 951)]);
    assert_eq!((findings, why, sums), (vec![0, 0, 0], None, (900, 951)));
    let (findings, why, _) = said_about_the_first(&[more(50), ended("completed", 951)]);
    assert_eq!((findings, why.unwrap()), (vec![0, 1], "settled 951 nano-dollars out of 950 reserved".to_owned()));
}

#[test]
fn an_extension_of_what_is_not_open_is_found() {
    let cases: [(&[(&'static str, Value)], &str); 4] = [
        (&[ended("completed", 1), more(5)], "which had ended"),
        (&[ended("unknown", 900), more(5)], "which had ended"),
        (&[late(-900, 0), more(5)], "which had ended"),
        (&[(kind::EXTENSION, json!({}))], "extension without a `reserved_nano`"),
    ];
    for (entries, said) in cases {
        let (findings, why, _) = said_about_the_first(entries);
        assert!(findings.last() == Some(&1) && why.as_ref().unwrap().contains(said), "{why:?}");
    }
    for kind in [kind::EXTENSION, kind::LATE] {
        let mut world = World::new();
        let admission = json!({"boot": "boot_9", "counter": 1});
        let ask = world.ask(0, kind, json!({ "admission": admission, "reserved_nano": 1, "settled_nano": 1 }));
        world.commit(0, &[ask]);
        let report = world.report();
        assert!(report.budget.first.unwrap().why.contains("boot_9/1, which was not admitted before"));
    }
}

#[test]
fn a_late_end_corrects_what_was_settled_as_unknown_and_only_that() {
    let entries = [more(100), ended("unknown", 1000), late(-990, 10)];
    assert_eq!(said_about_the_first(&entries), (vec![0, 0, 0], None, (900, 10)));
    // Who was taken for dead may come first.
    let entries = [more(100), late(-990, 10), ended("unknown", 1000)];
    assert_eq!(said_about_the_first(&entries), (vec![0, 0, 0], None, (900, 10)));
}

#[test]
fn a_late_end_that_does_not_fit_is_found() {
    let cases: [(&[(&'static str, Value)], &str); 8] = [
        (&[ended("completed", 900), late(-890, 10)], "whose outcome was known"),
        (&[late(-890, 10), ended("completed", 10)], "with another outcome than `unknown`"),
        (&[ended("unknown", 900), late(-890, 10), late(-890, 10)], "second late end of boot_2/1"),
        (&[ended("unknown", 900), late(-889, 10)], "corrects by -889 to 10"),
        (&[more(5), ended("unknown", 905), late(-890, 10)], "corrects by -890 to 10"),
        (&[ended("unknown", 900), late(1, 901)], "settled 901 nano-dollars out of 900"),
        (&[ended("unknown", 900), late(-901, -1)], "without a `settled_nano` of 0 or more"),
        (&[ended("unknown", 900), (kind::LATE, json!({"settled_nano": 3}))], "and a `by_nano`"),
    ];
    for (entries, said) in cases {
        let (findings, why, _) = said_about_the_first(entries);
        assert!(findings.last() == Some(&1) && why.as_ref().unwrap().contains(said), "{why:?}");
    }
}

#[test]
fn open_admissions_hold_and_completions_settle() {
    let mut world = World::new();
    world.admit(0, 3);
    world.complete(1);
    let counts = world.report().counts;
    assert_eq!((counts.admissions, counts.completions, counts.open), (3, 1, 2));
    assert_eq!((counts.held_nano.0, counts.settled_nano.0), (1800, 7));
}

#[test]
fn a_counter_that_was_left_out_is_pending_until_its_boot_is_closed() {
    let mut world = World::new();
    let mut ask = world.ask(1, kind::ADMISSION, json!({"reserved_nano": 1}));
    ask.left_out = true;
    world.commit(1, &[ask]);
    assert_eq!((world.report().is_ok(), world.report().counts.pending), (true, 1));
    let closed = HashSet::from([world.boots[1].id.clone()]);
    let known = verify(Evidence { closed, ..world.evidence() }, &world.keys(), world.entries.clone());
    assert_eq!(known.completeness.findings, 1);

    // Recovery closes the boot on the chain, and says what nobody will write any more.
    for (unwritten, whole) in [(json!([]), false), (json!([1]), true)] {
        let closing = world.ask(2, kind::BOOT_CLOSED, json!({"boot": "boot_2", "unwritten": unwritten}));
        world.commit(2, &[closing]);
        assert_eq!(world.report().completeness.is_ok(), whole);
    }
}

#[test]
fn a_batch_of_an_unknown_key_covers_nothing() {
    let world = World::busy();
    let two = Jwks::new(world.boots[..2].iter().map(|boot| boot.key.public().clone()));
    let report = verify(world.evidence(), &two, world.entries.clone());
    assert!(report.integrity.first.unwrap().why.contains("no key is named"));
    let mut evidence = world.evidence();
    evidence.batches.retain(|row| row.boot != world.boots[2].id);
    let silent = verify(evidence, &world.keys(), world.entries);
    assert_eq!(first(&silent.integrity).1, "forged");
}

#[test]
fn an_anchor_of_another_history_is_found() {
    let mut other = World::new();
    other.refuse(2);
    other.checkpoint();
    let mut world = World::new();
    world.refuse(1);
    let anchors = other.checkpoints.clone();
    let report = verify(Evidence { anchors, ..world.evidence() }, &world.keys(), world.entries.clone());
    assert_eq!(first(&report.integrity), (Some(2), "rewritten"));
    let anchors = vec![other.checkpoints[0].replace("org_a", "org_b")];
    let foreign = verify(Evidence { anchors, ..world.evidence() }, &world.keys(), world.entries);
    assert!(foreign.integrity.first.unwrap().why.contains("not of this chain"));
}
