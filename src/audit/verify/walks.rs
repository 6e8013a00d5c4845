//! Two walks along the chain: was every decision fresh, does the money add up.
//!
//! Owns the state that each walk carries from entry to entry. Never asks whether an entry is genuine: that is another
//! verdict, and a walk goes on with what the entries say. Findings go to the report.

use std::collections::HashMap;

use serde::Deserialize as _;

use super::{
    report::{Finding, Report},
    signed::Boots,
};
use crate::{
    audit::entry::{EntryBody, EntryRef, kind},
    domain::{digest::Digest, money::NanoUsd, stamp::ConfigStamp},
};

/// Which configuration is in force at each entry.
pub(super) struct Freshness {
    pub(super) current: ConfigStamp,
}

impl Freshness {
    pub(super) fn walk(&mut self, seq: u64, link: &Digest, body: &EntryBody, report: &mut Report) {
        let current = self.current;
        let mut find = |why| report.freshness.record(Finding::of(seq, &body.id, why));
        match body.kind.as_str() {
            kind::ADMISSION | kind::REFUSAL => {
                if body.config != current {
                    find(stale(&body.kind, &body.config, &current));
                }
            }
            kind::COMPLETION => {}
            _ => match body.produced() {
                Ok(None) => {}
                Ok(Some((version, digest))) => {
                    if body.config != current {
                        find(stale("change", &body.config, &current));
                    } else if version != current.version.saturating_add(1) {
                        find(format!("change from version {} to {version}", current.version));
                    }
                    // The chain goes on from what this change says, so that later findings are their own.
                    self.current = ConfigStamp { version, tag: *link, digest };
                    report.counts.changes += 1;
                }
                Err(error) => find(format!("change that does not say what it made: {error}")),
            },
        }
    }
}

fn stale(what: &str, said: &ConfigStamp, current: &ConfigStamp) -> String {
    if said.version != current.version {
        return format!("{what} under version {}, in force was {}", said.version, current.version);
    }
    format!("{what} under another version {} than the one in force (tag or digest differs)", said.version)
}

/// Every admission and what became of it.
#[derive(Default)]
pub(super) struct Books {
    boots: Boots,
    admissions: HashMap<(usize, u64), Account>,
}

struct Account {
    /// With what extensions added.
    reserved: NanoUsd,
    end: End,
    /// Its real end was told after its boot had been closed. That may stand before the `unknown` completion: who was
    /// taken for dead and who settles it write independently.
    is_late: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Known,
    Unknown,
}

impl Books {
    pub(super) fn walk(&mut self, seq: u64, body: &EntryBody, report: &mut Report) {
        let error = match body.kind.as_str() {
            kind::ADMISSION => self.admit(body, report),
            kind::COMPLETION => self.complete(body, report),
            kind::EXTENSION => self.extend(body, report),
            kind::LATE => self.correct(body, report),
            kind::REFUSAL => {
                report.counts.refusals += 1;
                None
            }
            _ => None,
        };
        if let Some(why) = error {
            report.budget.record(Finding::of(seq, &body.id, why));
        }
    }

    fn admit(&mut self, body: &EntryBody, report: &mut Report) -> Option<String> {
        report.counts.admissions += 1;
        let amount = amount(body, "reserved_nano");
        let reserved = amount.unwrap_or(NanoUsd::ZERO);
        let key = (self.boots.number(&body.id.boot), body.id.counter);
        let twice = self.admissions.insert(key, Account { reserved, end: End::Open, is_late: false }).is_some();
        if twice {
            return Some("admitted twice".to_owned());
        }
        report.counts.open += 1;
        report.counts.held_nano = report.counts.held_nano.plus(reserved);
        amount.is_none().then(|| "admission without a `reserved_nano` of 0 or more".to_owned())
    }

    fn complete(&mut self, body: &EntryBody, report: &mut Report) -> Option<String> {
        report.counts.completions += 1;
        let (account, name) = match self.account(body) {
            Ok(found) => found,
            Err(why) => return Some(why),
        };
        if account.end != End::Open {
            return Some(format!("second completion of {name}"));
        }
        let is_unknown = body.content.get("outcome").is_some_and(|outcome| outcome == "unknown");
        account.end = if is_unknown { End::Unknown } else { End::Known };
        report.counts.open -= 1;
        report.counts.held_nano = report.counts.held_nano.plus(NanoUsd(-account.reserved.0));
        let Some(settled) = amount(body, "settled_nano") else {
            return Some("completion without a `settled_nano` of 0 or more".to_owned());
        };
        report.counts.settled_nano = report.counts.settled_nano.plus(settled);
        if account.is_late && !is_unknown {
            return Some(format!(
                "completion of {name}, whose late end came before, with another outcome than `unknown`"
            ));
        }
        over(settled, account)
    }

    /// An open admission reserves more.
    fn extend(&mut self, body: &EntryBody, report: &mut Report) -> Option<String> {
        let (account, name) = match self.account(body) {
            Ok(found) => found,
            Err(why) => return Some(why),
        };
        if account.end != End::Open || account.is_late {
            return Some(format!("extension of {name}, which had ended"));
        }
        let Some(more) = amount(body, "reserved_nano") else {
            return Some("extension without a `reserved_nano` of 0 or more".to_owned());
        };
        account.reserved = account.reserved.plus(more);
        report.counts.held_nano = report.counts.held_nano.plus(more);
        None
    }

    /// What an `unknown` completion settled in full is corrected, once.
    fn correct(&mut self, body: &EntryBody, report: &mut Report) -> Option<String> {
        let (account, name) = match self.account(body) {
            Ok(found) => found,
            Err(why) => return Some(why),
        };
        if account.end == End::Known {
            return Some(format!("late end of {name}, whose outcome was known"));
        }
        if account.is_late {
            return Some(format!("second late end of {name}"));
        }
        account.is_late = true;
        let by = body.content.get("by_nano").and_then(serde_json::Value::as_i64);
        let (Some(settled), Some(by)) = (amount(body, "settled_nano"), by) else {
            return Some("late end without a `settled_nano` of 0 or more and a `by_nano`".to_owned());
        };
        report.counts.settled_nano = report.counts.settled_nano.plus(NanoUsd(by));
        if Some(by) != settled.0.checked_sub(account.reserved.0) {
            return Some(format!(
                "late end that corrects by {by} to {} nano-dollars what settled {}",
                settled.0, account.reserved.0
            ));
        }
        over(settled, account)
    }

    /// The admission that an entry names, and its name.
    fn account(&mut self, body: &EntryBody) -> Result<(&mut Account, String), String> {
        let what = if body.kind == kind::LATE { "late end" } else { &body.kind };
        let Some(Ok(EntryRef { boot, counter })) = body.content.get("admission").map(EntryRef::deserialize) else {
            return Err(format!("{what} that names no admission"));
        };
        let name = format!("{boot}/{counter}");
        match self.admissions.get_mut(&(self.boots.number(&boot), counter)) {
            Some(account) => Ok((account, name)),
            None => Err(format!("{what} of {name}, which was not admitted before")),
        }
    }
}

fn over(settled: NanoUsd, account: &Account) -> Option<String> {
    let over = settled > account.reserved;
    over.then(|| format!("settled {} nano-dollars out of {} reserved", settled.0, account.reserved.0))
}

fn amount(body: &EntryBody, field: &str) -> Option<NanoUsd> {
    body.content.get(field)?.as_i64().filter(|nano| *nano >= 0).map(NanoUsd)
}
