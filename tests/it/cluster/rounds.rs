//! The rounds: publish a blocking policy on one instance, call at once on all of them, publish it away, call again.
//!
//! Owns the count of leaks (a call that the new policy forbids is let through) and of false blocks, under each fault that
//! instances may suffer from one another. `make rounds` runs a thousand of each and writes `target/figures/rounds.json`; the
//! suite runs a few. Times are printed and never judged.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{
    client::{Call, Wire},
    cluster::Cluster,
    control::{Agent, block_pii},
    gateway::{Gateway, TempDir, said, tappass},
    postgres::Postgres,
    upstream::Upstream,
};

const PERSONAL: &str = "my social security number is 536-22-8145";
/// Calls in a burst, over all instances.
const BURST: usize = 20;
/// Rounds in one organization; each leaves two versions of a policy behind, as no real one does a thousand times a day.
const PER_ORGANIZATION: usize = 50;

/// What goes wrong meanwhile.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    None,
    /// No instance hears of the others' changes.
    Deaf,
    /// One instance is stopped while the policy is published, and goes on in the middle of the burst.
    Paused,
    /// A fourth instance starts every few rounds, and ends.
    Starting,
    /// Two instances run on the schema of the version before, while the third brings the new one.
    Rollout,
}

impl Fault {
    fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Deaf => "notify_off",
            Self::Paused => "paused_and_resumed",
            Self::Starting => "a_fourth_starts",
            Self::Rollout => "previous_schema",
        }
    }
}

/// What a run counted.
#[derive(Default)]
struct Sum {
    rounds: usize,
    leaks: usize,
    false_blocks: usize,
    publishes: Vec<Duration>,
    decision_p99_us: u64,
}

impl Sum {
    fn publish_p50_ms(&self) -> f64 {
        let mut sorted = self.publishes.clone();
        sorted.sort();
        sorted.get(sorted.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1_000.0)
    }
}

