//! What somebody with the database but without the keys may try, one by one.

use std::collections::HashSet;

use super::*;

#[test]
fn an_untouched_chain_verifies() {
    let world = World::busy();
    let report = world.report();
    assert!(report.is_ok(), "{report}");
    assert_eq!(report.counts.entries, world.entries.len() as u64);
    assert_eq!(report.counts.batches, world.batches.len() as u64);
    assert_eq!((report.counts.checkpoints, report.counts.anchors, report.counts.pending), (2, 1, 0));
    assert_eq!(report.counts.changes, 7);
    assert_eq!(report.counts.open, world.open.len() as u64);
    assert!(report.counts.anchored < report.counts.entries);
    assert_eq!(world.report(), report);
}

#[test]
fn an_empty_chain_verifies() {
    let evidence = Evidence {
        batches: vec![],
        checkpoints: vec![],
        anchors: vec![],
        head: None,
        config: None,
        ..World::new().evidence()
    };
    assert!(verify(evidence, &Jwks::default(), []).is_ok());
}

#[test]
fn an_edited_entry_is_found_where_it_stands() {
    let world = World::busy();
    let at = world.position("reserved_nano");
    let seq = Some(world.entries[at].seq);
    let mut entries = world.entries.clone();
    entries[at].body = entries[at].body.replace("900", "901");
    let edited = verify(world.evidence(), &world.keys(), entries.clone());
    assert_eq!(first(&edited.integrity), (seq, "altered"));
    assert!(edited.completeness.is_ok() && edited.freshness.is_ok());

    // The digest and all links after it are made to fit, and the head row too; only the signature cannot be.
    let head = Some(rehash(&mut entries));
    let refitted = verify(Evidence { head, ..world.evidence() }, &world.keys(), entries);
    assert_eq!(first(&refitted.integrity), (seq, "altered"));
    assert!(refitted.completeness.is_ok());
}

#[test]
fn an_edited_link_and_all_links_after_it_are_found() {
    let world = World::busy();
    let at = world.position("reserved_nano");
    let mut entries = world.entries.clone();
    entries[at].link = Digest([7; 32]);
    for next in at + 1..entries.len() {
        entries[next].link = chain::link(&entries[next - 1].link, entries[next].seq, &entries[next].digest);
    }
    let head = entries.last().map(|entry| Head { seq: entry.seq, link: entry.link });
    let report = verify(Evidence { head, ..world.evidence() }, &world.keys(), entries);
    assert_eq!(first(&report.integrity), (Some(world.entries[at].seq), "altered"));
}

#[test]
fn a_deleted_entry_is_missed() {
    let world = World::busy();
    let at = world.position("reserved_nano");
    let lost = EntryBody::parse(&world.entries[at].body).unwrap().id;
    let mut entries = world.entries.clone();
    entries.remove(at);
    let gap = verify(world.evidence(), &world.keys(), entries.clone());
    assert_eq!(first(&gap.completeness), (Some(world.entries[at].seq), "deleted"));

    let head = Some(relink(&mut entries));
    let refitted = verify(Evidence { head, ..world.evidence() }, &world.keys(), entries);
    let found = refitted.completeness.first.unwrap();
    assert!(found.seq <= Some(world.entries[at].seq) && found.why.starts_with("deleted"));
    assert_eq!(found.entry, Some(EntryRef { boot: lost.boot, counter: lost.counter }));
    assert!(!refitted.integrity.is_ok(), "later batches saw another chain");
}

#[test]
fn a_deleted_entry_whose_batch_is_made_to_disown_it_is_missed_too() {
    let mut world = World::busy();
    let at = world.position("policy.published");
    let lost = EntryBody::parse(&world.entries[at].body).unwrap().id;
    let mut entries = world.entries.clone();
    entries.remove(at);
    let head = Some(relink(&mut entries));
    for row in &mut world.batches {
        if row.boot == lost.boot && Batch::parse(&row.message).unwrap().items()[0].0 == lost.counter {
            row.unwritten = render_counters(&[lost.counter]);
        }
    }
    // While the boot lives, what it disowns is pending; but others saw the chain, and the change is missed.
    let live = verify(Evidence { head, ..world.evidence() }, &world.keys(), entries.clone());
    assert_eq!((live.completeness.is_ok(), live.counts.pending), (true, 1));
    assert!(!live.integrity.is_ok() && !live.freshness.is_ok());
    let closed = HashSet::from([lost.boot]);
    let dead = verify(Evidence { head, closed, ..world.evidence() }, &world.keys(), entries);
    assert!(dead.completeness.first.unwrap().why.contains("never written"));
}

