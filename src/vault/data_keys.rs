//! Data keys in clear, for a while.
//!
//! Owns the cache of unwrapped data keys: a hard age that counts from the unwrap and that no use extends, one KMS call
//! at a time per data key however many wait, a short memory of failures, a bound on the number. Never seals or opens,
//! never decides who may. With the KMS away it serves what it has until the hard age ends, then fails with the KMS's own
//! error. Keys are wiped when they leave; keys past their age leave at the next unwrap or at the next look for due ones.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared, WeakShared},
};

use crate::{
    domain::{
        clock::{Clock, Running},
        ids::OrgId,
    },
    vault::{
        DataKeyBytes, DataKeyId,
        kms::{Kms, KmsError},
    },
};

/// How long and how many.
#[derive(Debug, Clone, Copy)]
pub struct DataKeyLimits {
    /// A key is used no longer than this after its unwrap began.
    pub hard_age: Duration,
    /// From this age on a key is listed as due for a fresh unwrap.
    pub refresh_age: Duration,
    /// How long a failed unwrap is answered from memory, so that a KMS in trouble is not stormed.
    pub failure_age: Duration,
    /// Most keys held; beyond it the one unused for longest goes.
    pub capacity: usize,
}

impl Default for DataKeyLimits {
    fn default() -> Self {
        Self {
            hard_age: Duration::from_mins(10),
            refresh_age: Duration::from_mins(5),
            failure_age: Duration::from_secs(2),
            capacity: 4_096,
        }
    }
}

/// Names a data key in the cache; with the organization, so that one customer's row never meets another's key.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DataKeyName {
    /// Whose.
    pub org: OrgId,
    /// Which.
    pub id: DataKeyId,
}

/// A key that should be unwrapped afresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DueKey {
    /// Which one.
    pub name: DataKeyName,
    /// Since its last use: the pre-warm job stops refreshing what nobody uses.
    pub idle: Duration,
}

/// A data key, and what its unwrap said.
#[derive(Clone)]
pub(crate) struct HeldKey {
    pub(crate) key: Arc<DataKeyBytes>,
    /// Its key-encryption key has a newer version: wrap it again.
    pub(crate) stale: bool,
    unwrapped: Running,
    used: Running,
}

/// One unwrap and everything that it needs, so that any waiter can carry it on.
pub(crate) struct UnwrapCall {
    pub(crate) wrapped: Vec<u8>,
    pub(crate) aad: Vec<u8>,
}

/// The cache.
pub(crate) struct DataKeys {
    kms: Arc<dyn Kms>,
    shelf: Arc<Shelf>,
}

impl DataKeys {
    pub(crate) fn new(kms: Arc<dyn Kms>, clock: Arc<dyn Clock>, limits: DataKeyLimits) -> Self {
        Self { kms, shelf: Arc::new(Shelf { clock, limits, state: Mutex::default() }) }
    }

    /// The key, if it is here and young enough. Never waits for anything but a short lock.
    pub(crate) fn cached(&self, name: &DataKeyName) -> Option<HeldKey> {
        self.shelf.find(&mut self.shelf.state(), name)
    }

    /// The cached key, else an unwrap, shared by all who ask meanwhile.
    pub(crate) async fn get(&self, name: &DataKeyName, call: impl FnOnce() -> UnwrapCall) -> Outcome {
        let flight = {
            let mut state = self.shelf.state();
            // Looked up under the lock that starts unwraps: one that has just landed is not repeated.
            if let Some(held) = self.shelf.find(&mut state, name) {
                return Ok(held);
            }
            self.join(&mut state, name, call)?
        };
        flight.await
    }

    /// An unwrap, cached or not, shared by all who ask meanwhile.
    pub(crate) async fn refresh(&self, name: &DataKeyName, call: impl FnOnce() -> UnwrapCall) -> Outcome {
        let flight = self.join(&mut self.shelf.state(), name, call)?;
        flight.await
    }

    /// Keys past their refresh age, those used last first.
    pub(crate) fn refresh_due(&self) -> Vec<DueKey> {
        let now = self.shelf.clock.running();
        let mut state = self.shelf.state();
        state.keys.retain(|_, held| !self.shelf.is_expired(held, now));
        let is_due = |held: &HeldKey| held.unwrapped.after(self.shelf.limits.refresh_age) <= now;
        let due = state.keys.iter().filter(|(_, held)| is_due(held));
        let mut due: Vec<DueKey> =
            due.map(|(name, held)| DueKey { name: name.clone(), idle: since(held.used, now) }).collect();
        due.sort_by_key(|key| key.idle);
        due
    }

    /// Forgets all that is known of an organization, unwraps under way included: their result goes to those who wait
    /// for them already and to nobody else.
    pub(crate) fn drop_org(&self, org: &OrgId) {
        let mut state = self.shelf.state();
        state.keys.retain(|name, _| name.org != *org);
        state.failures.retain(|name, _| name.org != *org);
        state.flights.retain(|name, _| name.org != *org);
    }