/// How many rounds of each kind: few in the suite, `TAPPASS_ROUNDS` of them when asked for.
fn rounds(few: usize) -> usize {
    std::env::var("TAPPASS_ROUNDS").ok().and_then(|count| count.parse().ok()).unwrap_or(few)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_published_policy_decides_every_later_call_on_three_instances() {
    report(Fault::None, &run(Fault::None, rounds(6)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_so_without_notifications() {
    report(Fault::Deaf, &run(Fault::Deaf, rounds(4)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_so_on_an_instance_that_was_paused_meanwhile() {
    report(Fault::Paused, &run(Fault::Paused, rounds(4)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_so_on_an_instance_that_starts_meanwhile() {
    report(Fault::Starting, &run(Fault::Starting, rounds(4)).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_does_so_while_two_instances_run_on_the_schema_before() {
    report(Fault::Rollout, &run(Fault::Rollout, rounds(4)).await);
}

async fn run(fault: Fault, count: usize) -> Sum {
    let upstream = Upstream::start();
    let mut cluster = started(fault, &upstream).await;
    let mut sum = Sum::default();
    while sum.rounds < count {
        let some = PER_ORGANIZATION.min(count - sum.rounds);
        let mut organization = Organization::new(&cluster, sum.rounds).await;
        for round in 0..some {
            if fault == Fault::Starting && round % 10 == 0 {
                cluster.launch(&[]);
            }
            organization.round(&mut cluster, fault, &mut sum).await;
            sum.rounds += 1;
            if fault == Fault::Rollout && sum.rounds == count.div_ceil(2) {
                // The new version comes while calls are made; the two old ones go on as they are.
                cluster.add_with(&[("TAPPASS_DATABASE__MIGRATE", "true")]).await;
            }
            if fault == Fault::Starting && round % 10 == 9 {
                let fourth = cluster.nodes.pop().unwrap();
                fourth.server.stop(rustix::process::Signal::TERM).await;
            }
        }
        organization.proves(&cluster);
    }
    sum.decision_p99_us = decision_p99(&cluster).await;
    cluster.stop().await;
    cluster.assert_verifies();
    sum
}

async fn started(fault: Fault, upstream: &Upstream) -> Cluster {
    let builder = Cluster::builder(upstream);
    match fault {
        Fault::Deaf => builder.env("TAPPASS_DATABASE__NOTIFY", "false").start(3).await,
        Fault::Rollout => {
            let url = Postgres::shared().await.database().await;
            let output = tappass(&["migrate", "--to", "3"], &[("DATABASE_URL", &url)]);
            assert!(output.status.success(), "{}", said(&output));
            builder.env("TAPPASS_DATABASE__MIGRATE", "false").start_on(&url, 2).await
        }
        Fault::None | Fault::Paused | Fault::Starting => builder.start(3).await,
    }
}

/// An organization with an agent and a policy that changes twice a round.
struct Organization {
    id: String,
    agent: Agent,
    policy: String,
    versions: u64,
    wires: Vec<(usize, Wire)>,
}

impl Organization {
    async fn new(cluster: &Cluster, number: usize) -> Self {
        let name = format!("rounds from {number}");
        let made = cluster.admin(0, "POST", "/auth/orgs", json!({"name": name})).await.expect(200).json();
        let id = made["org_id"].as_str().unwrap().to_owned();
        let overrides = json!({"rate_limit": {"max_calls": 10_000_000, "window_seconds": 3600}});
        let pipeline = json!({"preset": "starter", "overrides": overrides});
        cluster.admin_in(0, Some(&id), "PUT", "/api/pipeline", pipeline).await.expect(200);
        let agent = cluster.onboard_in(0, Some(&id), "caller").await;
        let rules = json!({"name": "personal data", "rules": [block_pii()]});
        let made = cluster.admin_in(0, Some(&id), "POST", "/api/policies", rules).await;
        let policy = made.json()["policy_id"].as_str().unwrap_or_else(|| panic!("{}", made.text())).to_owned();
        let scope = json!({"scope_type": "org", "scope_id": id});
        let target = format!("/api/policies/{policy}/assignments");
        let assigned = cluster.admin_in(0, Some(&id), "POST", &target, scope).await;
        assert!(matches!(assigned.status, 200 | 201), "{}", assigned.text());
        Self { id, agent, policy, versions: 1, wires: Vec::new() }
    }

    /// Blocks, calls, lifts, calls.
    async fn round(&mut self, cluster: &mut Cluster, fault: Fault, sum: &mut Sum) {
        for blocks in [true, false] {
            let number = sum.rounds * 2 + usize::from(blocks);
            let publisher = number % cluster.ready().await.len();
            let paused = (fault == Fault::Paused).then(|| (publisher + 1) % cluster.nodes.len());
            if let Some(paused) = paused {
                cluster.nodes[paused].server.pause();
            }
            self.publish(cluster, publisher, blocks, sum).await;
            for status in self.burst(cluster, paused).await {
                match (status, blocks) {
                    (403, true) | (200, false) => {}
                    (200, true) => sum.leaks += 1,
                    (403, false) => sum.false_blocks += 1,
                    (other, _) => panic!("a call was answered {other}"),
                }
            }
        }
    }

    async fn publish(&mut self, cluster: &Cluster, node: usize, blocks: bool, sum: &mut Sum) {
        if self.versions > 1 || !blocks {
            let rules = if blocks { json!([block_pii()]) } else { json!([]) };
            let target = format!("/api/policies/{}/versions", self.policy);
            let body = json!({"rules": rules, "change_note": "a round"});
            let drafted = cluster.admin_in(node, Some(&self.id), "POST", &target, body).await;
            assert!(matches!(drafted.status, 200 | 201), "{}", drafted.text());
            self.versions = drafted.json()["version_no"].as_u64().unwrap();
        }
        let target = format!("/api/policies/{}/versions/{}/publish", self.policy, self.versions);
        let began = Instant::now();
        cluster.admin_in(node, Some(&self.id), "POST", &target, json!({})).await.expect(200);
        sum.publishes.push(began.elapsed());
        self.versions += 1;
    }

    /// Twenty calls at once over all instances that serve; one that is paused gets its share, and goes on once the others
    /// have answered.
    async fn burst(&mut self, cluster: &Cluster, paused: Option<usize>) -> Vec<u16> {
        let serving = cluster.ready_but(paused).await;
        self.wires.retain(|(node, _)| serving.contains(node));
        for number in self.wires.len()..BURST {
            let node = serving[number % serving.len()];
            self.wires.push((node, Wire::open(cluster.nodes[node].address).await));
        }
        let call = self.call();
        let asked = self.wires.drain(..).map(|(node, mut wire)| {
            let call = call.clone();
            let answered = tokio::spawn(async move {
                wire.send(&call).await;
                let status = wire.reply().await.status;
                (node, wire, status)
            });
            (node, answered)
        });
        let (late, prompt): (Vec<_>, Vec<_>) = asked.partition(|(node, _)| Some(*node) == paused);
        let mut statuses = Vec::new();
        for (_, call) in prompt {
            self.answered(call.await.unwrap(), &mut statuses);
        }
        if let Some(paused) = paused {
            cluster.nodes[paused].server.resume();
        }
        for (_, call) in late {
            self.answered(call.await.unwrap(), &mut statuses);
        }
        statuses
    }

    fn answered(&mut self, (node, wire, status): (usize, Wire, u16), statuses: &mut Vec<u16>) {
        self.wires.push((node, wire));
        statuses.push(status);
    }

    fn call(&self) -> Vec<u8> {
        Call::post("/v1/chat/completions").key(&self.agent.key).json(&Gateway::echo(PERSONAL)).bytes()
    }

    /// The export alone shows it: between two changes every decision carries what the first one made.
    fn proves(&self, cluster: &Cluster) {
        let folder = TempDir::new();
        let (export, jwks) = (folder.path().join("export.jsonl"), folder.path().join("jwks.json"));
        let output = cluster.command(&["audit", "export", "--org", &self.id, "--out", export.to_str().unwrap()]);
        assert!(output.status.success(), "{}", said(&output));
        std::fs::copy(cluster.jwks(), &jwks).unwrap();
        let arguments = ["audit", "verify", "--export", export.to_str().unwrap(), "--jwks", jwks.to_str().unwrap()];
        let output = tappass(&arguments, &[]);
        assert!(output.status.success(), "the export does not verify: {}", said(&output));
    }
}

/// The 99th percentile of the decision's own time over all instances, as the upper end of its bucket.
async fn decision_p99(cluster: &Cluster) -> u64 {
    let mut buckets: BTreeMap<u64, u64> = BTreeMap::new();
    let mut total = 0;
    for node in 0..cluster.nodes.len() {
        let text = cluster.admin(node, "GET", "/metrics", Value::Null).await.expect(200).text();
        for line in text.lines().filter(|line| line.contains("decision_seconds_bucket")) {
            let Some((_, rest)) = line.split_once("le=\"") else { continue };
            let Some((bound, count)) = rest.split_once("\"}") else { continue };
            let count: u64 = count.trim().parse().unwrap();
            match bound.parse::<f64>() {
                #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a bucket's bound in µs")]
                Ok(seconds) if seconds.is_finite() => *buckets.entry((seconds * 1e6) as u64).or_default() += count,
                _ => total += count,
            }
        }
    }
    buckets.iter().find(|(_, count)| **count * 100 >= total * 99).map_or(0, |(bound, _)| *bound)
}

/// Prints a run and keeps it beside the others.
fn report(fault: Fault, sum: &Sum) {
    let publish_p50_ms = sum.publish_p50_ms();
    println!(
        "rounds {} · fault {} · leaks {} · false blocks {} · publish p50 {publish_p50_ms:.1} ms · decision p99 {} µs",
        sum.rounds,
        fault.name(),
        sum.leaks,
        sum.false_blocks,
        sum.decision_p99_us
    );
    if std::env::var_os("TAPPASS_ROUNDS").is_some() {
        keep(fault, sum, publish_p50_ms);
    }
    assert_eq!((sum.leaks, sum.false_blocks), (0, 0), "in {} rounds", sum.rounds);
}

/// `rounds`, `leaks`, `false_blocks` and the worst times over all faults, and each fault's own.
fn keep(fault: Fault, sum: &Sum, publish_p50_ms: f64) {
    let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/figures/rounds.json");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    let lock = std::fs::File::create(file.with_extension("lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let before = std::fs::read(&file).ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let mut faults = before.map_or_else(|| json!({}), |before| before["faults"].clone());
    faults[fault.name()] = json!({
        "rounds": sum.rounds, "leaks": sum.leaks, "false_blocks": sum.false_blocks,
        "publish_p50_ms": publish_p50_ms, "decision_p99_us": sum.decision_p99_us,
    });
    let sum_of =
        |name: &str| -> u64 { faults.as_object().unwrap().values().map(|fault| fault[name].as_u64().unwrap()).sum() };
    let whole = json!({
        "rounds": sum_of("rounds"),
        "leaks": sum_of("leaks"),
        "false_blocks": sum_of("false_blocks"),
        "publish_p50_ms": faults["none"]["publish_p50_ms"],
        "decision_p99_us": faults["none"]["decision_p99_us"],
        "faults": faults,
    });
    std::fs::write(&file, format!("{whole:#}\n")).unwrap();
}
