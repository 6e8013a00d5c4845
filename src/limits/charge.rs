//! What is charged to whom, and what comes of it.
//!
//! Owns the words of limits: subject, unit, charge, verdict. Several charges are one question: all are made or none.
//! Never holds state.

use std::{fmt, net::IpAddr};

use super::gcra::{Quota, Rate};
use crate::domain::ids::{AgentId, KeyId, OrgId};

/// Most charges of one question.
pub const MOST: usize = 6;

/// Whose allowance it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Calls from a network address.
    Address(IpAddr),
    /// Failed authentications from a network address.
    Failures(IpAddr),
    /// An agent.
    Agent(AgentId),
    /// A key.
    Key(KeyId),
    /// An organization.
    Org(OrgId),
}

impl Subject {
    /// The word for it.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Address(_) => "address",
            Self::Failures(_) => "failures",
            Self::Agent(_) => "agent",
            Self::Key(_) => "key",
            Self::Org(_) => "organization",
        }
    }
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unit {
    /// Calls.
    Calls,
    /// Tokens.
    Tokens,
}

impl Unit {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Tokens => "tokens",
        }
    }
}

/// One allowance.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cell {
    /// Whose.
    pub subject: Subject,
    /// Of what.
    pub unit: Unit,
}

/// Its name in the shared store.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:", self.subject.as_str(), self.unit.as_str())?;
        match &self.subject {
            Subject::Address(address) | Subject::Failures(address) => address.fmt(f),
            Subject::Agent(id) => id.fmt(f),
            Subject::Key(id) => id.fmt(f),
            Subject::Org(id) => id.fmt(f),
        }
    }
}

impl Cell {
    /// Reads the name of an allowance that has an owner; addresses have none.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let (subject, rest) = name.split_once(':')?;
        let (unit, id) = rest.split_once(':')?;
        let unit = [Unit::Calls, Unit::Tokens].into_iter().find(|known| known.as_str() == unit)?;
        let subject = match subject {
            "agent" => Subject::Agent(AgentId::parse(id).ok()?),
            "key" => Subject::Key(KeyId::parse(id).ok()?),
            "organization" => Subject::Org(OrgId::parse(id).ok()?),
            _ => return None,
        };
        Some(Self { subject, unit })
    }
}

/// So much of an allowance at such a rate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    /// The allowance.
    pub cell: Cell,
    /// How much there is of it.
    pub rate: Rate,
    /// How much this takes.
    pub cost: u64,
}

/// A few charges, without an allocation.
#[derive(Clone, Debug, Default)]
pub struct Charges {
    items: [Option<Charge>; MOST],
}

impl Charges {
    /// One charge.
    pub fn one(subject: Subject, unit: Unit, rate: Rate, cost: u64) -> Self {
        let mut charges = Self::default();
        charges.push(subject, unit, rate, cost);
        charges
    }

    /// One more. There is room for every subject and unit that a call is charged to; `tests` hold that.
    pub fn push(&mut self, subject: Subject, unit: Unit, rate: Rate, cost: u64) {
        debug_assert!(self.items.iter().any(Option::is_none), "a call has at most {MOST} charges");
        if let Some(free) = self.items.iter_mut().find(|item| item.is_none()) {
            *free = Some(Charge { cell: Cell { subject, unit }, rate, cost });
        }
    }

    /// Whether there is nothing to charge.
    pub fn is_empty(&self) -> bool {
        self.items[0].is_none()
    }

    /// Them.
    pub fn iter(&self) -> impl Iterator<Item = &Charge> {
        self.items.iter().flatten()
    }

    /// Those that count tokens.
    #[must_use]
    pub fn tokens(&self) -> Self {
        let mut charges = Self::default();
        for charge in self.iter().filter(|charge| charge.cell.unit == Unit::Tokens) {
            charges.push(charge.cell.subject.clone(), charge.cell.unit, charge.rate, charge.cost);
        }
        charges
    }
}

/// How far ahead a caller is after a check, and how long it has to wait, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Spent, as a part of the window.
    pub ahead: u64,
    /// 0: this allowance has room.
    pub wait: u64,
}

/// The standing of each charge, in their order.
pub type Standings = [Standing; MOST];

