//! Recovery: every admission of a boot that is dead gets its closing entry.
//!
//! Owns the `unknown` completion. Never guesses what a call cost: the whole hold is settled, marked estimated, since a
//! crash is not free spend (admission.md rule 19). Runs again from where it was if it is interrupted: a hold that was
//! closed is gone, and one that somebody else closes meanwhile is closed by one of the two.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::json;

use super::{
    content::{CompletionContent, UsageRecord},
    outbox::{Closing, Outbox},
};
use crate::{
    audit::{EntryBody, EntryRef, batch::parse_counters},
    domain::{ids::OrgId, stamp::ConfigStamp},
    storage::{Sql, StorageError, sql::Orphan},
};

/// Closed boots that this process has looked at, with the number of their batches that left something out.
#[derive(Debug, Default)]
pub struct DeadBoots(HashMap<String, u64>);

/// Holds that are closed in one go.
const PAGE: u32 = 1_000;

/// Closes what closed boots left open; answers how many admissions that were.
///
/// What was queued before comes first: a hold whose closing waits still must not be closed a second time.
pub async fn recover(sql: &Sql, outbox: &Outbox) -> Result<u64, StorageError> {
    let mut seen = BTreeSet::new();
    while outbox.flush().await {
        let holds = sql.orphaned_holds(PAGE).await?;
        let left: Vec<&Orphan> = holds.iter().filter(|hold| !seen.contains(&hold.id)).collect();
        if left.is_empty() {
            break;
        }
        for hold in &left {
            close(hold, outbox);
        }
        seen.extend(left.into_iter().map(|hold| hold.id.clone()));
    }
    Ok(seen.len() as u64)
}

/// Records which counters dead boots signed and never wrote: an item was found stale or short and its boot ended before
/// it asked again. The verifier would otherwise take them for deleted entries. Looks at every closed boot, so that a crash
/// between closing a boot and noting it is made good by the next look, and again at one whose batches have become more: an
/// append that found its boot open may be committed later.
pub async fn close_dead_boots(sql: &Sql, outbox: &Outbox, noted: &mut DeadBoots) -> Result<(), StorageError> {
    for (boot, batches) in &sql.closed_boots_with_unwritten().await? {
        if noted.0.get(boot) == Some(batches) {
            continue;
        }
        let mut left: BTreeMap<OrgId, BTreeSet<u64>> = BTreeMap::new();
        for (org, unwritten) in sql.unwritten_of(boot).await? {
            let counters = parse_counters(&unwritten).unwrap_or_default();
            left.entry(org).or_default().extend(counters);
        }
        for (org, mut counters) in left {
            for written in sql.counters_of(&org, boot).await?.into_iter().chain(given_up(sql, &org, boot).await?) {
                counters.remove(&written);
            }
            if counters.is_empty() {
                continue;
            }
            let content = json!({ "boot": boot, "unwritten": counters });
            if let Err(error) = outbox.note(&org, crate::audit::kind::BOOT_CLOSED, &content) {
                tracing::error!(error = &error as &dyn std::error::Error, "a dead boot was not closed on a chain");
                return Ok(());
            }
        }
        // What could not be written is looked at again.
        if outbox.flush().await {
            noted.0.insert(boot.clone(), *batches);
        }
    }
    Ok(())
}

/// The counters of a boot that the chain says already nobody will write any more.
async fn given_up(sql: &Sql, org: &OrgId, boot: &str) -> Result<Vec<u64>, StorageError> {
    let notes = sql.bodies_of_kind(org, crate::audit::kind::BOOT_CLOSED).await?;
    let read = notes.iter().filter_map(|body| EntryBody::parse(body).ok());
    let its = read.map(|note| note.content).filter(|content| content.get("boot").is_some_and(|named| named == boot));
    let counters = its.filter_map(|content| content.get("unwritten")?.as_array().cloned());
    Ok(counters.flatten().filter_map(|counter| counter.as_u64()).collect())
}

fn close(hold: &Orphan, outbox: &Outbox) {
    let content = CompletionContent {
        admission: EntryRef { boot: hold.id.boot.clone(), counter: hold.id.counter },
        bytes_released: 0,
        cost_nano: hold.amount,
        coverage: None,
        detections: &[],
        duration_us: 0,
        outcome: "unknown",
        provider_request: None,
        provider_status: None,
        reason: Some("the process that made this call ended before it was recorded"),
        settled_nano: hold.amount,
        step_errors: &[],
        usage: UsageRecord { estimated: true, ..UsageRecord::default() },
    };
    let closing = Closing {
        admission: hold.id.clone(),
        stamp: ConfigStamp::NONE,
        settle: hold.amount,
        reserved: hold.amount,
        windows: Vec::new(),
        by_recovery: true,
    };
    if let Err(error) = outbox.complete(closing, &content) {
        tracing::error!(error = &error as &dyn std::error::Error, "recovery could not close an admission");
    }
}
