//! The product as its users meet it: a child process with a data directory, a port and keys.
//!
//! Owns temporary directories, processes and their captured output; both are gone when a test ends. Never shares
//! anything between two gateways. On drop the process is stopped and, unless it was killed, its chain must verify.

use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::mpsc,
    time::{Duration, SystemTime},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::{
    chain::Chain,
    client::{Call, Reply, Wire},
    upstream::Upstream,
    wait::until,
};

/// The provider key of every gateway here. Whoever finds it where it does not belong has found a leak.
pub const CANARY: &str = "sk-proj-CANARYq7Zt3Vw9Xk2Lm5Np8Rs4Tu6Yb1Dc0Ef7Gh";

const BINARY: &str = env!("CARGO_BIN_EXE_tappass");

/// A folder of its own, removed on drop.
pub struct TempDir(PathBuf);

impl TempDir {
    pub fn new() -> Self {
        let mut name = [0_u8; 8];
        getrandom::fill(&mut name).unwrap();
        let path = std::env::temp_dir().join(format!("tappass-it-{}", hex::encode(name)));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What is left of it is the operating system's to clean.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Runs the binary with only these variables set; standard input is empty.
pub fn tappass<S: AsRef<std::ffi::OsStr>>(arguments: &[S], variables: &[(&str, &str)]) -> Output {
    let home = TempDir::new();
    let mut command = Command::new(BINARY);
    command.env_clear().env("HOME", home.path()).current_dir(home.path()).args(arguments).stdin(Stdio::null());
    command.envs(variables.iter().copied()).output().unwrap()
}

/// Both outputs of a command as one text.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// How a gateway is to be started.
pub struct Builder {
    upstream: String,
    variables: Vec<(String, String)>,
    arguments: Vec<String>,
    config: String,
    keep_limits: bool,
}

impl Builder {
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.into(), value.into()));
        self
    }

    pub fn arg(mut self, argument: &str) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Text of the file that `TAPPASS_CONFIG` names.
    pub fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// Leaves the preset's rate limit as it is (100 calls an hour).
    pub fn keep_limits(mut self) -> Self {
        self.keep_limits = true;
        self
    }

    pub async fn start(self) -> Gateway {
        let folder = TempDir::new();
        let mut gateway = Gateway {
            builder: self,
            folder,
            child: None,
            killed: false,
            started: 0,
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            agent_key: String::new(),
            admin_key: String::new(),
            org_id: String::new(),
            agent_id: String::new(),
        };
        gateway.launch().await.unwrap();
        if !gateway.builder.keep_limits {
            gateway.raise_limits(&[]).await;
        }
        gateway
    }
}

/// A running gateway.
pub struct Gateway {
    builder: Builder,
    folder: TempDir,
    child: Option<Child>,
    killed: bool,
    started: u32,
    pub address: SocketAddr,
    pub agent_key: String,
    pub admin_key: String,
    pub org_id: String,
    pub agent_id: String,
}

impl Gateway {
    /// How every gateway starts unless a test says otherwise: `dev`, any port, the canary as provider key.
    pub fn builder(upstream: &Upstream) -> Builder {
        Builder {
            upstream: upstream.base_url(),
            // Many refusals from one address are what tests are made of; two threads, since many gateways run at once.
            variables: vec![
                ("OPENAI_API_KEY".into(), CANARY.into()),
                ("TAPPASS_LIMITS__ADDRESS_FAILURES_PER_MINUTE".into(), "1000000".into()),
                ("TAPPASS_SERVER__THREADS".into(), "2".into()),
                // What a provider is asked is what a test says.
                ("TAPPASS_JOBS__VALIDATE_IN_USE_SECONDS".into(), "0".into()),
                ("TAPPASS_JOBS__VALIDATE_ALL_SECONDS".into(), "0".into()),
            ],
            arguments: Vec::new(),
            config: String::new(),
            keep_limits: false,
        }
    }

