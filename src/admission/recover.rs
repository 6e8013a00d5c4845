//! Recovery: every admission of a boot that is dead gets its closing entry.
//!
//! Owns the `unknown` completion. Never guesses what a call cost: the whole hold is settled, marked estimated, since a
//! crash is not free spend (admission.md rule 19). Runs again from where it was if it is interrupted: a hold that was
//! closed is gone.

use std::collections::{BTreeMap, BTreeSet};

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

/// Holds that are closed in one go.
const PAGE: u32 = 1_000;

/// Closes what closed boots left open; answers how many.
pub async fn recover(sql: &Sql, outbox: &Outbox) -> Result<u64, StorageError> {
    let mut closed = 0;
    loop {
        let holds = sql.orphaned_holds(PAGE).await?;
        if holds.is_empty() {
            return Ok(closed);
        }
        for hold in &holds {
            close(hold, outbox);
        }
        closed += holds.len() as u64;
        if !outbox.flush().await {
            return Ok(closed);
        }
    }
}

/// Records which counters dead boots signed and never wrote: an item was found stale or short and its boot ended before
/// it asked again. The verifier would otherwise take them for deleted entries. Looks at every closed boot, so that a crash
/// between closing a boot and noting it is made good by the next start.
pub async fn close_dead_boots(sql: &Sql, outbox: &Outbox) -> Result<(), StorageError> {
    for boot in &sql.closed_boots_with_unwritten().await? {
        let mut left: BTreeMap<OrgId, BTreeSet<u64>> = BTreeMap::new();
        for (org, unwritten) in sql.unwritten_of(boot).await? {
            let counters = parse_counters(&unwritten).unwrap_or_default();
            left.entry(org).or_default().extend(counters);
        }
        for (org, mut counters) in left {
            for written in sql.counters_of(&org, boot).await? {
                counters.remove(&written);
            }
            if counters.is_empty() || is_noted(sql, &org, boot).await? {
                continue;
            }
            let content = json!({ "boot": boot, "unwritten": counters });
            if let Err(error) = outbox.note(&org, crate::audit::kind::BOOT_CLOSED, &content) {
                tracing::error!(error = &error as &dyn std::error::Error, "a dead boot was not closed on a chain");
            }
        }
    }
    Ok(())
}

/// Whether the chain says already that this boot is closed.
async fn is_noted(sql: &Sql, org: &OrgId, boot: &str) -> Result<bool, StorageError> {
    let notes = sql.bodies_of_kind(org, crate::audit::kind::BOOT_CLOSED).await?;
    let read = notes.iter().filter_map(|body| EntryBody::parse(body).ok());
    Ok(read.map(|note| note.content).any(|content| content.get("boot").is_some_and(|named| named == boot)))
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
    };
    if let Err(error) = outbox.complete(closing, &content) {
        tracing::error!(error = &error as &dyn std::error::Error, "recovery could not close an admission");
    }
}
