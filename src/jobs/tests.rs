//! Turns at a job, on both databases: one run per period whoever dies, and nothing from those who are too late.

use std::{convert::Infallible, sync::Mutex, time::Instant};

use super::{lease::Tried, *};
use crate::{
    admission::Lease,
    domain::{
        clock::{ManualClock, SystemClock},
        ids::{CredentialId, OrgId},
    },
    storage::sql::{
        JobLease, JobState,
        tests::{postgres_server::Postgres, settings},
    },
    telemetry::JobEnd,
};
use lease::Job;

const QUICK: Job = Job { name: "quick", every: Duration::from_millis(100), hold: Duration::from_millis(80) };

fn instance(sql: Sql) -> Cluster {
    Cluster {
        sql,
        lease: Lease::unlimited(Arc::new(SystemClock)),
        metrics: Arc::default(),
        holder: "a test".to_owned(),
    }
}

async fn connect(url: &str) -> Cluster {
    instance(Sql::connect(&settings(url)).await.unwrap())
}

fn row() -> (OrgId, CredentialId) {
    (OrgId::parse("org_a").unwrap(), CredentialId::parse("cred_a").unwrap())
}

/// What a job writes: whether it was let.
async fn write(sql: &Sql, token: u64) -> bool {
    let (org, credential) = row();
    sql.put_credential_check(&org, &credential, "valid", token).await.unwrap()
}

/// Up to so many milliseconds.
fn chance(most: u8) -> Duration {
    let mut byte = [0];
    getrandom::fill(&mut byte).unwrap();
    Duration::from_millis(u64::from(byte[0]) * u64::from(most) / 255)
}

