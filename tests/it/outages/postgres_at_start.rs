//! A gateway that is started before its database: not ready, never 401, and ready by itself once the database comes.

use std::{net::SocketAddr, time::Duration};

use futures_util::future::join_all;
use rustix::process::Signal;

use super::{Rig, assert_alive, assert_unavailable, not_ready, timed};
use crate::support::{
    chaos::Chaos,
    client::Call,
    cluster::Cluster,
    openai::ask,
    postgres::Postgres,
    upstream::Upstream,
    wait::{until, within},
};

const EVERY: &[(&str, &str)] = &[
    ("POST", "/v1/chat/completions"),
    ("GET", "/v1/models"),
    ("GET", "/api/me"),
    ("GET", "/api/agents"),
    ("PUT", "/api/pipeline"),
    ("GET", "/metrics"),
    ("GET", "/.well-known/jwks.json"),
    ("DELETE", "/no/such/path"),
];

async fn listens(address: SocketAddr) {
    until("the gateway to listen", async || tokio::net::TcpStream::connect(address).await.ok().map(drop)).await;
}

/// What a gateway says that waits for its database.
async fn assert_waits(rig: &Rig, node: usize) {
    let address = rig.address(node);
    listens(address).await;
    let reasons = not_ready(address).await;
    assert!(!reasons.is_empty());
    for (method, target) in EVERY {
        for key in ["agent-key-of-the-cluster-0001", "admin-key-of-the-cluster-0001", "tp_nonsense", ""] {
            let mut call = Call::new(method, target);
            if !key.is_empty() {
                call = call.key(key);
            }
            assert_unavailable(&timed(&call.json(&ask("hi")), address).await);
        }
    }
    assert_alive(address).await;
    assert!(rig.cluster.nodes[node].server.is_alive());
}

/// It has become a gateway like any other.
async fn assert_serves(rig: &mut Rig, node: usize) {
    rig.cluster.nodes[node].ready().await;
    if rig.cluster.org_id.is_empty() {
        rig.meet().await;
    }
    rig.cluster.chat(node, &ask("hi")).await.expect(200);
    assert_eq!(rig.books().await.admissions().count(), 1);
}

async fn assert_ends_at_once(rig: &Rig, node: usize) {
    let server = &rig.cluster.nodes[node].server;
    let began = std::time::Instant::now();
    within("the end of a start", server.stop(Signal::TERM)).await;
    assert_eq!(server.exit_code(), Some(0), "{}", server.log());
    assert!(began.elapsed() < Duration::from_secs(2), "it had nothing to finish: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn started_before_its_postgres_a_gateway_waits_for_it_and_never_calls_a_key_wrong() {
    let mut rig = Rig::prepare(|builder| builder).await;
    rig.postgres.stop().await;
    let node = rig.cluster.launch(&[]);
    assert_waits(&rig, node).await;
    rig.postgres.start_again().await;
    assert_serves(&mut rig, node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn started_before_a_black_hole_a_gateway_waits_for_its_postgres() {
    let mut rig = Rig::prepare(|builder| builder).await;
    let chaos = Chaos::in_front_of_postgres(rig.postgres.port);
    let url = chaos.instead_of(rig.cluster.url());
    chaos.black_hole();
    let node = rig.cluster.launch(&[("DATABASE_URL", &url)]);
    assert_waits(&rig, node).await;
    chaos.mend().await;
    assert_serves(&mut rig, node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_waits_ends_at_once_and_well_when_it_is_told_to() {
    let mut rig = Rig::prepare(|builder| builder).await;
    let chaos = Chaos::in_front_of_postgres(rig.postgres.port);
    let url = chaos.instead_of(rig.cluster.url());
    chaos.black_hole();
    let hangs = rig.cluster.launch(&[("DATABASE_URL", &url)]);
    listens(rig.address(hangs)).await;
    not_ready(rig.address(hangs)).await;
    assert_ends_at_once(&rig, hangs).await;
    rig.postgres.stop().await;
    let refused = rig.cluster.launch(&[]);
    listens(rig.address(refused)).await;
    not_ready(rig.address(refused)).await;
    assert_ends_at_once(&rig, refused).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_at_any_step_of_a_start_is_made_again() {
    let statements = [
        "current_setting",
        "_sqlx_migrations",
        "pg_advisory_lock",
        "data_key",
        "signing_key",
        "INSERT INTO boot ",
        "FROM audit_head",
        "tappass_append_v1",
        "tappass_change_v1",
        "FROM hold",
    ];
    // Some at once, each on a database of its own: a start takes a second.
    let postgres = Postgres::start().await;
    let start = async |statement: &&str| {
        let statement = *statement;
        let chaos = Chaos::in_front_of_postgres(postgres.port);
        let upstream = Upstream::start();
        let url = chaos.instead_of(&postgres.database().await);
        chaos.lose_answers(statement, 1, 1);
        let mut cluster = Cluster::builder(&upstream).prepare(&url);
        cluster.launch(&[]);
        let node = &cluster.nodes[0];
        until(&format!("a start that lost the answer to `{statement}`"), async || {
            assert!(node.server.is_alive(), "the loss of `{statement}` ended the start:\n{}", node.server.log());
            node.is_ready().await.then_some(())
        })
        .await;
        assert_eq!(chaos.lost(), 1, "`{statement}` is part of a start");
        cluster.meet().await;
        cluster.chat(0, &ask("hi")).await.expect(200);
        assert_eq!(cluster.settled().await.admissions().count(), 1);
        cluster.stop().await;
        cluster.assert_verifies();
    };
    for some in statements.chunks(3) {
        join_all(some.iter().map(start)).await;
    }
}