/// What a question was answered.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// The tightest limit on calls.
    pub calls: Option<Quota>,
    /// The tightest limit on tokens.
    pub tokens: Option<Quota>,
    /// The limit that has to be waited for longest, if there is one that has no room.
    pub refused: Option<Exceeded>,
}

/// A limit that has no room.
#[derive(Clone, Debug)]
pub struct Exceeded {
    /// Whose: `agent`, `key`, `organization`, …
    pub whose: &'static str,
    /// Of what.
    pub unit: Unit,
    /// The limit that was applied.
    pub rate: Rate,
    /// What the call would have taken.
    pub cost: u64,
    /// Nanoseconds until it is allowed.
    pub retry_after: u64,
}

impl Verdict {
    /// From how each charge stands under a limit that is divided by so many.
    pub(super) fn of(charges: &Charges, standings: &Standings, divided: usize) -> Self {
        let mut verdict = Self::default();
        for (charge, standing) in charges.iter().zip(standings) {
            let rate = charge.rate.divided(divided);
            let quota = rate.quota(standing.ahead, standing.wait);
            let slot = match charge.cell.unit {
                Unit::Calls => &mut verdict.calls,
                Unit::Tokens => &mut verdict.tokens,
            };
            if slot.is_none_or(|known| is_tighter(&quota, &known)) {
                *slot = Some(quota);
            }
            let longest = verdict.refused.as_ref().map_or(0, |exceeded| exceeded.retry_after);
            if standing.wait > longest {
                let (whose, unit) = (charge.cell.subject.as_str(), charge.cell.unit);
                let cost = charge.cost;
                verdict.refused = Some(Exceeded { whose, unit, rate, cost, retry_after: standing.wait });
            }
        }
        verdict
    }

    /// Whether everything has room.
    pub fn is_allowed(&self) -> bool {
        self.refused.is_none()
    }
}

/// What refuses is tighter than what does not; then what has less left; then what takes longer to come back.
fn is_tighter(one: &Quota, other: &Quota) -> bool {
    let key = |quota: &Quota| (quota.allowed, quota.remaining, std::cmp::Reverse(quota.reset));
    key(one) < key(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_allowance_is_read_as_it_is_written() {
        let agent = Subject::Agent(AgentId::parse("a:b").unwrap());
        let org = Subject::Org(OrgId::parse("org_1").unwrap());
        let key = Subject::Key(KeyId::parse("calls:1").unwrap());
        for (subject, unit) in [(agent, Unit::Calls), (org, Unit::Tokens), (key, Unit::Calls)] {
            let cell = Cell { subject, unit };
            assert_eq!(Cell::parse(&cell.to_string()), Some(cell));
        }
        for name in ["", "agent", "agent:calls:", "agent:bytes:a", "address:calls:127.0.0.1"] {
            assert_eq!(Cell::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_tightest_limit_is_told_and_the_longest_wait_is_waited_for() {
        let agent = Subject::Agent(AgentId::parse("a").unwrap());
        let org = Subject::Org(OrgId::parse("o").unwrap());
        let mut charges = Charges::one(agent, Unit::Calls, Rate::per_seconds(10, 60), 1);
        charges.push(org.clone(), Unit::Calls, Rate::per_seconds(100, 60), 1);
        charges.push(org, Unit::Tokens, Rate::per_seconds(1_000, 60), 50);
        let mut standings = Standings::default();
        standings[0].ahead = 6_000_000_000;
        let verdict = Verdict::of(&charges, &standings, 1);
        assert_eq!((verdict.calls.unwrap().limit, verdict.calls.unwrap().remaining), (10, 9));
        assert!(verdict.is_allowed() && verdict.tokens.unwrap().remaining == 1_000);
        standings[1] = Standing { ahead: 60_000_000_000, wait: 5 };
        standings[2] = Standing { ahead: 60_000_000_000, wait: 7 };
        let verdict = Verdict::of(&charges, &standings, 1);
        assert_eq!(verdict.calls.unwrap().limit, 100);
        let refused = verdict.refused.unwrap();
        assert_eq!((refused.whose, refused.unit, refused.retry_after), ("organization", Unit::Tokens, 7));
    }
}
