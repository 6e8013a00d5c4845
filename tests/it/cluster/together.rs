//! What one instance does, the others do at once.

use serde_json::json;

use crate::support::{cluster::Cluster, control::block_pii, openai::ask, upstream::Upstream};

const PERSONAL: &str = "my social security number is 536-22-8145";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_published_on_one_instance_decides_the_next_call_on_every_other() {
    let upstream = Upstream::start();
    let cluster = Cluster::start(&upstream, 3).await;
    let policy = cluster.policy(0, "personal data", json!([block_pii()])).await;
    for round in 0..6 {
        for node in 0..3 {
            cluster.chat(node, &ask(PERSONAL)).await.expect(200);
        }
        let (assignment, _) = cluster.assign(round % 3, &policy).await;
        for node in 0..3 {
            cluster.chat(node, &ask(PERSONAL)).await.expect(403);
        }
        cluster.lift((round + 1) % 3, &assignment).await;
    }
    cluster.settled().await.assert_fresh();
    cluster.stop().await;
    cluster.assert_verifies();
}
