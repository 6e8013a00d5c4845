//! A real Redis for unit tests.
//!
//! Owns the process and its folder; both end with the value. Never touches a server that it did not start.

use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Redis, RedisSettings};
use crate::telemetry::Metrics;

/// A server of its own.
pub(crate) struct Server {
    child: Option<Child>,
    folder: PathBuf,
    /// Where it listens.
    pub(crate) port: u16,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let mut name = [0_u8; 8];
        getrandom::fill(&mut name).unwrap();
        let folder = std::env::temp_dir().join(format!("tappass-redis-{}", hex::encode(name)));
        std::fs::create_dir_all(&folder).unwrap();
        let mut server = Self { child: None, folder, port: 0 };
        loop {
            server.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            // Somebody else may have taken the port meanwhile; then the server ends and another one is tried.
            if server.launch().await {
                return server;
            }
        }
    }

    /// Starts on its port; whether it runs.
    pub(crate) async fn launch(&mut self) -> bool {
        let port = self.port.to_string();
        let arguments = ["--port", &port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
        let mut command = Command::new("redis-server");
        let mut child = command.args(arguments).current_dir(&self.folder).stdout(Stdio::null()).spawn().unwrap();
        let mut runs = false;
        until("redis-server to listen", || {
            runs = std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok();
            child.try_wait().unwrap().is_some() || runs
        })
        .await;
        runs = runs && child.try_wait().unwrap().is_none();
        self.child = runs.then_some(child);
        runs
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().unwrap()), signal).unwrap();
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
        drop(std::fs::remove_dir_all(&self.folder));
    }
}

/// A client with the defaults; a busy machine gets a longer time limit.
pub(crate) async fn client(url: &str, timeout: Duration) -> Redis {
    let settings = RedisSettings {
        url: url.to_owned().into(),
        ca: None,
        timeout,
        connect_timeout: Duration::from_millis(500),
        prefix: "test".to_owned(),
    };
    let metrics = Arc::new(Metrics::default());
    Redis::start(settings, metrics, &TaskTracker::new(), CancellationToken::new()).await.unwrap()
}

/// Asks again until it is so.
pub(crate) async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let mut tick = tokio::time::interval(Duration::from_millis(5));
    for _ in 0..4_000 {
        tick.tick().await;
        if is_so() {
            return;
        }
    }
    panic!("waited in vain for {what}");
}
