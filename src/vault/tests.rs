//! The vault as its callers see it, over a provider that counts its calls and can be stopped.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Duration,
};

use async_trait::async_trait;
use futures_util::{FutureExt, future::join_all};
use tokio::{sync::Semaphore, task::JoinSet};

use super::*;
use crate::{
    domain::clock::ManualClock,
    vault::kms::{Unwrapped, local::LocalKek},
};

const MINUTE: Duration = Duration::from_mins(1);
const SECRET: &[u8] = b"sk-canary-0001";

/// The local provider behind a counter, a switch and a gate.
struct FakeKms {
    local: LocalKek,
    unwraps: AtomicUsize,
    is_down: AtomicBool,
    is_stale: AtomicBool,
    gives_another_key: AtomicBool,
    is_gated: AtomicBool,
    gate: Semaphore,
}

impl FakeKms {
    fn set(flag: &AtomicBool, to: bool) {
        flag.store(to, Ordering::SeqCst);
    }

    fn unwraps(&self) -> usize {
        self.unwraps.load(Ordering::SeqCst)
    }

    fn check_up(&self) -> Result<(), KmsError> {
        let is_down = self.is_down.load(Ordering::SeqCst);
        if is_down { Err(KmsError::Unavailable { reason: "stopped".to_owned() }) } else { Ok(()) }
    }
}

#[async_trait]
impl Kms for FakeKms {
    fn name(&self) -> &str {
        self.local.name()
    }

    async fn wrap(&self, key: &DataKeyBytes, aad: &[u8]) -> Result<Vec<u8>, KmsError> {
        self.check_up()?;
        self.local.wrap(key, aad).await
    }

    async fn unwrap(&self, wrapped: &[u8], aad: &[u8]) -> Result<Unwrapped, KmsError> {
        self.unwraps.fetch_add(1, Ordering::SeqCst);
        if self.is_gated.load(Ordering::SeqCst) {
            self.gate.acquire().await.unwrap().forget();
        }
        self.check_up()?;
        let mut unwrapped = self.local.unwrap(wrapped, aad).await?;
        unwrapped.stale = self.is_stale.load(Ordering::SeqCst);
        if self.gives_another_key.load(Ordering::SeqCst) {
            unwrapped.key = DataKeyBytes::generate().map_err(|_| KmsError::Entropy)?;
        }
        Ok(unwrapped)
    }
}

struct Rig {
    vault: Vault,
    kms: Arc<FakeKms>,
    clock: Arc<ManualClock>,
}

impl Rig {
    fn new() -> Self {
        Self::with(DataKeyLimits::default())
    }

    fn with(limits: DataKeyLimits) -> Self {
        let kms = Arc::new(FakeKms {
            local: LocalKek::parse(&"2a".repeat(32)).unwrap_or_else(|error| panic!("{error}")),
            unwraps: AtomicUsize::default(),
            is_down: AtomicBool::default(),
            is_stale: AtomicBool::default(),
            gives_another_key: AtomicBool::default(),
            is_gated: AtomicBool::default(),
            gate: Semaphore::new(0),
        });
        let clock = Arc::new(ManualClock::at(1_000));
        Self { vault: Vault::new(kms.clone(), clock.clone(), "test", limits), kms, clock }
    }

    /// A data key that this instance has never unwrapped, and a row sealed under it.
    async fn cold_row(&self, owner: &OrgId) -> (DataKeyRow, Vec<u8>) {
        let row = self.warm_row(owner).await;
        self.vault.drop_org(owner);
        self.kms.unwraps.store(0, Ordering::SeqCst);
        row
    }

    /// The same, with the data key cached.
    async fn warm_row(&self, owner: &OrgId) -> (DataKeyRow, Vec<u8>) {
        let data_key = self.vault.new_data_key(owner).await.unwrap();
        let sealed = self.vault.seal(&data_key, owner, &credential("cred_1"), "api_key", SECRET).await.unwrap();
        self.kms.unwraps.store(0, Ordering::SeqCst);
        (data_key, sealed)
    }

    async fn open(&self, data_key: &DataKeyRow, sealed: &[u8]) -> Result<(), VaultError> {
        let opened = self.vault.open(data_key, &data_key.org, &credential("cred_1"), "api_key", sealed).await?;
        assert_eq!(opened.expose(), SECRET);
        Ok(())
    }
}

