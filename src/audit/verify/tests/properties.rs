//! Any honest chain verifies; any edit is found.

use proptest::prelude::*;

use super::*;
use crate::audit::export;

/// One of the things that happen, by number.
fn happen(world: &mut World, boot: usize, what: u8) {
    match what {
        0 | 1 => world.admit(boot, 1 + boot),
        2 => world.stale(boot),
        3 => world.refuse(boot),
        4 | 5 => world.complete(boot),
        6 => world.change(boot),
        7 => world.asked_again(boot),
        _ => world.checkpoint(),
    }
}

fn any_world() -> impl Strategy<Value = World> {
    proptest::collection::vec((0..3_usize, 0..9_u8), 1..40).prop_map(|events| {
        let mut world = World::new();
        for (boot, what) in events {
            happen(&mut world, boot, what);
        }
        world.checkpoint();
        world
    })
}

fn edit_digest(digest: &mut Digest, at: usize, bits: u8) {
    digest.0[at % 32] ^= bits;
}

/// Replaces one character by another ASCII one.
fn edit_text(text: &mut String, at: usize, bits: u8) {
    let mut chars: Vec<char> = text.chars().collect();
    let at = at % chars.len();
    let new = char::from(bits % 128);
    chars[at] = if chars[at] == new { char::from((bits + 1) % 128) } else { new };
    *text = chars.into_iter().collect();
}

fn edit_id(id: &str, at: usize, bits: u8) -> Option<String> {
    let mut text = id.to_owned();
    edit_text(&mut text, at, bits);
    OrgId::parse(&text).ok().map(|id| id.as_str().to_owned())
}

/// Edits one byte of one stored field; false if the field cannot hold the result.
fn edit(evidence: &mut Evidence, entries: &mut [StoredEntry], field: u8, row: usize, (at, bits): (usize, u8)) -> bool {
    let entry = row % entries.len();
    let entry = &mut entries[entry];
    let batch = row % evidence.batches.len();
    let batch = &mut evidence.batches[batch];
    match field {
        0 => entry.seq ^= u64::from(bits) << (8 * (at % 8)),
        1 => edit_digest(&mut entry.link, at, bits),
        2 => edit_digest(&mut entry.digest, at, bits),
        3..=6 => edit_text(&mut entry.body, at, bits),
        7 => batch.message[at % 60] ^= bits,
        8 => {
            let at = at % batch.message.len();
            batch.message[at] ^= bits;
        }
        9 => edit_text(&mut batch.kid, at, bits),
        10 => batch.signature[at % 64] ^= bits,
        11 => edit_text(&mut batch.unwritten, at, bits),
        12 => batch.number ^= u64::from(bits),
        13 => {
            let note = row % evidence.checkpoints.len();
            edit_text(&mut evidence.checkpoints[note], at, bits);
        }
        14 => edit_digest(&mut evidence.head.as_mut().unwrap().link, at, bits),
        15 => evidence.head.as_mut().unwrap().seq ^= u64::from(bits) << (8 * (at % 8)),
        16 => match edit_id(batch.boot.as_str(), at, bits) {
            Some(id) => batch.boot = BootId::parse(&id).unwrap(),
            None => return false,
        },
        _ => match edit_id(batch.org.as_str(), at, bits) {
            Some(id) => batch.org = OrgId::parse(&id).unwrap(),
            None => return false,
        },
    }
    true
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_honest_chain_verifies(world in any_world()) {
        let report = world.report();
        prop_assert!(report.is_ok(), "{}", report);
        prop_assert_eq!(report.counts.anchored, report.counts.entries);
    }

    #[test]
    fn any_byte_of_any_field_edited_is_found(
        world in any_world(),
        edits in proptest::collection::vec((0..18_u8, any::<usize>(), any::<usize>(), 1..=255_u8), 30),
    ) {
        for (field, row, at, bits) in edits {
            let (mut evidence, mut entries) = (world.evidence(), world.entries.clone());
            evidence.anchors.clear();
            if edit(&mut evidence, &mut entries, field, row, (at, bits)) {
                entries.sort_by_key(|entry| entry.seq);
                let report = verify(evidence, &world.keys(), entries);
                prop_assert!(!report.is_ok(), "field {} row {} at {} bits {}: {}", field, row, at, bits, report);
            }
        }
    }

    #[test]
    fn any_byte_of_an_export_edited_is_found(
        world in any_world(),
        edits in proptest::collection::vec((any::<usize>(), 1..=255_u8), 20),
    ) {
        let bytes = exported(&world);
        for (at, bits) in edits {
            let mut bytes = bytes.clone();
            let at = at % bytes.len();
            bytes[at] ^= bits;
            let report = export::verify(&bytes[..], &world.keys(), vec![]);
            prop_assert!(!report.is_ok_and(|report| report.is_ok()), "{}", String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn whatever_is_cut_out_is_missed(world in any_world(), at: usize, count in 1..4_usize) {
        let mut entries = world.entries.clone();
        let at = at % entries.len();
        entries.drain(at..(at + count).min(world.entries.len()));
        let head = Some(relink(&mut entries));
        let evidence = Evidence { head, batches: world.batches.clone(), ..world.evidence() };
        let report = verify(evidence, &world.keys(), entries);
        prop_assert!(!report.completeness.is_ok());
        prop_assert!(report.completeness.first.unwrap().seq <= Some(at as u64 + 1));
    }

    #[test]
    fn any_two_entries_exchanged_and_relinked_are_found(world in any_world(), a: usize, b: usize) {
        let mut entries = world.entries.clone();
        let (a, b) = (a % entries.len(), b % entries.len());
        prop_assume!(a != b);
        entries.swap(a, b);
        let head = Some(relink(&mut entries));
        let report = verify(Evidence { head, ..world.evidence() }, &world.keys(), entries);
        prop_assert!(!report.integrity.is_ok());
    }
}
