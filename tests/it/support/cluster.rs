//! Several gateways on one Postgres, as an operator runs them.
//!
//! Owns the processes, the folder that they share (the key-encryption key) and one folder each. Every node can be paused,
//! killed and started again on its own port and data. On drop all of it is gone; `verify` asks the product's own command.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    chain::Chain,
    client::{Call, Reply},
    control::{Agent, field},
    gateway::{CANARY, TempDir, said, tappass},
    postgres::{
        Postgres,
        server::{Server, free_port, new_folder},
    },
    upstream::Upstream,
    wait::until,
};

const ADMIN_KEY: &str = "admin-key-of-the-cluster-0001";
const AGENT_KEY: &str = "agent-key-of-the-cluster-0001";

/// How a cluster is to be started.
pub struct Builder {
    variables: Vec<(String, String)>,
    database_url: Option<String>,
    upstream: String,
}

impl Builder {
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.into(), value.into()));
        self
    }

    /// Another way to the database than the direct one.
    pub fn database_url(mut self, url: &str) -> Self {
        self.database_url = Some(url.into());
        self
    }

    /// Starts so many gateways on a database of their own on this process's Postgres.
    pub async fn start(self, count: usize) -> Cluster {
        let url = match &self.database_url {
            Some(url) => url.clone(),
            None => Postgres::shared().await.database().await,
        };
        self.start_on(&url, count).await
    }

    pub async fn start_on(self, url: &str, count: usize) -> Cluster {
        let mut cluster = self.prepare(url);
        for _ in 0..count {
            cluster.add().await;
        }
        cluster.meet().await;
        cluster
    }

    /// A cluster without a gateway yet.
    pub fn prepare(self, url: &str) -> Cluster {
        let nodes = Vec::new();
        let (org_id, agent_id) = (String::new(), String::new());
        Cluster { builder: self, folder: TempDir::new(), url: url.to_owned(), nodes, org_id, agent_id }
    }
}

/// Gateways on one database.
pub struct Cluster {
    builder: Builder,
    folder: TempDir,
    url: String,
    pub nodes: Vec<Node>,
    pub org_id: String,
    pub agent_id: String,
}

/// One of them.
pub struct Node {
    pub server: Server,
    pub address: SocketAddr,
}

impl Cluster {
    pub fn builder(upstream: &Upstream) -> Builder {
        let variables = vec![
            ("OPENAI_API_KEY".into(), CANARY.into()),
            ("TAPPASS_ADMIN_KEY".into(), ADMIN_KEY.into()),
            ("TAPPASS_BOOTSTRAP_AGENT_KEY".into(), AGENT_KEY.into()),
            ("TAPPASS_LIMITS__ADDRESS_FAILURES_PER_MINUTE".into(), "1000000".into()),
            ("TAPPASS_SERVER__THREADS".into(), "2".into()),
            ("TAPPASS_LOG__ACCESS".into(), "false".into()),
            // What a provider is asked is what a test says.
            ("TAPPASS_JOBS__VALIDATE_IN_USE_SECONDS".into(), "0".into()),
            ("TAPPASS_JOBS__VALIDATE_ALL_SECONDS".into(), "0".into()),
        ];
        Builder { variables, database_url: None, upstream: upstream.base_url() }
    }