fn org(text: &str) -> OrgId {
    OrgId::parse(text).unwrap()
}

fn credential(text: &str) -> CredentialId {
    CredentialId::parse(text).unwrap()
}

fn just_before(age: Duration) -> Duration {
    age.saturating_sub(Duration::from_nanos(1))
}

fn is_unavailable(opened: &Result<(), VaultError>) -> bool {
    matches!(opened, Err(error @ VaultError::KmsUnavailable(_)) if error.is_retryable())
}

#[tokio::test]
async fn vault_a_sealed_row_opens_in_its_place_and_shows_nothing() {
    let rig = Rig::new();
    let (data_key, sealed) = rig.warm_row(&org("org_a")).await;
    assert_eq!(rig.open(&data_key, &sealed).await, Ok(()));
    assert_eq!((data_key.state, data_key.created_at), (DataKeyState::Active, 1_000));
    assert!(data_key.kek.starts_with("local:"));
    assert_eq!(Vault::data_key_of(&sealed), Ok(data_key.id));
    assert!(!sealed.windows(SECRET.len()).any(|window| window == SECRET));
    assert_eq!(rig.kms.unwraps(), 0);
}

#[tokio::test]
async fn vault_a_row_opens_under_no_other_organization_credential_field_or_data_key() {
    let rig = Rig::new();
    let (one, two, cred) = (org("org_a"), org("org_b"), credential("cred_1"));
    let (data_key, sealed) = rig.warm_row(&one).await;
    let (foreign, _) = rig.warm_row(&two).await;
    let (newer, _) = rig.warm_row(&one).await;
    let moved = Some(VaultError::Refused(Refusal::Tag));
    let opened = async |key: &DataKeyRow, org: &OrgId, credential: &CredentialId, field: &str| {
        rig.vault.open(key, org, credential, field, &sealed).await.err()
    };
    assert_eq!(opened(&data_key, &one, &cred, "api_key").await, None);
    assert_eq!(opened(&data_key, &one, &cred, "secret").await, moved);
    // A rolled key is a new credential: the old row put back under it does not open.
    assert_eq!(opened(&data_key, &one, &credential("cred_2"), "api_key").await, moved);
    assert_eq!(opened(&data_key, &two, &cred, "api_key").await, Some(VaultError::WrongDataKey));
    assert_eq!(opened(&foreign, &two, &cred, "api_key").await, Some(VaultError::WrongDataKey));
    assert_eq!(opened(&newer, &one, &cred, "api_key").await, Some(VaultError::WrongDataKey));
    // The name of the data key rewritten in the row as well: the commitment notices.
    let mut renamed = sealed.clone();
    renamed[1..17].copy_from_slice(&foreign.id.0);
    let opened = rig.vault.open(&foreign, &two, &cred, "api_key", &renamed).await;
    assert_eq!(opened.err(), Some(VaultError::Refused(Refusal::Commitment)));
}

#[tokio::test]
async fn vault_a_wrapped_data_key_copied_elsewhere_does_not_unwrap() {
    let rig = Rig::new();
    let (data_key, sealed) = rig.cold_row(&org("org_a")).await;
    let stolen = DataKeyRow { org: org("org_b"), ..data_key.clone() };
    let renamed = DataKeyRow { id: DataKeyId([7; 16]), ..data_key.clone() };
    for row in [&stolen, &renamed] {
        assert_eq!(rig.vault.warm(row).await, Err(VaultError::KmsRefused(KmsError::Refused)));
    }
    assert_eq!(rig.open(&stolen, &sealed).await, Err(VaultError::KmsRefused(KmsError::Refused)));
    let elsewhere = Vault::new(rig.kms.clone(), rig.clock.clone(), "staging", DataKeyLimits::default());
    assert_eq!(elsewhere.warm(&data_key).await, Err(VaultError::KmsRefused(KmsError::Refused)));
    assert_eq!(rig.open(&data_key, &sealed).await, Ok(()));
}

#[tokio::test]
async fn vault_a_row_that_is_plainly_wrong_costs_no_kms_call() {
    let rig = Rig::new();
    let (data_key, mut sealed) = rig.cold_row(&org("org_a")).await;
    assert_eq!(rig.open(&data_key, b"").await, Err(VaultError::Refused(Refusal::Truncated)));
    sealed[0] = 9;
    assert_eq!(rig.open(&data_key, &sealed).await, Err(VaultError::UnknownFormat(9)));
    assert_eq!(rig.kms.unwraps(), 0);
}