#[test]
fn a_chain_cut_below_the_newest_checkpoint_is_found_with_and_without_its_head_row() {
    let mut world = World::busy();
    world.checkpoint();
    let keep = world.entries.len() - 3;
    let entries = world.entries[..keep].to_vec();
    let cut = Some(keep as u64 + 1);
    let last = entries.last().map(|entry| Head { seq: entry.seq, link: entry.link });
    let plain = verify(world.evidence(), &world.keys(), entries.clone());
    assert_eq!(first(&plain.completeness), (cut, "truncated"));
    assert!(plain.integrity.is_ok());

    let evidence = Evidence { head: last, ..world.evidence() };
    let with_head = verify(evidence, &world.keys(), entries.clone());
    assert_eq!(first(&with_head.completeness), (cut, "truncated"));

    // Head row, batches and stored checkpoints follow suit: the checkpoint kept outside does not.
    let batches = world.batches[..world.batches.len() - 2].to_vec();
    let mut evidence = Evidence { head: last, batches, checkpoints: vec![], ..world.evidence() };
    let anchored = verify(evidence.clone(), &world.keys(), entries.clone());
    assert_eq!(first(&anchored.completeness), (cut, "truncated"));
    evidence.anchors.clear();
    let blind = verify(evidence, &world.keys(), entries);
    assert!(blind.is_ok() && blind.to_string().contains("no checkpoint from outside was given"), "{blind}");
}

#[test]
fn reordered_entries_are_found() {
    let world = World::busy();
    let at = world.position("reserved_nano");
    let mut entries = world.entries.clone();
    entries.swap(at, at + 1);
    let lines = verify(world.evidence(), &world.keys(), entries.clone());
    assert_eq!(first(&lines.integrity), (Some(world.entries[at].seq), "reordered"));
    (entries[at].seq, entries[at + 1].seq) = (entries[at + 1].seq, entries[at].seq);
    let rows = verify(world.evidence(), &world.keys(), entries.clone());
    assert_eq!(first(&rows.integrity), (Some(world.entries[at].seq), "altered"));

    let head = Some(relink(&mut entries));
    let refitted = verify(Evidence { head, ..world.evidence() }, &world.keys(), entries);
    assert_eq!(first(&refitted.integrity).1, "rewritten");
}

#[test]
fn an_entry_before_what_its_boot_had_seen_is_found() {
    let mut world = World::new();
    let mut ask = world.ask(0, kind::REFUSAL, json!({}));
    let entry = world.build(0, &ask);
    world.commit_built(0, &[ask.clone()], vec![entry.clone()]);
    world.batches.pop();
    // The only batch left that claims to have written it was signed later.
    ask.left_out = true;
    world.boots[0].seen = world.head;
    world.commit_built(0, &[ask], vec![entry]);
    world.batches[1].unwritten = render_counters(&[]);
    let report = world.report();
    assert_eq!((first(&report.integrity), report.integrity.findings), ((Some(2), "reordered"), 1));
}

#[test]
fn a_forged_entry_is_found_where_it_stands() {
    let mut world = World::busy();
    let at = world.position("reserved_nano");
    for (counter, boot) in [(5_000, "boot_1"), (1, "boot_x")] {
        let boot = BootId::parse(boot).unwrap();
        let config = EntryBody::parse(&world.entries[at].body).unwrap().config;
        let header = Header { org: &world.org, boot: &boot, counter, config, kind: kind::REFUSAL, time: 0 };
        let forged = Entry::build(&header, &json!({})).unwrap();
        let mut entries = world.entries.clone();
        entries.insert(at, StoredEntry { seq: 0, link: Digest::ZERO, digest: forged.digest, body: forged.body });
        let head = Some(relink(&mut entries));
        let report = verify(Evidence { head, ..world.evidence() }, &world.keys(), entries);
        assert_eq!(first(&report.integrity), (Some(at as u64 + 1), "forged"));
    }
    // An entry that is there already, once more.
    let copy = world.entries[at].clone();
    world.entries.insert(at + 4, copy);
    let head = Some(relink(&mut world.entries));
    let report = verify(Evidence { head, ..world.evidence() }, &world.keys(), world.entries.clone());
    assert_eq!(first(&report.integrity).0, Some(at as u64 + 5));
    assert!(!report.budget.is_ok(), "admitted twice");
}

#[test]
fn swapped_texts_are_found() {
    let world = World::busy();
    let at = world.position("reserved_nano");
    let mut entries = world.entries.clone();
    let body = std::mem::replace(&mut entries[at].body, world.entries[at + 1].body.clone());
    entries[at + 1].body = body;
    let report = verify(world.evidence(), &world.keys(), entries);
    assert_eq!(first(&report.integrity), (Some(world.entries[at].seq), "altered"));
}

#[test]
fn a_signed_entry_that_was_left_out_cannot_be_put_in() {
    let mut world = World::busy();
    let at = world.position("reserved_nano");
    // The stale version of an admission takes the place of the one that was written: its bytes are signed, too.
    let mut ask = world.ask(1, kind::ADMISSION, json!({"reserved_nano": 1}));
    (ask.config, ask.left_out) = (world.old_config, true);
    let stale = world.build(1, &ask);
    world.commit(1, &[ask.clone()]);
    let mut entries = world.entries.clone();
    entries.insert(at, StoredEntry { seq: 0, link: Digest::ZERO, digest: stale.digest, body: stale.body });
    let head = Some(relink(&mut entries));
    let report = verify(Evidence { head, ..world.evidence() }, &world.keys(), entries);
    assert_eq!(first(&report.integrity), (Some(at as u64 + 1), "forged"));
}
