//! Quotas in this process's memory.
//!
//! Owns a bounded map from allowance to arrival time: the only count without Redis, the shadow of the shared one beside
//! it. Never blocks for longer than a few look-ups. When full it forgets those whose window has passed; if nobody's has,
//! a new caller is treated like one who has spent everything, since an attacker who fills the map must not thereby lift
//! the limit.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use super::charge::{Cell, Charge, Charges, MOST, Standings, Unit};

/// A full map is swept at most once in so many nanoseconds: a sweep looks at everybody.
const SWEEP: u64 = 100_000_000;

/// Quotas by allowance.
pub(super) struct LocalQuotas {
    map: Mutex<Map>,
    most: usize,
}

#[derive(Default)]
struct Map {
    seats: HashMap<Cell, Seat>,
    swept: u64,
}

#[derive(Clone, Copy)]
struct Seat {
    tat: u64,
    /// The link to the shared store over which this was learned; 0: it has been charged here alone since.
    link: u64,
}

impl LocalQuotas {
    /// Remembers at most `most` allowances.
    pub(super) fn new(most: usize) -> Self {
        Self { map: Mutex::default(), most: most.max(1) }
    }

    /// Charges all or nothing, at rates divided by so many.
    pub(super) fn charge(&self, charges: &Charges, divided: usize, now: u64) -> Standings {
        let mut map = self.lock();
        let mut standings = Standings::default();
        let mut fits = true;
        for (charge, standing) in charges.iter().zip(&mut standings) {
            let rate = charge.rate.divided(divided);
            let known = map.seats.get(&charge.cell).map(|seat| rate.ahead(seat.tat, now));
            standing.ahead = match known {
                Some(ahead) => ahead,
                None if map.has_room(self.most, now) => 0,
                None => rate.window,
            };
            standing.wait = rate.wait(standing.ahead, rate.span(charge.cost));
            fits &= standing.wait == 0;
        }
        if fits {
            for (charge, standing) in charges.iter().zip(&mut standings) {
                standing.ahead += charge.rate.divided(divided).span(charge.cost);
                map.put(&charge.cell, Seat { tat: now.saturating_add(standing.ahead), link: 0 }, self.most, now);
            }
        }
        standings
    }

    /// Whether a limit on calls is known to have no room: asking the shared store would not find any, since calls are
    /// never given back. So whoever is beyond its limit costs the shared store nothing.
    pub(super) fn refusal(&self, charges: &Charges, now: u64) -> Option<Standings> {
        let map = self.lock();
        let mut standings = Standings::default();
        let mut refused = false;
        for (charge, standing) in charges.iter().zip(&mut standings) {
            standing.ahead = map.seats.get(&charge.cell).map_or(0, |seat| charge.rate.ahead(seat.tat, now));
            if charge.cell.unit == Unit::Calls {
                standing.wait = charge.rate.wait(standing.ahead, charge.rate.span(charge.cost));
                refused |= standing.wait > 0;
            }
        }
        refused.then_some(standings)
    }

    /// What the shared store may not know: how far ahead callers are whom it has not told us about over this link.
    pub(super) fn untold(&self, charges: &Charges, link: u64, now: u64) -> [u64; MOST] {
        let map = self.lock();
        let mut untold = [0; MOST];
        for (charge, floor) in charges.iter().zip(&mut untold) {
            let seat = map.seats.get(&charge.cell).filter(|seat| seat.link != link);
            *floor = seat.map_or(0, |seat| charge.rate.ahead(seat.tat, now));
        }
        untold
    }

    /// All that the shared store may not know over this link.
    pub(super) fn all_untold(&self, link: u64, now: u64) -> Vec<(Cell, u64)> {
        let map = self.lock();
        let untold = map.seats.iter().filter(|(_, seat)| seat.link != link && seat.tat > now);
        untold.map(|(cell, seat)| (cell.clone(), seat.tat - now)).collect()
    }

    /// Remembers what the shared store said.
    pub(super) fn learn(&self, charges: &Charges, standings: &Standings, link: u64, now: u64) {
        let mut map = self.lock();
        for (charge, standing) in charges.iter().zip(standings) {
            map.put(&charge.cell, Seat { tat: now.saturating_add(standing.ahead), link }, self.most, now);
        }
    }