#[tokio::test]
async fn vault_the_state_of_a_data_key_says_what_it_may_do() {
    let rig = Rig::new();
    let (data_key, sealed) = rig.warm_row(&org("org_a")).await;
    let retiring = DataKeyRow { state: DataKeyState::Retiring, ..data_key.clone() };
    let dead = DataKeyRow { state: DataKeyState::Dead, ..data_key.clone() };
    assert_eq!(rig.open(&retiring, &sealed).await, Ok(()));
    assert_eq!(rig.open(&dead, &sealed).await, Err(VaultError::DataKeyState));
    for row in [&retiring, &dead] {
        let written = rig.vault.seal(row, &row.org, &credential("cred_1"), "api_key", SECRET).await;
        assert_eq!(written, Err(VaultError::DataKeyState));
    }
    assert_eq!(rig.vault.warm(&dead).await, Err(VaultError::DataKeyState));
}

#[tokio::test]
async fn vault_a_data_key_that_does_not_come_back_is_never_handed_out() {
    let rig = Rig::new();
    FakeKms::set(&rig.kms.gives_another_key, true);
    let made = rig.vault.new_data_key(&org("org_a")).await;
    assert_eq!(made, Err(VaultError::KmsRefused(KmsError::Refused)));
    FakeKms::set(&rig.kms.is_down, true);
    let made = rig.vault.new_data_key(&org("org_b")).await;
    assert!(matches!(made, Err(VaultError::KmsUnavailable(_))));
}

