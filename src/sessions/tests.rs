//! The same questions to the memory and to a real Redis.

use std::time::Duration;

use super::*;
use crate::{
    domain::clock::{ManualClock, SystemClock},
    storage::redis::testing::{Server, client, until},
};

fn key(org: &str, agent: &str, session: &str) -> SessionKey {
    SessionKey::new(&OrgId::parse(org).unwrap(), &AgentId::parse(agent).unwrap(), session)
}

fn glance(family: Family, severity: Severity, tools: Option<u8>) -> Glance {
    let labels = Labels::default().with(family);
    let mut glance = Glance { labels, risk: 0, tools: tools.map(|byte| sha256(&[&[byte]])) };
    glance.add(severity);
    glance
}

/// What holds for every store.
async fn remembers(sessions: &Sessions) {
    let mine = key("o", "a", "s");
    assert_eq!(sessions.find(mine).await, None);
    let first = sessions.merge(mine, &glance(Family::Secrets, Severity::High, None)).await;
    assert_eq!((first.risk, first.tools), (20, None));
    let second = sessions.merge(mine, &glance(Family::PersonalData, Severity::Low, Some(1))).await;
    assert!(second.labels.has(Family::Secrets) && second.labels.has(Family::PersonalData));
    assert!(!second.labels.has(Family::Injection));
    assert_eq!((second.risk, second.tools), (21, Some(sha256(&[&[1]]))));
    let third = sessions.merge(mine, &glance(Family::Unicode, Severity::Critical, Some(2))).await;
    assert_eq!((third.risk, third.tools), (71, second.tools), "the tools that a session began with stay");
    let found = sessions.find(mine).await.unwrap();
    assert_eq!((found.labels, found.risk, found.tools), (third.labels, third.risk, third.tools));
    for other in [key("o2", "a", "s"), key("o", "a2", "s"), key("o", "a", "s2"), key("oa", "s", "")] {
        assert_eq!(sessions.find(other).await, None, "nobody reads another's");
    }
}

#[tokio::test]
async fn memory_merges_what_calls_show() {
    remembers(&Sessions::new(10, None, Arc::new(ManualClock::at(0)), TaskTracker::new())).await;
}

#[tokio::test]
async fn redis_merges_what_calls_show() {
    let server = Server::start().await;
    let redis = client(&server.url(), Duration::from_secs(5)).await;
    remembers(&Sessions::new(10, Some(redis), Arc::new(SystemClock), TaskTracker::new())).await;
}

#[tokio::test]
async fn risk_halves_in_half_an_hour_and_a_session_ends_when_nobody_sees_it() {
    let clock = Arc::new(ManualClock::at(0));
    let sessions = Sessions::new(10, None, Arc::clone(&clock) as _, TaskTracker::new());
    let mine = key("o", "a", "s");
    for _ in 0..2 {
        sessions.merge(mine, &glance(Family::Secrets, Severity::Critical, None)).await;
    }
    clock.advance(Duration::from_mins(15));
    assert_eq!(sessions.merge(mine, &Glance::default()).await.risk, 71);
    clock.advance(Duration::from_mins(15));
    assert_eq!(sessions.merge(mine, &Glance::default()).await.risk, 50);
    clock.advance(Duration::from_mins(30));
    assert_eq!(sessions.find(mine).await, None);
}

#[tokio::test]
async fn a_full_memory_forgets_nobody_whose_session_is_not_over() {
    let clock = Arc::new(ManualClock::at(0));
    let sessions = Sessions::new(1, None, Arc::clone(&clock) as _, TaskTracker::new());
    let (mine, new) = (key("o", "a", "s"), key("o", "b", "s"));
    let shown = glance(Family::Secrets, Severity::High, None);
    sessions.merge(mine, &shown).await;
    assert_eq!(sessions.merge(new, &shown).await.risk, 20, "a newcomer is answered, if not remembered");
    assert!(sessions.find(mine).await.is_some() && sessions.find(new).await.is_none());
    clock.advance(Duration::from_mins(31));
    sessions.merge(new, &shown).await;
    assert!(sessions.find(new).await.is_some());
}

#[tokio::test]
async fn a_session_survives_redis_going_away_and_forgetting() {
    let mut server = Server::start().await;
    let redis = client(&server.url(), Duration::from_secs(1)).await;
    let sessions = Sessions::new(10, Some(redis.clone()), Arc::new(SystemClock), TaskTracker::new());
    let mine = key("o", "a", "s");
    sessions.merge(mine, &glance(Family::Secrets, Severity::High, Some(1))).await;
    server.kill();
    let away = sessions.merge(mine, &glance(Family::Injection, Severity::High, Some(2))).await;
    assert!(away.labels.has(Family::Secrets) && away.risk == 40);
    assert!(server.launch().await);
    until("a new link", || redis.link().is_some()).await;
    assert_eq!(sessions.find(mine).await.unwrap().risk, 40, "what Redis has not been told is known here");
    sessions.note(mine, glance(Family::Unicode, Severity::Low, None));
    let elsewhere = Sessions::new(10, Some(redis), Arc::new(SystemClock), TaskTracker::new());
    let mut found = None;
    for _ in 0..5_000 {
        found = elsewhere.find(mine).await;
        if found.is_some() {
            break;
        }
    }
    let found = found.unwrap();
    assert_eq!((found.risk, found.tools), (41, Some(sha256(&[&[1]]))));
    assert!([Family::Secrets, Family::Injection, Family::Unicode].iter().all(|family| found.labels.has(*family)));
}
