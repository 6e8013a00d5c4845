//! Limiters against a shared count that comes and goes, and against a real Redis.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use proptest::prelude::*;
use rustix::process::Signal;
use tokio_util::task::TaskTracker;

use super::{fallback::Place, local::LocalQuotas, *};
use crate::{
    domain::{
        clock::{Clock, ManualClock, SystemClock},
        ids::{AgentId, OrgId},
    },
    storage::redis::testing::{Server, client, until},
};

/// A shared count that can go away and forget.
struct Fake {
    count: LocalQuotas,
    clock: Arc<ManualClock>,
    up: AtomicBool,
    link: AtomicU64,
}

impl Fake {
    fn new(clock: &Arc<ManualClock>) -> Arc<Self> {
        let count = LocalQuotas::new(100);
        Arc::new(Self { count, clock: Arc::clone(clock), up: AtomicBool::new(true), link: AtomicU64::new(1) })
    }

    fn switch(&self, up: bool) {
        self.link.fetch_add(u64::from(up), Ordering::SeqCst);
        self.up.store(up, Ordering::SeqCst);
    }
}

#[async_trait]
impl QuotaStore for Fake {
    fn link(&self) -> Option<u64> {
        self.up.load(Ordering::SeqCst).then(|| self.link.load(Ordering::SeqCst))
    }

    async fn charge(&self, charges: &Charges, floors: &[u64; MOST]) -> Result<Standings, Away> {
        let now = self.clock.running().0;
        let mut raised = Standings::default();
        let known = self.count.untold(charges, u64::MAX, now);
        for ((standing, floor), known) in raised.iter_mut().zip(floors).zip(known) {
            standing.ahead = known.max(*floor);
        }
        self.count.learn(charges, &raised, 0, now);
        Ok(self.count.charge(charges, 1, now))
    }

    async fn adjust(&self, charge: &Charge, used: u64) -> Result<(), Away> {
        self.count.adjust(charge, 1, used, self.clock.running().0);
        Ok(())
    }

    async fn tell(&self, known: &[(Cell, u64)]) -> Result<(), Away> {
        let now = self.clock.running().0;
        for (cell, ahead) in known {
            self.count.hear(cell, *ahead, 0, now);
        }
        Ok(())
    }

    async fn news(&self, _: &mut String) -> Result<Vec<(Cell, u64)>, Away> {
        let asked = calls(1);
        let ahead = self.count.untold(&asked, u64::MAX, self.clock.running().0)[0];
        Ok(asked.iter().map(|charge| (charge.cell.clone(), ahead)).collect())
    }
}

fn limiter(store: Option<Arc<dyn QuotaStore>>, instances: usize, clock: Arc<dyn Clock>) -> Limiter {
    Limiter::new(1_000, store, Arc::new(AtomicUsize::new(instances)), clock, TaskTracker::new())
}

fn calls(limit: u64) -> Charges {
    Charges::one(Subject::Agent(AgentId::parse("a").unwrap()), Unit::Calls, Rate::per_seconds(limit, 3_600), 1)
}

fn tokens(limit: u64, cost: u64) -> Charges {
    let org = Subject::Org(OrgId::parse("o").unwrap());
    Charges::one(org, Unit::Tokens, Rate::per_seconds(limit, 3_600), cost)
}

fn listen(all: &mut [(Limiter, Place)]) {
    for (one, place) in all {
        now(one.hear(place));
    }
}

/// Runs a future that never waits.
fn now<T>(future: impl Future<Output = T>) -> T {
    futures_util::FutureExt::now_or_never(future).expect("nothing here waits")
}

proptest! {
    #[test]
    fn three_instances_stay_within_their_limit_across_every_switch(
        limit in 30_u64..200,
        switches in prop::collection::vec(0_usize..600, 1..4),
        forgets in any::<bool>(),
        order in prop::collection::vec(0_usize..3, 600),
        spread in 0_u8..3,
    ) {
        let clock = Arc::new(ManualClock::at(0));
        let fake = Fake::new(&clock);
        let one = || limiter(Some(Arc::clone(&fake) as _), 3, Arc::clone(&clock) as _);
        let mut all: Vec<(Limiter, Place)> = (0..3).map(|_| (one(), Place::default())).collect();
        let (mut allowed, mut up) = (0_u64, true);
        for number in 0..600 {
            if switches.contains(&number) {
                up = !up;
                if up && forgets {
                    fake.count.forget();
                }
                fake.switch(up);
                listen(&mut all);
            }
            // In turn, by chance, or all through one until it changes.
            let chosen = [number % 3, order[number], order[number / 100]][usize::from(spread)];
            allowed += u64::from(now(all[chosen].0.charge(&calls(limit))).is_allowed());
            if number % 4 == 0 {
                listen(&mut all);
            }
        }
        prop_assert!(allowed * 10 <= limit * 12, "{allowed} of {limit}");
        prop_assert!(allowed * 10 >= limit * 3, "{allowed} of {limit}: a switch does not refuse everything");
    }

    #[test]
    fn a_single_instance_never_notices_a_switch(limit in 1_u64..100, switch in 0_usize..200) {
        let clock = Arc::new(ManualClock::at(0));
        let fake = Fake::new(&clock);
        let one = limiter(Some(Arc::clone(&fake) as _), 1, Arc::clone(&clock) as _);
        let mut allowed = 0_u64;
        for number in 0..200 {
            if number == switch {
                fake.switch(false);
            }
            allowed += u64::from(now(one.charge(&calls(limit))).is_allowed());
        }
        prop_assert_eq!(allowed, limit);
    }
}