#[tokio::test]
async fn kms_fifty_waiters_cost_one_call() {
    let rig = Rig::new();
    let (data_key, sealed) = rig.cold_row(&org("org_a")).await;
    FakeKms::set(&rig.kms.is_gated, true);
    let waiters = join_all((0..50).map(|_| rig.open(&data_key, &sealed)));
    let (opened, ()) = tokio::join!(waiters, async { rig.kms.gate.add_permits(50) });
    assert!(opened.iter().all(Result::is_ok));
    assert_eq!((opened.len(), rig.kms.unwraps()), (50, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn kms_waiters_on_many_threads_cost_one_call() {
    let rig = Arc::new(Rig::new());
    for _ in 0..50 {
        let (data_key, sealed) = rig.cold_row(&org("org_a")).await;
        let mut waiters = JoinSet::new();
        for _ in 0..8 {
            let (rig, data_key, sealed) = (Arc::clone(&rig), data_key.clone(), sealed.clone());
            waiters.spawn(async move { rig.open(&data_key, &sealed).await });
        }
        assert!(waiters.join_all().await.iter().all(Result::is_ok));
        assert_eq!(rig.kms.unwraps(), 1);
    }
}

#[tokio::test]
async fn kms_an_unwrap_survives_its_first_waiter() {
    let rig = Rig::new();
    let (data_key, sealed) = rig.cold_row(&org("org_a")).await;
    FakeKms::set(&rig.kms.is_gated, true);
    let mut first = Box::pin(rig.open(&data_key, &sealed));
    let mut second = Box::pin(rig.open(&data_key, &sealed));
    assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
    drop(first);
    rig.kms.gate.add_permits(1);
    assert_eq!(second.await, Ok(()));
    assert_eq!(rig.kms.unwraps(), 1);
}

#[tokio::test]
async fn kms_an_unwrap_that_everybody_left_is_begun_anew() {
    let rig = Rig::new();
    let (data_key, sealed) = rig.cold_row(&org("org_a")).await;
    FakeKms::set(&rig.kms.is_gated, true);
    let mut only = Box::pin(rig.open(&data_key, &sealed));
    assert!((&mut only).now_or_never().is_none());
    drop(only);
    rig.kms.gate.add_permits(1);
    assert_eq!(rig.open(&data_key, &sealed).await, Ok(()));
    assert_eq!(rig.kms.unwraps(), 2);
}

#[tokio::test]
async fn kms_down_serves_until_the_hard_age_ends_and_not_beyond() {
    let rig = Rig::new();
    let (data_key, sealed) = rig.warm_row(&org("org_a")).await;
    FakeKms::set(&rig.kms.is_down, true);
    for _ in 0..9 {
        rig.clock.advance(MINUTE);
        // Neither use nor a failed refresh extends the age.
        assert!(rig.vault.warm(&data_key).await.is_err());
        assert_eq!(rig.open(&data_key, &sealed).await, Ok(()));
    }
    rig.clock.advance(just_before(MINUTE));
    assert_eq!(rig.open(&data_key, &sealed).await, Ok(()));
    rig.clock.advance(Duration::from_nanos(1));
    assert!(is_unavailable(&rig.open(&data_key, &sealed).await));
    assert!(rig.vault.open_cached(&data_key, &data_key.org, &credential("cred_1"), "api_key", &sealed).is_none());
    FakeKms::set(&rig.kms.is_down, false);
    rig.clock.advance(MINUTE);
    assert_eq!(rig.open(&data_key, &sealed).await, Ok(()));
}

#[tokio::test]
async fn kms_a_fresh_unwrap_starts_the_age_anew_from_its_beginning() {
    let rig = Rig::new();
    let (data_key, sealed) = rig.warm_row(&org("org_a")).await;
    rig.clock.advance(6 * MINUTE);
    FakeKms::set(&rig.kms.is_gated, true);
    let mut refresh = Box::pin(rig.vault.warm(&data_key));
    assert!((&mut refresh).now_or_never().is_none());
    rig.clock.advance(2 * MINUTE);
    rig.kms.gate.add_permits(1);
    assert_eq!(refresh.await, Ok(false));
    FakeKms::set(&rig.kms.is_gated, false);
    FakeKms::set(&rig.kms.is_down, true);
    rig.clock.advance(just_before(8 * MINUTE));
    assert_eq!(rig.open(&data_key, &sealed).await, Ok(()));
    rig.clock.advance(Duration::from_nanos(1));
    assert!(is_unavailable(&rig.open(&data_key, &sealed).await));
}

#[tokio::test]
async fn kms_a_failure_is_remembered_for_a_short_while() {
    let rig = Rig::new();
    let (data_key, sealed) = rig.cold_row(&org("org_a")).await;
    FakeKms::set(&rig.kms.is_down, true);
    for _ in 0..5 {
        assert!(is_unavailable(&rig.open(&data_key, &sealed).await));
    }
    assert_eq!(rig.kms.unwraps(), 1);
    rig.clock.advance(Duration::from_secs(2));
    assert!(is_unavailable(&rig.open(&data_key, &sealed).await));
    assert_eq!(rig.kms.unwraps(), 2);
    FakeKms::set(&rig.kms.is_down, false);
    assert!(is_unavailable(&rig.open(&data_key, &sealed).await));
    rig.clock.advance(Duration::from_secs(2));
    assert_eq!(rig.open(&data_key, &sealed).await, Ok(()));
}

#[tokio::test]
async fn kms_one_organization_in_trouble_does_not_touch_another() {
    let rig = Rig::new();
    let (bad, sealed) = rig.cold_row(&org("org_a")).await;
    let (good, other) = rig.cold_row(&org("org_b")).await;
    let broken = DataKeyRow { wrapped: good.wrapped.clone(), ..bad };
    assert_eq!(rig.open(&broken, &sealed).await, Err(VaultError::KmsRefused(KmsError::Refused)));
    assert_eq!(rig.open(&good, &other).await, Ok(()));
}

#[tokio::test]
async fn vault_a_dropped_organization_is_unwrapped_again_and_others_stay() {
    let rig = Rig::new();
    let (dropped, sealed) = rig.warm_row(&org("org_a")).await;
    let (kept, other) = rig.warm_row(&org("org_b")).await;
    rig.vault.drop_org(&dropped.org);
    FakeKms::set(&rig.kms.is_down, true);
    assert!(is_unavailable(&rig.open(&dropped, &sealed).await));
    assert_eq!(rig.open(&kept, &other).await, Ok(()));
}

#[tokio::test]
async fn vault_an_unwrap_begun_before_a_drop_is_not_cached_after_it() {
    let rig = Rig::new();
    let (data_key, sealed) = rig.cold_row(&org("org_a")).await;
    FakeKms::set(&rig.kms.is_gated, true);
    let mut early = Box::pin(rig.open(&data_key, &sealed));
    assert!((&mut early).now_or_never().is_none());
    rig.vault.drop_org(&data_key.org);
    // One who comes after the drop asks for himself.
    let mut late = Box::pin(rig.open(&data_key, &sealed));
    assert!((&mut late).now_or_never().is_none());
    assert_eq!(rig.kms.unwraps(), 2);
    rig.kms.gate.add_permits(1);
    assert_eq!(early.await, Ok(()));
    assert!(rig.vault.open_cached(&data_key, &data_key.org, &credential("cred_1"), "api_key", &sealed).is_none());
    rig.kms.gate.add_permits(1);
    assert_eq!(late.await, Ok(()));
    assert!(rig.vault.open_cached(&data_key, &data_key.org, &credential("cred_1"), "api_key", &sealed).is_some());
}

#[tokio::test]
async fn vault_the_cache_is_bounded_and_forgets_the_idlest() {
    let rig = Rig::with(DataKeyLimits { capacity: 2, ..DataKeyLimits::default() });
    let (one, first) = rig.warm_row(&org("org_a")).await;
    let (two, second) = rig.warm_row(&org("org_b")).await;
    rig.clock.advance(MINUTE);
    assert_eq!(rig.open(&one, &first).await, Ok(()));
    let (three, third) = rig.warm_row(&org("org_c")).await;
    assert_eq!(rig.open(&one, &first).await, Ok(()));
    assert_eq!(rig.open(&three, &third).await, Ok(()));
    assert_eq!(rig.kms.unwraps(), 0);
    assert_eq!(rig.open(&two, &second).await, Ok(()));
    assert_eq!(rig.kms.unwraps(), 1);
}

#[tokio::test]
async fn vault_keys_are_due_from_half_their_age_the_used_ones_first() {
    let rig = Rig::new();
    let (idle, _) = rig.warm_row(&org("org_a")).await;
    let (busy, sealed) = rig.warm_row(&org("org_b")).await;
    rig.clock.advance(just_before(5 * MINUTE));
    assert_eq!(rig.vault.refresh_due(), []);
    assert_eq!(rig.open(&busy, &sealed).await, Ok(()));
    rig.clock.advance(Duration::from_nanos(1));
    let due = rig.vault.refresh_due();
    let orgs: Vec<_> = due.iter().map(|key| (key.name.org.clone(), key.name.id)).collect();
    assert_eq!(orgs, [(busy.org.clone(), busy.id), (idle.org.clone(), idle.id)]);
    assert_eq!(due.iter().map(|key| key.idle).collect::<Vec<_>>(), [Duration::from_nanos(1), 5 * MINUTE]);
    // A refresh is no use: an organization that nobody asks for goes on ageing in the eyes of the job.
    assert_eq!(rig.vault.warm(&idle).await, Ok(false));
    assert_eq!(rig.vault.refresh_due().len(), 1);
    rig.clock.advance(5 * MINUTE);
    let due = rig.vault.refresh_due();
    assert_eq!(due, [DueKey { name: name_of(&idle), idle: 10 * MINUTE }]);
}

#[tokio::test]
async fn vault_warming_says_when_a_newer_version_should_wrap_the_key() {
    let rig = Rig::new();
    let (data_key, _) = rig.cold_row(&org("org_a")).await;
    assert_eq!(rig.vault.warm(&data_key).await, Ok(false));
    FakeKms::set(&rig.kms.is_stale, true);
    assert_eq!(rig.vault.warm(&data_key).await, Ok(true));
}

#[test]
fn vault_errors_show_no_stored_bytes() {
    let errors = [
        VaultError::KmsUnavailable(KmsError::Unavailable { reason: "timed out".to_owned() }),
        VaultError::UnknownFormat(9),
        VaultError::Refused(Refusal::Commitment),
        VaultError::TooLarge,
    ];
    let texts = errors.map(|error| error.to_string());
    assert_eq!(texts[0], "the key management service cannot be reached and no cached data key is young enough");
    assert_eq!(texts[1], "a sealed row has the unknown format 9");
    assert_eq!(texts[2], "a sealed row was refused: its key commitment does not match");
    assert_eq!(texts[3], "more than 1048576 bytes in one sealed row");
}