    /// Hears what a caller has spent elsewhere. Only more than is known here is news: what is given back is told by the
    /// next answer.
    pub(super) fn hear(&self, cell: &Cell, ahead: u64, link: u64, now: u64) {
        let mut map = self.lock();
        let tat = now.saturating_add(ahead);
        if map.seats.get(cell).is_none_or(|seat| seat.tat < tat) {
            map.put(cell, Seat { tat, link }, self.most, now);
        }
    }

    /// Moves an allowance by the difference between two costs.
    pub(super) fn adjust(&self, charge: &Charge, divided: usize, used: u64, now: u64) {
        let rate = charge.rate.divided(divided);
        let (charged, used) = (rate.span(charge.cost), rate.span(used));
        if let Some(seat) = self.lock().seats.get_mut(&charge.cell) {
            let ahead = rate.ahead(seat.tat, now).saturating_add(used).saturating_sub(charged);
            seat.tat = now.saturating_add(ahead.min(rate.window));
        }
    }

    /// Forgets everybody, as a shared store does that is started anew.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.lock().seats.clear();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Map> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Map {
    fn has_room(&mut self, most: usize, now: u64) -> bool {
        if self.seats.len() >= most && now >= self.swept.saturating_add(SWEEP) {
            self.swept = now;
            self.seats.retain(|_, seat| seat.tat > now);
        }
        self.seats.len() < most
    }

    /// Keeps a seat; a new one only if there is room.
    fn put(&mut self, cell: &Cell, seat: Seat, most: usize, now: u64) {
        if let Some(known) = self.seats.get_mut(cell) {
            *known = seat;
        } else if self.has_room(most, now) {
            self.seats.insert(cell.clone(), seat);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        domain::ids::{AgentId, OrgId},
        limits::{Rate, Subject},
    };

    fn agent(name: &str) -> Subject {
        Subject::Agent(AgentId::parse(name).unwrap())
    }

    fn passes(quotas: &LocalQuotas, charges: &Charges, now: u64) -> bool {
        quotas.charge(charges, 1, now).iter().all(|standing| standing.wait == 0)
    }

    fn call(name: &str, rate: Rate) -> Charges {
        Charges::one(agent(name), Unit::Calls, rate, 1)
    }

    #[test]
    fn a_full_map_refuses_newcomers_until_someones_window_has_passed() {
        let quotas = LocalQuotas::new(2);
        let rate = Rate::per_seconds(1, 1);
        assert!(passes(&quotas, &call("1", rate), 10));
        assert!(passes(&quotas, &call("2", rate), 10));
        assert!(!passes(&quotas, &call("3", rate), 10));
        assert!(passes(&quotas, &call("3", rate), 2_000_000_000));
    }

    #[test]
    fn callers_do_not_share_an_allowance() {
        let quotas = LocalQuotas::new(10);
        let rate = Rate::per_seconds(1, 60);
        assert!(passes(&quotas, &call("a", rate), 5));
        assert!(!passes(&quotas, &call("a", rate), 6));
        assert!(passes(&quotas, &call("b", rate), 6));
    }

    #[test]
    fn where_one_allowance_has_no_room_none_is_charged() {
        let quotas = LocalQuotas::new(10);
        let wide = Rate::per_seconds(3, 60);
        let mut both = call("a", wide);
        both.push(Subject::Org(OrgId::parse("o").unwrap()), Unit::Tokens, Rate::per_seconds(10, 60), 10);
        assert!(passes(&quotas, &both, 5));
        for _ in 0..5 {
            assert!(!passes(&quotas, &both, 5), "the organization has no tokens left");
        }
        assert!(passes(&quotas, &call("a", wide), 5));
        assert!(passes(&quotas, &call("a", wide), 5));
        assert!(!passes(&quotas, &call("a", wide), 5), "the calls that were refused cost nothing");
    }

    #[test]
    fn what_was_not_used_is_given_back() {
        let quotas = LocalQuotas::new(10);
        let charges = Charges::one(agent("a"), Unit::Tokens, Rate::per_seconds(100, 60), 80);
        assert!(passes(&quotas, &charges, 5));
        assert!(!passes(&quotas, &charges, 5));
        quotas.adjust(charges.iter().next().unwrap(), 1, 20, 5);
        assert!(passes(&quotas, &charges, 5));
        quotas.adjust(charges.iter().next().unwrap(), 1, 1_000, 5);
        assert!(!passes(&quotas, &call_tokens(1), 5), "what was used beyond the charge is charged too");
    }

    fn call_tokens(cost: u64) -> Charges {
        Charges::one(agent("a"), Unit::Tokens, Rate::per_seconds(100, 60), cost)
    }
}