    pub async fn start(upstream: &Upstream, count: usize) -> Self {
        Self::builder(upstream).start(count).await
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// One more gateway; comes back when it is ready.
    pub async fn add(&mut self) -> usize {
        self.add_with(&[]).await
    }

    /// One more, with these variables besides.
    pub async fn add_with(&mut self, variables: &[(&str, &str)]) -> usize {
        let number = self.launch(variables);
        self.nodes[number].ready().await;
        number
    }

    /// One more, which may take its time.
    pub fn launch(&mut self, variables: &[(&str, &str)]) -> usize {
        let folder = new_folder("gateway");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let mut command: Vec<String> = vec!["env".into(), "-i".into()];
        let mut set = |name: &str, value: &str| command.push(format!("{name}={value}"));
        set("DATABASE_URL", &self.url);
        set("TAPPASS_DATA__DIR", &folder.join("data").display().to_string());
        set("TAPPASS_VAULT__KEK_FILE", &self.kek().display().to_string());
        set("TAPPASS_PROVIDERS__OPENAI__BASE_URL", &self.builder.upstream);
        set("PORT", &address.port().to_string());
        for (name, value) in &self.builder.variables {
            set(name, value);
        }
        for (name, value) in variables {
            set(name, value);
        }
        command.extend([env!("CARGO_BIN_EXE_tappass").into(), "serve".into()]);
        let node = Node { server: Server::supervise(folder, &command), address };
        node.server.launch();
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn kek(&self) -> PathBuf {
        self.folder.path().join("kek")
    }

    /// The gateways that serve now.
    pub async fn ready(&self) -> Vec<usize> {
        self.ready_but(None).await
    }

    /// The same, where one of them is paused and counts as serving.
    pub async fn ready_but(&self, paused: Option<usize>) -> Vec<usize> {
        let mut serving = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            if Some(number) == paused || node.is_ready().await {
                serving.push(number);
            }
        }
        serving
    }

    /// The public keys, as the first gateway keeps them.
    pub fn jwks(&self) -> PathBuf {
        self.nodes[0].server.folder().join("data/anchors/jwks.json")
    }

    /// Learns who there is, and lifts the preset's limit.
    pub async fn meet(&mut self) {
        let orgs = self.admin(0, "GET", "/auth/orgs", Value::Null).await.expect(200).json();
        self.org_id = field(&orgs, &["/data/0/org_id"]);
        let agents = self.admin(0, "GET", "/api/agents", Value::Null).await.expect(200).json();
        self.agent_id = field(&agents, &["/data/0/agent_id", "/data/0/agent_uuid", "/data/0/id"]);
        let overrides = json!({"rate_limit": {"max_calls": 10_000_000, "window_seconds": 3600}});
        self.admin(0, "PUT", "/api/pipeline", json!({"preset": "starter", "overrides": overrides})).await.expect(200);
    }

    #[expect(clippy::unused_self, reason = "the same words as for a single gateway")]
    pub fn chat_call(&self, body: &Value) -> Call {
        Call::post("/v1/chat/completions").key(AGENT_KEY).json(body)
    }

    /// A chat call at one gateway.
    pub async fn chat(&self, node: usize, body: &Value) -> Reply {
        self.chat_call(body).send(self.nodes[node].address).await
    }

    /// A control call at one gateway. `Value::Null` sends no body.
    pub async fn admin(&self, node: usize, method: &str, target: &str, body: Value) -> Reply {
        self.admin_in(node, None, method, target, body).await
    }

    pub async fn admin_in(&self, node: usize, org: Option<&str>, method: &str, target: &str, body: Value) -> Reply {
        let mut call = Call::new(method, target).key(ADMIN_KEY);
        if let Some(org) = org {
            call = call.header("x-org-id", org);
        }
        let call = if body.is_null() { call } else { call.json(&body) };
        call.send(self.nodes[node].address).await
    }

    pub async fn onboard(&self, node: usize, slug: &str) -> Agent {
        self.onboard_in(node, None, slug).await
    }

    pub async fn onboard_in(&self, node: usize, org: Option<&str>, slug: &str) -> Agent {
        let body = json!({"agent_id": slug, "owner_email": "owner@example.com", "description": "a test's agent",
            "framework": "none"});
        let answer = self.admin_in(node, org, "POST", "/api/agents/onboard", body).await.expect(200).json();
        Agent { id: field(&answer, &["/id", "/agent_uuid"]), key: field(&answer, &["/api_key/api_key"]) }
    }

    /// A policy that is published and assigned nowhere.
    pub async fn policy(&self, node: usize, name: &str, rules: Value) -> String {
        let made = self.admin(node, "POST", "/api/policies", json!({"name": name, "rules": rules})).await;
        assert!(matches!(made.status, 200 | 201), "{}", made.text());
        let policy = field(&made.json(), &["/policy_id"]);
        let target = format!("/api/policies/{policy}/versions/1/publish");
        self.admin(node, "POST", &target, json!({})).await.expect(200);
        policy
    }

    /// Puts a policy in force for the organization; answers the assignment and the receipt's body.
    pub async fn assign(&self, node: usize, policy: &str) -> (String, Value) {
        let body = json!({"scope_type": "org", "scope_id": self.org_id});
        let made = self.admin(node, "POST", &format!("/api/policies/{policy}/assignments"), body).await;
        assert!(matches!(made.status, 200 | 201), "{}", made.text());
        let body = made.json();
        (field(&body, &["/id", "/assignment_id"]), body)
    }

    /// Takes an assignment away.
    pub async fn lift(&self, node: usize, assignment: &str) {
        let target = format!("/api/policies/assignments/{assignment}");
        self.admin(node, "DELETE", &target, Value::Null).await.expect(200);
    }

    fn variables(&self) -> Vec<(&str, &str)> {
        vec![("DATABASE_URL", &self.url)]
    }

    /// Runs one of the product's commands on the cluster's database.
    pub fn command(&self, arguments: &[&str]) -> std::process::Output {
        tappass(arguments, &self.variables())
    }

    /// The record as the export tells it.
    pub fn chain(&self) -> Chain {
        Chain::parse(&self.export())
    }

    pub fn export(&self) -> String {
        let folder = TempDir::new();
        let file = folder.path().join("export.jsonl");
        let output = self.command(&["audit", "export", "--org", &self.org_id, "--out", file.to_str().unwrap()]);
        assert!(output.status.success(), "the export failed: {}", said(&output));
        std::fs::read_to_string(&file).unwrap()
    }

    /// Waits until every admission has been closed.
    pub async fn settled(&self) -> Chain {
        until("every admission to be closed", async || {
            let chain = self.chain();
            chain.open().is_empty().then_some(chain)
        })
        .await
    }

    /// Waits until `audit verify` is content: what an instance left unwritten has to be told by recovery.
    pub async fn verifies(&self) {
        until("the record to verify", async || self.command(&["audit", "verify"]).status.success().then_some(())).await;
    }

    /// `audit verify` is content with every chain.
    #[track_caller]
    pub fn assert_verifies(&self) {
        let output = self.command(&["audit", "verify"]);
        assert!(output.status.success(), "the record does not verify: {}", said(&output));
    }

    pub async fn budget(&self, limits: Value) {
        self.admin(0, "PUT", "/api/budget", limits).await.expect(200);
    }

    /// A number of a gateway's metrics; absent is 0.
    pub async fn metric(&self, node: usize, name: &str) -> u64 {
        let text = self.admin(node, "GET", "/metrics", Value::Null).await.expect(200).text();
        let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok());
        found.unwrap_or(0)
    }

