//! One organization whose chain, or whose configuration, is stuck: its callers are told, and nobody else waits.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use super::{Rig, assert_unavailable, is_long, timed};
use crate::support::{
    client::Call,
    control::{Agent, Organization, field},
    gateway::CANARY,
    load::{Heard, Load, latency, tally},
    openai::ask,
    wait::until,
};

/// Another organization, with an agent and a policy of its own.
async fn organization(rig: &Rig, name: &str) -> Organization {
    let made = rig.cluster.admin(0, "POST", "/auth/orgs", json!({"name": name})).await;
    assert!(matches!(made.status, 200 | 201), "{}", made.text());
    let id = field(&made.json(), &["/id", "/org_id"]);
    let agent = rig.cluster.onboard_in(0, Some(&id), "theirs").await;
    let within = async |method: &str, target: &str, body: Value| {
        let reply = rig.cluster.admin_in(0, Some(&id), method, target, body).await;
        assert!(matches!(reply.status, 200 | 201), "{}", reply.text());
    };
    let overrides = json!({"rate_limit": {"max_calls": 10_000_000, "window_seconds": 3600}});
    within("PUT", "/api/pipeline", json!({"preset": "starter", "overrides": overrides})).await;
    within("POST", "/api/admin/llm-keys", json!({"provider": "openai", "api_key": CANARY})).await;
    within("POST", "/api/policies", json!({"name": "theirs", "rules": []})).await;
    Organization { id, agent }
}

fn call_of(agent: &Agent) -> Call {
    Call::post("/v1/chat/completions").key(&agent.key).json(&ask("hi"))
}

/// While the slow one's callers are refused at these gateways, again and again, the others' calls all pass.
async fn others_are_served(rig: &Rig, slow: &Organization, at: &[usize]) -> Vec<Heard> {
    let (callers, rounds) = if is_long() { (30, 5) } else { (8, 2) };
    let load = Load::start(callers, &rig.addresses(), &rig.cluster.chat_call(&ask("hi")));
    // Each round lasts as long as a decision may: two seconds.
    for _ in 0..rounds {
        let calls = (0..16).map(|number| {
            let address = rig.address(at[number % at.len()]);
            let call = call_of(&slow.agent);
            async move { timed(&call, address).await }
        });
        join_all(calls).await.iter().for_each(assert_unavailable);
    }
    let heard = load.stop().await;
    let (slowest, nearly_all) = latency(&heard);
    println!("beside a stuck organization: {}; p99 {nearly_all:?}, slowest {slowest:?}", tally(&heard));
    assert!(heard.iter().all(|one| one.status == 200), "{}", tally(&heard));
    // A busy machine takes its time; the slow one's callers are told after two seconds.
    assert!(slowest < Duration::from_millis(1_500), "{slowest:?}");
    heard
}

async fn is_served_again(rig: &Rig, slow: &Organization) {
    for address in rig.addresses() {
        until("the organization to be served again", async || {
            (call_of(&slow.agent).send(address).await.status == 200).then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_chain_that_somebody_holds_stops_its_own_organization_alone() {
    let rig = Rig::start(2).await;
    let slow = organization(&rig, "slow").await;
    is_served_again(&rig, &slow).await;
    let mut holder = PgConnection::connect(rig.cluster.url()).await.unwrap();
    let mut held = holder.begin().await.unwrap();
    let lock = "SELECT seq FROM audit_head WHERE org_id = $1 FOR UPDATE";
    sqlx::query(lock).bind(&slow.id).execute(&mut *held).await.unwrap();
    let sent = rig.upstream.requests().len();
    let heard = others_are_served(&rig, &slow, &[0, 1]).await;
    assert_eq!(rig.upstream.requests().len(), sent + heard.len(), "nothing was called for the slow one");
    held.rollback().await.unwrap();
    is_served_again(&rig, &slow).await;
    assert_eq!(rig.upstream.requests().len(), sent + heard.len() + 2, "who was refused is not called for later");
    until("the slow one's calls to be closed", async || {
        (rig.psql("SELECT count(*) FROM hold").await == "0").then_some(())
    })
    .await;
    rig.cluster.settled().await.assert_whole();
    rig.cluster.assert_verifies();
}

/// The table becomes a view that takes ten seconds for one organization.
const SLOW: &str = "ALTER TABLE policy RENAME TO policy_rows;
    CREATE FUNCTION takes_long(org TEXT) RETURNS BOOLEAN LANGUAGE plpgsql VOLATILE AS
        $$ BEGIN IF org = 'ORG' THEN PERFORM pg_sleep(10); END IF; RETURN true; END $$;
    CREATE VIEW policy AS SELECT * FROM policy_rows WHERE takes_long(org_id)";

const FAST: &str = "DROP VIEW policy; DROP FUNCTION takes_long; ALTER TABLE policy_rows RENAME TO policy";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_loads_for_ever_stops_its_own_organization_alone() {
    let rig = Rig::start(2).await;
    let slow = organization(&rig, "slow").await;
    is_served_again(&rig, &slow).await;
    rig.psql(&SLOW.replace("ORG", &slow.id)).await;
    // Started again it has nothing loaded; the other one goes on with what it has.
    rig.cluster.nodes[1].server.stop(rustix::process::Signal::TERM).await;
    rig.cluster.nodes[1].start_again().await;
    let load = Load::start(2, &[rig.address(0)], &call_of(&slow.agent));
    others_are_served(&rig, &slow, &[1]).await;
    let elsewhere = load.stop().await;
    assert!(elsewhere.iter().all(|one| one.status == 200), "{}", tally(&elsewhere));
    rig.psql(FAST).await;
    is_served_again(&rig, &slow).await;
    rig.cluster.settled().await.assert_whole();
    rig.cluster.assert_verifies();
}
