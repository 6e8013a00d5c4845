//! Real Redis servers, each its test's own: one is up in a few hundredths of a second.
//!
//! Owns their ports, passwords and certificates. Never keeps data over a restart, and never touches a server that it did
//! not start. Includes nothing but its neighbour `postgres.rs`, for the supervisor in it. Fails by panicking: without
//! the binary with what to install, else with the server's log.

use std::{
    ffi::OsString,
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal};

use super::postgres::server::{Server, aside, free_port, new_folder, run};

const MISSING: &str = "redis-server is not installed: `make servers` installs it, or `apt-get install redis-server`";

/// The default of `openssl` makes every certificate an authority, which no client accepts as a server's.
const CERTIFICATES: &str = "
[req]
distinguished_name = name
prompt = no
[name]
CN = tappass test
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign
[server]
basicConstraints = critical, CA:FALSE
subjectAltName = IP:127.0.0.1, DNS:localhost
extendedKeyUsage = serverAuth
";

/// How a server is to be started.
#[derive(Clone, Default)]
pub struct Builder {
    password: Option<String>,
    tls: bool,
}

impl Builder {
    pub fn password(mut self, password: &str) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Speaks TLS alone, with a certificate of an authority that nobody else knows: see [`Redis::authority`].
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    pub async fn start(self) -> Redis {
        let mut refused = String::new();
        for _ in 0..3 {
            let (builder, port) = (self.clone(), free_port());
            let redis = aside(move || builder.prepare(port)).await;
            match redis.launch().await {
                Ok(()) => return redis,
                Err(log) => refused = log,
            }
            // Another process may have taken the port between the question and the start.
            if !refused.contains("Could not create server TCP listening socket") {
                break;
            }
        }
        panic!("Redis ended instead of starting:\n{refused}");
    }

    fn prepare(self, port: u16) -> Redis {
        let found = Command::new("redis-server").arg("--version").stdout(Stdio::null()).status();
        assert!(found.is_ok(), "{MISSING}");
        let folder = new_folder("redis");
        let data = folder.join("data");
        fs::create_dir(&data).expect("the folder is ours");
        let mut command: Vec<OsString> = ["redis-server", "--bind", "127.0.0.1", "--save", ""].map(Into::into).to_vec();
        command.extend(["--dir".into(), data.into()]);
        let number = port.to_string();
        if self.tls {
            command.extend(["--port", "0", "--tls-port", &number, "--tls-auth-clients", "no"].map(Into::into));
            make_certificates(&folder);
            for (option, file) in [("cert-file", "server.pem"), ("key-file", "server.key"), ("ca-cert-file", "ca.pem")]
            {
                command.extend([format!("--tls-{option}").into(), folder.join(file).into()]);
            }
        } else {
            command.extend(["--port", &number].map(Into::into));
        }
        if let Some(password) = &self.password {
            command.extend(["--requirepass", password].map(Into::into));
        }
        Redis { server: Server::supervise(folder, &command), port, how: self }
    }
}

/// A running server. It is gone when dropped, or when the process ends.
pub struct Redis {
    server: Server,
    pub port: u16,
    how: Builder,
}

impl Redis {
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Starts one without a password and without TLS.
    pub async fn start() -> Self {
        Self::builder().start().await
    }

    async fn launch(&self) -> Result<(), String> {
        self.server.launch();
        let (port, tls) = (self.port, self.how.tls);
        self.server.ready(|| answers(port, tls)).await
    }

    /// The server's address, with the password if there is one.
    pub fn url(&self) -> String {
        let scheme = if self.how.tls { "rediss" } else { "redis" };
        let password = self.how.password.as_ref().map_or_else(String::new, |password| format!(":{password}@"));
        format!("{scheme}://{password}127.0.0.1:{}", self.port)
    }

    /// The certificate that a client has to trust, if the server speaks TLS.
    pub fn authority(&self) -> Option<PathBuf> {
        self.how.tls.then(|| self.server.folder().join("ca.pem"))
    }

    /// Runs one command, e.g. `["SET", "name", "value"]`, and hands over the answer as text.
    pub async fn command(&self, words: &[&str]) -> String {
        let mut command = Command::new("redis-cli");
        command.args(["-e", "-p", &self.port.to_string()]);
        if let Some(password) = &self.how.password {
            command.args(["--no-auth-warning", "-a", password]);
        }
        if let Some(authority) = self.authority() {
            command.args(["--tls", "--cacert"]).arg(authority);
        }
        command.args(words);
        aside(move || run(&mut command)).await
    }

    /// Everything that the server has logged.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// Where its certificates are.
    pub fn folder(&self) -> &Path {
        self.server.folder()
    }

    pub fn pid(&self) -> Option<Pid> {
        self.server.pid()
    }

    /// Stops it where it stands: connections stay open, new ones are taken by the kernel, none is answered.
    pub fn pause(&self) {
        self.server.pause();
    }

    pub fn resume(&self) {
        self.server.resume();
    }

    pub async fn stop(&self) {
        self.server.stop(Signal::TERM).await;
    }

    /// Ends it at once, as a power cut would.
    pub async fn kill(&self) {
        self.server.kill().await;
    }

    /// Starts a stopped or killed server on its port, empty.
    pub async fn start_again(&self) {
        if let Err(log) = self.launch().await {
            panic!("Redis did not start again:\n{log}");
        }
    }
}

/// It listens a little before it serves, which a plain server can be asked; one that wants a password says so.
fn answers(port: u16, tls: bool) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return false };
    let mut answer = [0; 1];
    tls || {
        let asked = stream.set_read_timeout(Some(Duration::from_secs(1))).and_then(|()| stream.write_all(b"PING\r\n"));
        // `+PONG` or `-NOAUTH`.
        asked.and_then(|()| stream.read_exact(&mut answer)).is_ok() && answer != [0]
    }
}

/// An authority and a server's certificate for loopback, both new.
fn make_certificates(folder: &Path) {
    let file = |name: &str| folder.join(name);
    fs::write(file("certificates.cnf"), CERTIFICATES).expect("the folder is ours");
    for name in ["ca", "server"] {
        let mut command = Command::new("openssl");
        command.args(["req", "-x509", "-days", "30", "-nodes", "-newkey", "ec"]);
        command.args(["-pkeyopt", "ec_paramgen_curve:prime256v1", "-config"]).arg(file("certificates.cnf"));
        command.arg("-keyout").arg(file(&format!("{name}.key"))).arg("-out").arg(file(&format!("{name}.pem")));
        if name == "server" {
            command.args(["-subj", "/CN=localhost", "-extensions", "server", "-CA"]).arg(file("ca.pem"));
            command.arg("-CAkey").arg(file("ca.key"));
        } else {
            command.args(["-extensions", "authority"]);
        }
        run(&mut command);
    }
}