/// One instance: takes turns until so many runs have come to their end anywhere, and is killed in every third.
async fn lives(cluster: Cluster, done: &Mutex<Vec<JobLease>>, killed: &AtomicUsize) {
    let mut tick = tokio::time::interval(Duration::from_millis(3));
    for turn in 0_usize.. {
        tick.tick().await;
        if done.lock().unwrap().len() >= 100 {
            return;
        }
        let taken = Mutex::new(None);
        let run = cluster.try_run(QUICK, async |lease| {
            *taken.lock().unwrap() = Some(lease);
            write(&cluster.sql, lease.token).await;
            // What a run takes, now and then longer than it may.
            tokio::time::sleep(chance(110)).await;
            write(&cluster.sql, lease.token).await;
            Ok::<(), Infallible>(())
        });
        if turn % 3 == 2 {
            // Dropped wherever it stands, with its connections: what is left of it is what a process leaves.
            let ended = tokio::time::timeout(chance(60), run).await;
            if ended.is_err() && taken.lock().unwrap().is_some() {
                killed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            if ended != Ok(Tried::Ended(JobEnd::Ran)) {
                continue;
            }
        } else if run.await != Tried::Ended(JobEnd::Ran) {
            continue;
        }
        done.lock().unwrap().push(taken.lock().unwrap().expect("a run that came to its end had a lease"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_hundred_ticks_no_two_runs_come_to_their_end_in_one_whoever_is_killed() {
    let url = Postgres::shared().await.database().await;
    let (done, killed) = (Mutex::default(), AtomicUsize::new(0));
    let instances = [connect(&url).await, connect(&url).await, connect(&url).await];
    futures_util::future::join_all(instances.map(|one| lives(one, &done, &killed))).await;
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|lease| lease.started_at);
    assert!(done.len() >= 100 && killed.into_inner() > 0);
    for pair in done.windows(2) {
        let apart = pair[1].started_at - pair[0].started_at;
        assert!(apart >= 100_000, "two runs within {apart} µs: {pair:?}");
        assert!(pair[1].token > pair[0].token, "{pair:?}");
    }
}

#[tokio::test]
async fn a_run_that_hangs_loses_its_lease_at_its_cap_and_what_it_writes_late_is_refused() {
    let url = Postgres::shared().await.database().await;
    let (hung, other) = (connect(&url).await, connect(&url).await);
    let mut stale = 0;
    let tried = hung
        .try_run(QUICK, async |lease| {
            stale = lease.token;
            assert!(hung.sql.is_my_job(QUICK.name, stale).await.unwrap());
            assert!(write(&hung.sql, stale).await);
            std::future::pending::<Result<(), Infallible>>().await
        })
        .await;
    // A busy machine may miss a beat, which ends it earlier.
    assert!(matches!(tried, Tried::Ended(JobEnd::Overran | JobEnd::Lost)), "{tried:?}");
    let mut newer = 0;
    loop {
        let tried = other
            .try_run(QUICK, async |lease| {
                newer = lease.token;
                assert!(write(&other.sql, newer).await);
                Ok::<(), Infallible>(())
            })
            .await;
        if tried == Tried::Ended(JobEnd::Ran) {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert!(newer > stale);
    assert!(!write(&hung.sql, stale).await, "it was fenced");
    assert!(!hung.sql.finish_job(QUICK.name, stale).await.unwrap(), "and does not count");
    assert!(write(&other.sql, newer).await);
}

#[tokio::test]
async fn a_run_whose_locks_session_ends_is_ended_at_once() {
    let server = Postgres::shared().await;
    let url = server.database().await;
    let database = url.rsplit('/').next().unwrap();
    let cluster = connect(&url).await;
    let job = Job { name: "long", every: Duration::from_secs(40), hold: Duration::from_secs(30) };
    let began = Instant::now();
    let tried = cluster
        .try_run(Job { hold: Duration::from_secs(2), ..job }, async |_| {
            let end = "SELECT pg_terminate_backend(l.pid) FROM pg_locks l JOIN pg_database d ON d.oid = l.database \
                       WHERE l.locktype = 'advisory' AND d.datname = current_database()";
            server.psql(database, end).await;
            std::future::pending::<Result<(), Infallible>>().await
        })
        .await;
    assert_eq!(tried, Tried::Ended(JobEnd::Lost), "after {:?}", began.elapsed());
    let metrics = cluster.metrics.render();
    assert!(metrics.contains("tappass_job_lost_total{job=\"long\"} 1"), "{metrics}");
}

#[tokio::test]
async fn a_job_runs_once_in_its_period_and_its_failure_is_tried_again_but_not_at_once() {
    let folder = std::env::temp_dir().join(format!("tappass-jobs-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let embedded = instance(Sql::open(&folder.join("tappass.db")).await.unwrap());
    let url = Postgres::shared().await.database().await;
    let hour = Duration::from_hours(1);
    let job = Job { name: "hourly", every: hour, hold: hour / 2 };
    for cluster in [embedded, connect(&url).await] {
        let ok = async |_| Ok::<(), Infallible>(());
        assert_eq!(cluster.try_run(job, ok).await, Tried::Ended(JobEnd::Ran));
        assert_eq!(cluster.try_run(job, ok).await, Tried::Rests);
        let (state, age) = cluster.sql.job_state(job.name, hour).await.unwrap();
        assert!(state == JobState::Resting && age.unwrap() < hour);
        let failing = Job { name: "failing", ..job };
        let fails = async |_| Err(std::io::Error::other("no"));
        assert_eq!(cluster.try_run(failing, fails).await, Tried::Ended(JobEnd::Failed));
        assert_eq!(cluster.try_run(failing, fails).await, Tried::Ended(JobEnd::Skipped));
        assert_eq!(cluster.sql.job_state(failing.name, hour).await.unwrap(), (JobState::Held, None));
        let renewed = cluster.sql.renew_job(job.name, 1, hour, hour).await.unwrap();
        assert!(!renewed, "a run that has ended renews nothing");
        cluster.sql.close().await;
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[tokio::test]
async fn an_instance_without_its_own_lease_runs_no_job_and_one_that_loses_it_ends_the_run() {
    let url = Postgres::shared().await.database().await;
    let clock = Arc::new(ManualClock::at(0));
    let lease = Lease::new(clock.clone());
    let cluster = Cluster { lease: lease.clone(), ..connect(&url).await };
    let job = Job { name: "guarded", every: Duration::from_mins(2), hold: Duration::from_mins(1) };
    assert_eq!(cluster.try_run(job, async |_| Ok::<(), Infallible>(())).await, Tried::Rests);
    lease.renewed(crate::domain::clock::Clock::running(&*clock), Duration::from_secs(28));
    let tried = cluster.try_run(job, async |_| {
        lease.fence();
        std::future::pending::<Result<(), Infallible>>().await
    });
    assert_eq!(tried.await, Tried::Ended(JobEnd::Lost));
}