#[test]
fn without_the_shared_count_each_instance_has_its_share_and_says_so() {
    let clock = Arc::new(ManualClock::at(0));
    let fake = Fake::new(&clock);
    fake.switch(false);
    let one = limiter(Some(Arc::clone(&fake) as _), 3, Arc::clone(&clock) as _);
    assert!(one.is_degraded());
    let verdict = now(one.charge(&calls(30)));
    assert_eq!((verdict.calls.unwrap().limit, verdict.calls.unwrap().remaining), (10, 9));
    fake.switch(true);
    assert!(!one.is_degraded());
    let quota = now(one.charge(&calls(30))).calls.unwrap();
    assert_eq!((quota.limit, quota.remaining), (30, 26), "the share's one call stood for three");
}

#[test]
fn tokens_that_were_not_used_are_given_back_also_if_the_call_never_was() {
    let one = limiter(None, 1, Arc::new(ManualClock::at(0)));
    let (verdict, hold) = now(one.hold(&tokens(1_000, 900)));
    assert_eq!(verdict.tokens.unwrap().remaining, 100);
    assert!(!now(one.hold(&tokens(1_000, 900))).0.is_allowed());
    drop(hold);
    let (verdict, hold) = now(one.hold(&tokens(1_000, 900)));
    assert!(verdict.is_allowed());
    hold.unwrap().settle(250);
    assert_eq!(now(one.charge(&tokens(1_000, 0))).tokens.unwrap().remaining, 750);
    let (verdict, hold) = now(one.hold(&tokens(1_000, 5_000)));
    assert!(!verdict.is_allowed() && hold.is_none(), "what may take more than the limit waits for all of it");
}

#[tokio::test]
async fn an_instance_that_never_saw_a_caller_hears_what_it_spent_elsewhere() {
    let server = Server::start().await;
    let both = pair(&server, Duration::from_secs(1)).await;
    for _ in 0..32 {
        assert!(both[0].charge(&calls(40)).await.is_allowed());
    }
    both[1].hear(&mut Place::default()).await;
    server.signal(Signal::STOP);
    let mut allowed = 0;
    for number in 0..40 {
        allowed += u32::from(both[number % 2].charge(&calls(40)).await.is_allowed());
    }
    assert!((6..=10).contains(&allowed), "{allowed} of the 8 that are left");
}

/// Two instances over one real Redis.
async fn pair(server: &Server, timeout: Duration) -> [Limiter; 2] {
    let mut all = Vec::new();
    for _ in 0..2 {
        let shared: Arc<dyn QuotaStore> = Arc::new(SharedQuotas::new(client(&server.url(), timeout).await));
        all.push(limiter(Some(shared), 2, Arc::new(SystemClock)));
    }
    all.try_into().unwrap_or_else(|_| panic!("two"))
}

#[tokio::test]
async fn redis_counts_calls_and_tokens_over_two_instances_all_or_nothing() {
    let server = Server::start().await;
    let both = pair(&server, Duration::from_secs(5)).await;
    let mut charges = calls(7);
    let org = Subject::Org(OrgId::parse("o").unwrap());
    charges.push(org, Unit::Tokens, Rate::per_seconds(1_000, 3_600), 200);
    let mut left = Vec::new();
    for number in 0..10 {
        let verdict = both[number % 2].charge(&charges).await;
        left.push((verdict.is_allowed(), verdict.calls.unwrap().remaining, verdict.tokens.unwrap().remaining));
    }
    let allowed = [(true, 6, 800), (true, 5, 600), (true, 4, 400), (true, 3, 200), (true, 2, 0)];
    assert_eq!(left[..5], allowed);
    assert!(left[5..].iter().all(|known| *known == (false, 2, 0)), "{left:?}");
    let verdict = both[0].charge(&charges).await;
    let refused = verdict.refused.unwrap();
    let wait = Duration::from_nanos(refused.retry_after);
    assert!((Duration::from_secs(710)..=Duration::from_mins(12)).contains(&wait), "{wait:?}");
    assert!(both[1].charge(&calls(7)).await.is_allowed() && both[0].charge(&calls(7)).await.is_allowed());
    assert!(!both[1].charge(&calls(7)).await.is_allowed());
}

#[tokio::test]
async fn redis_gets_back_what_was_not_used() {
    let server = Server::start().await;
    let both = pair(&server, Duration::from_secs(5)).await;
    let (verdict, hold) = both[0].hold(&tokens(1_000, 900)).await;
    assert!(verdict.is_allowed());
    assert!(!both[1].charge(&tokens(1_000, 900)).await.is_allowed());
    hold.unwrap().settle(50);
    let mut given = false;
    for _ in 0..2_000 {
        given = both[1].charge(&tokens(1_000, 900)).await.is_allowed();
        if given {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(given);
}

#[tokio::test]
async fn a_redis_that_pauses_dies_and_forgets_hands_out_no_second_allowance() {
    let mut server = Server::start().await;
    let both = pair(&server, Duration::from_millis(400)).await;
    let ask = async |times: usize| {
        let mut allowed = 0;
        for number in 0..times {
            allowed += u32::from(both[number % 2].charge(&calls(40)).await.is_allowed());
        }
        allowed
    };
    let mut allowed = ask(20).await;
    assert_eq!(allowed, 20);
    server.signal(Signal::STOP);
    allowed += ask(10).await;
    assert!(both.iter().all(Limiter::is_degraded));
    server.signal(Signal::CONT);
    until("the limits to be shared again", || !both.iter().any(Limiter::is_degraded)).await;
    server.kill();
    allowed += ask(4).await;
    assert!(server.launch().await, "an empty one");
    until("the limits to be shared again", || !both.iter().any(Limiter::is_degraded)).await;
    allowed += ask(100).await;
    assert!((38..=48).contains(&allowed), "{allowed} of 40");
}
