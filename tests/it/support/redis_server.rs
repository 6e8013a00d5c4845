//! A real Redis, for tests that pause it, kill it and start it again.
//!
//! Owns the process, its folder and its certificates; all are gone when a test ends. Never writes to disk. Never shares a
//! server between two tests.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::{gateway::TempDir, wait::until};

/// The password of servers that ask for one. Whoever finds it in a log has found a leak.
pub const PASSWORD: &str = "CANARY-redis-7Gh2kQ9w";

/// A Redis of its own.
pub struct Redis {
    folder: TempDir,
    child: Option<Child>,
    port: u16,
    tls: bool,
}

impl Redis {
    pub async fn start() -> Self {
        Self::started(false).await
    }

    /// With TLS under a private CA, and a password.
    pub async fn with_tls() -> Self {
        Self::started(true).await
    }

    async fn started(tls: bool) -> Self {
        let mut redis = Self { folder: TempDir::new(), child: None, port: 0, tls };
        if tls {
            certificates(redis.folder.path());
        }
        loop {
            redis.port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
            // Somebody else may take the port meanwhile; then the server ends, and another port is tried.
            if redis.launch().await {
                return redis;
            }
        }
    }

    /// Starts on its port; whether it runs.
    pub async fn launch(&mut self) -> bool {
        let port = self.port.to_string();
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]).arg("--dir").arg(self.folder.path());
        if self.tls {
            command.args(["--port", "0", "--tls-port", &port, "--tls-auth-clients", "no", "--requirepass", PASSWORD]);
            for (option, file) in [("--tls-cert-file", "server.crt"), ("--tls-key-file", "server.key")] {
                command.arg(option).arg(self.folder.path().join(file));
            }
            command.arg("--tls-ca-cert-file").arg(self.ca());
        } else {
            command.args(["--port", &port]);
        }
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let address = ("127.0.0.1", self.port);
        let connects = until("redis-server to listen", async || {
            if child.try_wait().unwrap().is_some() {
                return Some(false);
            }
            TcpStream::connect(address).is_ok().then_some(true)
        })
        .await;
        let runs = connects && child.try_wait().unwrap().is_none();
        self.child = runs.then_some(child);
        runs
    }

    /// The address, with the password if there is one.
    pub fn url(&self) -> String {
        if self.tls {
            return format!("rediss://:{PASSWORD}@localhost:{}", self.port);
        }
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// The certificate of the private CA.
    pub fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.crt")
    }

    /// Neither answers nor closes, until it goes on.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn go_on(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(self.child.as_ref().expect("redis runs")), signal).unwrap();
    }

    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// The raw answer to a command; a server without TLS only.
    pub fn ask(&self, command: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // The second command makes the server close, which ends the answer.
        stream.write_all(format!("{command}\r\nQUIT\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A private CA and a certificate for `localhost` under it.
fn certificates(folder: &Path) {
    let openssl = |arguments: &str| {
        let output = Command::new("openssl").args(arguments.split(' ')).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {key} -days 2 -subj /CN=private-ca -keyout ca.key -out ca.crt"));
    openssl(&format!("req {key} -subj /CN=localhost -keyout server.key -out server.csr"));
    std::fs::write(folder.join("names"), "subjectAltName=DNS:localhost\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl("x509 -req -in server.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.crt");
}