    pub async fn start(upstream: &Upstream) -> Self {
        Self::builder(upstream).start().await
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub fn database(&self) -> PathBuf {
        self.data_dir().join("tappass.db")
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Starts the process; `Err` is what it said when it ended instead.
    async fn launch(&mut self) -> Result<(), String> {
        self.started += 1;
        let config = self.folder.path().join("tappass.toml");
        fs::write(&config, &self.builder.config).unwrap();
        let written_before = self.dev_json_time();
        let output = |name: &str| File::create(self.folder.path().join(format!("{name}-{}", self.started))).unwrap();
        let mut command = Command::new(BINARY);
        command.env_clear().env("HOME", self.folder.path()).current_dir(self.folder.path());
        command.env("TAPPASS_CONFIG", &config).env("RUST_BACKTRACE", "1");
        command.envs(self.builder.variables.iter().map(|(name, value)| (name, value)));
        command.arg("dev").arg("--data-dir").arg(self.data_dir()).args(["--port", "0", "--upstream"]);
        command.arg(&self.builder.upstream).args(&self.builder.arguments);
        command.stdin(Stdio::null()).stdout(output("stdout")).stderr(output("stderr"));
        let mut child = command.spawn().unwrap();
        let dev = until("dev.json", async || {
            if let Some(status) = child.try_wait().unwrap() {
                return Some(Err(format!("the gateway ended with {status}:\n{}", self.output())));
            }
            if self.dev_json_time() == written_before {
                return None;
            }
            serde_json::from_slice::<Value>(&fs::read(self.data_dir().join("dev.json")).ok()?).ok().map(Ok)
        })
        .await?;
        self.child = Some(child);
        self.killed = false;
        let text = |name: &str| dev[name].as_str().unwrap_or_else(|| panic!("dev.json has `{name}`: {dev}")).to_owned();
        let base_url = text("base_url");
        let authority = base_url.trim_start_matches("http://").split('/').next().unwrap();
        self.address = authority.replace("localhost", "127.0.0.1").parse().unwrap();
        (self.agent_key, self.admin_key) = (text("agent_key"), text("admin_key"));
        (self.org_id, self.agent_id) = (text("org_id"), text("agent_id"));
        Ok(())
    }

    fn dev_json_time(&self) -> Option<SystemTime> {
        fs::metadata(self.data_dir().join("dev.json")).and_then(|file| file.modified()).ok()
    }

    pub fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Everything that every run of this gateway has printed.
    pub fn output(&self) -> String {
        let mut text = String::new();
        for run in 1..=self.started {
            for name in ["stdout", "stderr"] {
                let bytes = fs::read(self.folder.path().join(format!("{name}-{run}"))).unwrap_or_default();
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        text
    }

    /// A chat call with the agent's key.
    pub fn chat_call(&self, body: &Value) -> Call {
        Call::post("/v1/chat/completions").key(&self.agent_key).json(body)
    }

    pub async fn chat(&self, body: &Value) -> Reply {
        self.chat_call(body).send(self.address).await
    }

    /// A chat call whose answer the test reads itself.
    pub async fn chat_begin(&self, body: &Value) -> Wire {
        self.chat_call(body).begin(self.address).await
    }

    pub async fn get(&self, target: &str) -> Reply {
        Call::get(target).send(self.address).await
    }

    /// A control call with the admin's key. `Value::Null` sends no body.
    pub async fn admin(&self, method: &str, target: &str, body: Value) -> Reply {
        let call = Call::new(method, target).key(&self.admin_key);
        if body.is_null() { call.send(self.address).await } else { call.json(&body).send(self.address).await }
    }

    /// The starter preset with a rate limit that no test meets, and these overrides besides.
    pub async fn raise_limits(&self, overrides: &[(&str, Value)]) {
        let mut all = json!({"rate_limit": {"max_calls": 10_000_000, "window_seconds": 3600}});
        for (step, options) in overrides {
            all[*step] = options.clone();
        }
        self.admin("PUT", "/api/pipeline", json!({"preset": "starter", "overrides": all})).await.expect(200);
    }

    /// Stops the process as its platform would, and demands a clean exit.
    pub fn stop(&mut self) {
        let status = self.terminate();
        assert!(status.success(), "the gateway stopped with {status}:\n{}", self.output());
    }

    /// SIGTERM without waiting.
    pub fn ask_to_stop(&self) {
        kill_process(self.pid(), Signal::TERM).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_child(self.child.as_ref().expect("the gateway runs"))
    }

    /// Waits for the end of the process; a process that does not end is killed and is a failure.
    pub fn wait(&mut self) -> ExitStatus {
        let mut child = self.child.take().expect("the gateway runs");
        let pid = Pid::from_child(&child);
        let (ended, end) = mpsc::channel();
        let waiter = std::thread::spawn(move || {
            let status = child.wait().unwrap();
            ended.send(status).ok();
        });
        let status = end.recv_timeout(Duration::from_secs(15));
        if status.is_err() {
            kill_process(pid, Signal::KILL).ok();
        }
        waiter.join().unwrap();
        status.expect("the gateway ends within 15 seconds of SIGTERM")
    }

    fn terminate(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.wait()
    }

    /// Ends the process as a power cut would.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("the gateway runs");
        kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
        child.wait().unwrap();
        self.killed = true;
    }

    /// Starts again on the same data, with the same settings.
    pub async fn restart(&mut self) {
        if self.child.is_some() {
            self.stop();
        }
        self.launch().await.unwrap();
    }

    /// Starts a stopped gateway that may well refuse to; `Err` is what it said.
    pub async fn try_restart(&mut self) -> Result<(), String> {
        assert!(self.child.is_none(), "stopped first");
        self.launch().await
    }

    /// `audit verify` over the data directory: whether it is content, and what it said.
    pub fn verify(&self) -> (bool, String) {
        let output = tappass(&["audit", "verify", "--data-dir", self.data_dir().to_str().unwrap()], &[]);
        (output.status.success(), said(&output))
    }

    #[track_caller]
    pub fn assert_verifies(&self) {
        let (content, said) = self.verify();
        assert!(content, "the chain does not verify: {said}");
    }

    /// `audit export` into a file, also while the gateway runs.
    pub fn export(&self, file: &Path) {
        let data = self.data_dir();
        let (data, file) = (data.to_str().unwrap(), file.to_str().unwrap());
        let arguments = ["audit", "export", "--data-dir", data, "--org", &self.org_id, "--out", file];
        let output = tappass(&arguments, &[]);
        assert!(output.status.success(), "the export failed: {}", said(&output));
    }

    /// The record as the export tells it.
    pub fn chain(&self) -> Chain {
        let folder = TempDir::new();
        let file = folder.path().join("export.jsonl");
        self.export(&file);
        Chain::parse(&fs::read_to_string(&file).unwrap())
    }

    /// Waits until the record contains what `ask` looks for.
    pub async fn chain_until<T>(&self, what: &str, ask: impl Fn(&Chain) -> Option<T>) -> T {
        until(what, async || ask(&self.chain())).await
    }

    /// Waits until every admission has been closed.
    pub async fn settled(&self) -> Chain {
        self.chain_until("every admission to be closed", |chain| chain.open().is_empty().then(|| chain.clone())).await
    }

    /// The newest checkpoint note of the organization, if one was written.
    pub fn checkpoint(&self) -> Option<PathBuf> {
        let folder = self.data_dir().join("anchors").join(&self.org_id);
        let mut notes: Vec<PathBuf> = fs::read_dir(folder).ok()?.map(|file| file.unwrap().path()).collect();
        notes.retain(|path| path.extension().is_some_and(|extension| extension == "note"));
        notes.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
        notes.pop()
    }

    /// Tells the gateway's end apart from a drop that has nothing to verify.
    pub fn forget_chain(&mut self) {
        self.killed = true;
    }

    /// A question to the built-in model, which needs no provider.
    pub fn echo(text: &str) -> Value {
        json!({"model": "tappass/echo", "messages": [{"role": "user", "content": text}]})
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let status = self.child.is_some().then(|| self.terminate());
        if std::thread::panicking() {
            eprintln!("--- output of the gateway ---\n{}", self.output());
            return;
        }
        if let Some(status) = status {
            assert!(status.success(), "the gateway stopped with {status}:\n{}", self.output());
        }
        if !self.killed {
            self.assert_verifies();
        }
    }
}