    /// The same, over these gateways.
    pub async fn sum(&self, nodes: impl IntoIterator<Item = usize>, name: &str) -> u64 {
        let mut sum = 0;
        for node in nodes {
            sum += self.metric(node, name).await;
        }
        sum
    }

    /// Stops all of them as their platform would.
    pub async fn stop(&self) {
        for node in &self.nodes {
            if node.server.is_alive() {
                node.server.stop(Signal::TERM).await;
            }
        }
    }

    /// What every gateway said.
    pub fn logs(&self) -> String {
        let logs = self.nodes.iter().enumerate();
        logs.map(|(number, node)| format!("--- gateway {number} ---\n{}", node.server.log())).collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

impl Node {
    /// Whether new requests should come here.
    pub async fn is_ready(&self) -> bool {
        let asked = tokio::net::TcpStream::connect(self.address).await;
        asked.is_ok() && Call::get("/health/ready").send(self.address).await.status == 200
    }

    pub async fn ready(&self) {
        until("a gateway to be ready", async || {
            assert!(self.server.is_alive(), "the gateway ended:\n{}", self.server.log());
            self.is_ready().await.then_some(())
        })
        .await;
    }

    /// Starts it again on its own port and data.
    pub async fn start_again(&self) {
        self.server.launch();
        self.ready().await;
    }
}