    /// Joins the unwrap that is under way, or starts one.
    ///
    /// An unwrap belongs to its waiters together: if the first leaves, the next carries it on, and when the last one
    /// leaves it is cancelled. So nothing runs unwatched and no task is spawned.
    fn join(
        &self,
        state: &mut State,
        name: &DataKeyName,
        call: impl FnOnce() -> UnwrapCall,
    ) -> Result<Shared<UnwrapFuture>, KmsError> {
        let now = self.shelf.clock.running();
        if let Some(failure) = state.failures.get(name).filter(|failure| now < failure.until) {
            return Err(failure.error.clone());
        }
        if let Some(running) = state.flights.get(name).and_then(|flight| flight.call.upgrade()) {
            return Ok(running);
        }
        let call = call();
        state.last_flight += 1;
        let number = state.last_flight;
        let ticket = Ticket { shelf: Arc::clone(&self.shelf), name: name.clone(), number };
        let shared = unwrap_and_land(Arc::clone(&self.kms), ticket, call).boxed().shared();
        if let Some(call) = shared.downgrade() {
            state.flights.insert(name.clone(), Flight { number, call });
        }
        Ok(shared)
    }
}

type Outcome = Result<HeldKey, KmsError>;
type UnwrapFuture = BoxFuture<'static, Outcome>;

async fn unwrap_and_land(kms: Arc<dyn Kms>, ticket: Ticket, call: UnwrapCall) -> Outcome {
    // Counted from before the call: what the KMS knew when it answered may be older than the answer.
    let begun = ticket.shelf.clock.running();
    let outcome = kms.unwrap(&call.wrapped, &call.aad).await.map(|unwrapped| HeldKey {
        key: Arc::new(unwrapped.key),
        stale: unwrapped.stale,
        unwrapped: begun,
        used: begun,
    });
    ticket.land(outcome)
}

struct Shelf {
    clock: Arc<dyn Clock>,
    limits: DataKeyLimits,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    keys: HashMap<DataKeyName, HeldKey>,
    failures: HashMap<DataKeyName, Failure>,
    flights: HashMap<DataKeyName, Flight>,
    last_flight: u64,
}

struct Failure {
    until: Running,
    error: KmsError,
}

struct Flight {
    number: u64,
    call: WeakShared<UnwrapFuture>,
}

impl Shelf {
    /// The state; held for a few map operations, never across an await, and valid after every one of them.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, state: &mut State, name: &DataKeyName) -> Option<HeldKey> {
        let now = self.clock.running();
        let held = state.keys.get_mut(name)?;
        if self.is_expired(held, now) {
            state.keys.remove(name);
            return None;
        }
        held.used = now;
        Some(held.clone())
    }

    fn is_expired(&self, held: &HeldKey, now: Running) -> bool {
        held.unwrapped.after(self.limits.hard_age) <= now
    }

    fn store_key(&self, state: &mut State, name: DataKeyName, mut held: HeldKey) {
        let now = self.clock.running();
        state.failures.remove(&name);
        if let Some(before) = state.keys.remove(&name) {
            held.used = before.used;
        }
        state.keys.retain(|_, other| !self.is_expired(other, now));
        if state.keys.len() >= self.limits.capacity {
            let idlest = state.keys.iter().min_by_key(|(_, other)| other.used).map(|(name, _)| name.clone());
            idlest.and_then(|name| state.keys.remove(&name));
        }
        state.keys.insert(name, held);
    }

    fn store_failure(&self, state: &mut State, name: DataKeyName, error: KmsError) {
        let now = self.clock.running();
        state.failures.retain(|_, failure| now < failure.until);
        if state.failures.len() < self.limits.capacity {
            state.failures.insert(name, Failure { until: now.after(self.limits.failure_age), error });
        }
    }
}

/// The right to store the result of one unwrap; lost when the organization was dropped meanwhile.
struct Ticket {
    shelf: Arc<Shelf>,
    name: DataKeyName,
    number: u64,
}

impl Ticket {
    fn land(&self, outcome: Outcome) -> Outcome {
        let mut state = self.shelf.state();
        if self.take_back(&mut state) {
            match &outcome {
                Ok(held) => self.shelf.store_key(&mut state, self.name.clone(), held.clone()),
                Err(error) => self.shelf.store_failure(&mut state, self.name.clone(), error.clone()),
            }
        }
        outcome
    }

    fn take_back(&self, state: &mut State) -> bool {
        let is_ours = state.flights.get(&self.name).is_some_and(|flight| flight.number == self.number);
        if is_ours {
            state.flights.remove(&self.name);
        }
        is_ours
    }
}

impl Drop for Ticket {
    /// An unwrap that everybody left leaves no trace. It is dropped by its last waiter, who never holds the lock.
    fn drop(&mut self) {
        self.take_back(&mut self.shelf.state());
    }
}

fn since(then: Running, now: Running) -> Duration {
    Duration::from_nanos(now.0.saturating_sub(then.0))
}
