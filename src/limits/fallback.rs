//! The limiter in front: the shared count while it can be asked, the one in memory while it cannot.
//!
//! Owns the change-over. Whatever the shared count answers is remembered here too, so when it goes away an instance knows
//! how much a caller has spent everywhere, and its share is the rest divided by the number of instances: the change hands
//! nobody a second allowance. When a shared count comes back it is told what is known here before it is believed, since it
//! may have been away, or have forgotten. What callers spend on other instances is heard four times a second; what was spent
//! since, and less than a sixteenth of a limit, an instance cannot know when the change comes. The breaker is the link's
//! (`storage::redis`): the first late answer releases all.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    charge::{Charges, Verdict},
    local::LocalQuotas,
    shared::QuotaStore,
};
use crate::domain::clock::Clock;

/// How often what is spent elsewhere is heard.
const LISTEN: Duration = Duration::from_millis(250);

/// Counts calls and tokens. A handle.
#[derive(Clone)]
pub struct Limiter(Arc<Parts>);

struct Parts {
    local: LocalQuotas,
    shared: Option<Arc<dyn QuotaStore>>,
    instances: Arc<AtomicUsize>,
    clock: Arc<dyn Clock>,
    tasks: TaskTracker,
}

impl Limiter {
    /// Remembers at most `most` allowances in memory. `instances`: how many gateways are live. `tasks`: what is given
    /// back to a shared count is given back there.
    pub fn new(
        most: usize,
        shared: Option<Arc<dyn QuotaStore>>,
        instances: Arc<AtomicUsize>,
        clock: Arc<dyn Clock>,
        tasks: TaskTracker,
    ) -> Self {
        Self(Arc::new(Parts { local: LocalQuotas::new(most), shared, instances, clock, tasks }))
    }

    /// Whether limits should be shared and are not.
    pub fn is_degraded(&self) -> bool {
        self.0.shared.as_ref().is_some_and(|shared| shared.link().is_none())
    }

    /// Tells a new link what is known here, and hears what callers spend on other instances, until stopped.
    pub async fn listen(self, stop: CancellationToken) {
        let mut tick = tokio::time::interval(LISTEN);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut place = Place::default();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => self.hear(&mut place).await,
            }
        }
    }

    pub(super) async fn hear(&self, place: &mut Place) {
        let Parts { local, shared, clock, .. } = &*self.0;
        let Some(shared) = shared else { return };
        let Some(link) = shared.link() else { return };
        if place.link != link {
            // Everybody tells what it knows: by the largest share that was taken, the sum of them is not underestimated.
            let untold = local.all_untold(link, clock.running().0);
            if shared.tell(&untold).await.is_err() {
                return;
            }
            *place = Place { link, since: String::new() };
        }
        let Ok(news) = shared.news(&mut place.since).await else { return };
        let now = clock.running().0;
        for (cell, ahead) in news {
            local.hear(&cell, ahead, link, now);
        }
    }

    /// Charges all or nothing. Without a shared count this is ready at once.
    pub async fn charge(&self, charges: &Charges) -> Verdict {
        self.charge_noted(charges).await.0
    }

    /// Charges all or nothing; what is charged for tokens is corrected when the hold is settled, and given back if it
    /// is dropped.
    pub async fn hold(&self, charges: &Charges) -> (Verdict, Option<Hold>) {
        let (verdict, divided) = self.charge_noted(charges).await;
        let tokens = charges.tokens();
        let hold = (verdict.is_allowed() && !tokens.is_empty()).then(|| Hold {
            limiter: self.clone(),
            charges: tokens,
            divided,
            used: 0,
        });
        (verdict, hold)
    }

    /// The verdict, and by how much the limits were divided; `None`: the shared count was charged.
    async fn charge_noted(&self, charges: &Charges) -> (Verdict, Option<usize>) {
        let Parts { local, shared, clock, .. } = &*self.0;
        if let Some(shared) = shared
            && let Some(link) = shared.link()
        {
            let now = clock.running().0;
            if let Some(standings) = local.refusal(charges, now) {
                return (Verdict::of(charges, &standings, 1), None);
            }
            if let Ok(standings) = shared.charge(charges, &local.untold(charges, link, now)).await {
                local.learn(charges, &standings, link, clock.running().0);
                return (Verdict::of(charges, &standings, 1), None);
            }
        }
        let instances = self.0.instances.load(Ordering::Relaxed).max(1);
        let standings = local.charge(charges, instances, clock.running().0);
        (Verdict::of(charges, &standings, instances), Some(instances))
    }
}

/// How far the news have been heard, over which link.
#[derive(Default)]
pub(super) struct Place {
    link: u64,
    since: String,
}

/// Tokens that were charged for a call at its worst case. Dropped without being settled, all of them are given back.
pub struct Hold {
    limiter: Limiter,
    charges: Charges,
    divided: Option<usize>,
    used: u64,
}

impl Hold {
    /// The call is over and has used so many.
    pub fn settle(mut self, used: u64) {
        self.used = used;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Parts { local, shared, clock, tasks, .. } = &*self.limiter.0;
        let now = clock.running().0;
        for charge in self.charges.iter().filter(|charge| charge.cost != self.used) {
            local.adjust(charge, self.divided.unwrap_or(1), self.used, now);
        }
        // What was charged here alone is told to the shared count by the next call, as far as it then still matters.
        let (Some(shared), None) = (shared, self.divided) else { return };
        // A runtime that is gone takes its limits with it; and what is not given back only tightens.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (shared, charges, used) = (Arc::clone(shared), self.charges.clone(), self.used);
        let giving = async move {
            for charge in charges.iter().filter(|charge| charge.cost != used) {
                if shared.adjust(charge, used).await.is_err() {
                    return;
                }
            }
        };
        drop(tasks.spawn_on(giving, &runtime));
    }
}
