//! What a run starts and leaves: processes, ports, folders.
//! Owns every process and folder of the run but PostgreSQL's; ends processes by their own id and only those it started,
//! also on an interrupt. A process that does not become ready, or does not end when told, is an error with the end of its log.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{figures::postgres, http::Endpoint, load, measure::Target, procs::Counted};

/// The provider key that the gateway is given and the mock insists on: a run whose gateway did not swap keys fails.
pub const PROVIDER_KEY: &str = "test-key";
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// What an interrupt has to end and remove.
struct Live {
    pids: Vec<u32>,
    folders: Vec<PathBuf>,
}

static LIVE: Mutex<Live> = Mutex::new(Live { pids: Vec::new(), folders: Vec::new() });

/// Ends and removes everything when this program is told to stop (drops do not run then).
pub fn clean_up_on_signals() -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    std::thread::spawn(move || {
        runtime.block_on(async {
            let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
            let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hang_up)] = kinds.map(signal) else { return };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, _ = hang_up.recv() => {} }
            // The lock is kept until the end: nothing new may start now.
            let live = LIVE.lock().unwrap();
            for pid in &live.pids {
                send(*pid, libc::SIGKILL);
            }
            postgres::end();
            // A killed process may be in the middle of a last write.
            std::thread::sleep(Duration::from_millis(200));
            for folder in &live.folders {
                let _ = fs::remove_dir_all(folder);
            }
            std::process::exit(130);
        });
    });
    Ok(())
}

fn send(pid: u32, signal: i32) {
    // SAFETY: no memory is involved; `pid` is a child of this process that was not yet waited for.
    unsafe { libc::kill(pid as i32, signal) };
}

/// A folder of this run, removed with everything in it.
pub struct Folder(PathBuf);

impl Folder {
    pub fn make_in(parent: &Path) -> Result<Self, String> {
        let path = parent.join(format!("bench-run-{}", std::process::id()));
        fs::create_dir_all(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        LIVE.lock().unwrap().folders.push(path.clone());
        Ok(Folder(path))
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
        LIVE.lock().unwrap().folders.retain(|f| *f != self.0);
    }
}

/// A program of the run that listens on a port of its own; killed when dropped.
pub struct Process {
    name: &'static str,
    pub port: u16,
    child: Child,
    log: PathBuf,
}

impl Process {
    fn start(name: &'static str, port: u16, logs: &Path, command: &mut Command) -> Result<Self, String> {
        let log = logs.join(format!("{name}-{port}.log"));
        let file = fs::File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        let copy = file.try_clone().map_err(|e| e.to_string())?;
        let mut live = LIVE.lock().unwrap();
        let child = command
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .spawn()
            .map_err(|e| format!("{}: {e}", command.get_program().display()))?;
        live.pids.push(child.id());
        Ok(Process { name, port, child, log })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn at(&self, path: &str, key: Option<&str>) -> Endpoint {
        Endpoint::local(self.port, path, key)
    }

    /// To be asked for chat completions.
    pub fn target(&self, name: &'static str, key: &str) -> Target {
        let endpoint = self.at("/v1/chat/completions", Some(key));
        Target { name, endpoint, processes: BTreeSet::from([Counted::Process(self.pid())]) }
    }

    /// Asks until the answer is 200, every millisecond.
    pub fn await_200(&mut self, to: &Endpoint, request: &[u8]) -> Result<(), String> {
        let begin = Instant::now();
        loop {
            let answer = load::ask(to, request).map(|(status, _)| status);
            if matches!(answer, Ok(200)) {
                return Ok(());
            }
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(self.failed(&format!("ended at its start ({status})")));
            }
            if begin.elapsed() > START_LIMIT {
                return Err(self.failed(&format!("no 200 from {} within {START_LIMIT:?}: {answer:?}", to.path)));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    fn ready(mut self) -> Result<Self, String> {
        let health = self.at("/health/ready", None);
        self.await_200(&health, &health.get())?;
        Ok(self)
    }

    /// SIGTERM, and the end within the time that the product promises.
    pub fn stop(mut self) -> Result<(), String> {
        send(self.pid(), libc::SIGTERM);
        let begin = Instant::now();
        let status: ExitStatus = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if begin.elapsed() < START_LIMIT => std::thread::sleep(Duration::from_millis(5)),
                _ => return Err(self.failed(&format!("did not end within {STOP_LIMIT:?} of SIGTERM"))),
            }
        };
        if status.success() { Ok(()) } else { Err(self.failed(&format!("ended with {status} after SIGTERM"))) }
    }

    fn failed(&self, how: &str) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let from = log.lines().count().saturating_sub(20);
        let tail: Vec<&str> = log.lines().skip(from).collect();
        format!("{} {how}; the end of its log:\n{}", self.name, tail.join("\n"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        LIVE.lock().unwrap().pids.retain(|p| *p != self.child.id());
        // Both do nothing where the process was already waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The keys of a development gateway.
#[derive(Clone)]
pub struct Keys {
    pub agent: String,
    pub admin: String,
}

impl Keys {
    pub fn read(data: &Path) -> Result<Self, String> {
        let path = data.join("dev.json");
        let text = fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))?;
        let json: serde_json::Value = serde_json::from_slice(&text).map_err(|e| format!("{}: {e}", path.display()))?;
        let key = |name: &str| {
            json[name].as_str().map(str::to_owned).ok_or_else(|| format!("{}: no `{name}`", path.display()))
        };
        Ok(Keys { agent: key("agent_key")?, admin: key("admin_key")? })
    }
}

/// Where a gateway keeps its data, and what it is told in its environment.
pub struct Place {
    pub name: &'static str,
    pub data: PathBuf,
    pub settings: Vec<(&'static str, String)>,
}

/// A development gateway that serves.
pub struct Gateway {
    pub name: &'static str,
    pub process: Process,
    pub keys: Keys,
}

impl Gateway {
    /// What `besides` uses is part of its price.
    pub fn target(&self, besides: Option<Counted>) -> Target {
        let mut target = self.process.target(self.name, &self.keys.agent);
        target.processes.extend(besides);
        target
    }

    /// A route of the control plane.
    pub fn admin(&self, path: &str) -> Endpoint {
        self.process.at(path, Some(&self.keys.admin))
    }
}

/// The mock provider and the bare proxy in front of it, and how to start gateways beside them.
pub struct Rig<'a> {
    pub mock: Process,
    pub bare: Process,
    binary: &'a Path,
    logs: &'a Path,
}

impl<'a> Rig<'a> {
    pub fn start(binary: &'a Path, logs: &'a Path) -> Result<Self, String> {
        let here = std::env::current_exe().map_err(|e| e.to_string())?;
        let port = free_port()?;
        let upstream = format!("127.0.0.1:{port}");
        let mut command = Command::new(here.with_file_name("mockllm"));
        command.args(["--listen", &upstream, "--require-key", PROVIDER_KEY]);
        let mock = Process::start("mockllm", port, logs, &mut command)?.ready()?;

        let port = free_port()?;
        let threads = std::thread::available_parallelism().map_or(2, usize::from).to_string();
        let mut command = Command::new(here.with_file_name("bareproxy"));
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--upstream", &upstream, "--threads", &threads]);
        let bare = Process::start("bareproxy", port, logs, &mut command)?.ready()?;
        Ok(Rig { mock, bare, binary, logs })
    }

    /// Starts a development gateway and does not wait for it.
    pub fn spawn_gateway(&self, place: &Place) -> Result<Process, String> {
        let port = free_port()?;
        let mut command = Command::new(self.binary);
        // Only what is named here: a setting of the caller's must not change what is measured.
        command.env_clear().env("OPENAI_API_KEY", PROVIDER_KEY);
        command.envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.envs(place.settings.iter().map(|(name, value)| (name, value)));
        command.arg("dev").arg("--data-dir").arg(&place.data).args(["--port", &port.to_string()]);
        command.args(["--upstream", &format!("http://127.0.0.1:{}/v1", self.mock.port)]);
        Process::start(place.name, port, self.logs, &mut command)
    }

    pub fn gateway(&self, place: &Place) -> Result<Gateway, String> {
        let process = self.spawn_gateway(place)?.ready()?;
        let begin = Instant::now();
        // It is written when the gateway is ready, which may be a moment after its first 200.
        let keys = loop {
            match Keys::read(&place.data) {
                Err(_) if begin.elapsed() < START_LIMIT => std::thread::sleep(Duration::from_millis(1)),
                read => break read?,
            }
        };
        Ok(Gateway { name: place.name, process, keys })
    }

    /// The processes that serve a load but are not measured by it, this one among them.
    pub fn processes(&self) -> BTreeSet<Counted> {
        [self.mock.pid(), self.bare.pid(), std::process::id()].map(Counted::Process).into()
    }
}

/// A port that nothing listens on, below those that the system hands to outgoing connections: one of those could
/// take it in between, and a client that keeps asking a port of that range can even meet itself.
fn free_port() -> Result<u16, String> {
    const FIRST: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let outgoing: u32 = range.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(32_768);
    let span = outgoing.checked_sub(FIRST).filter(|s| *s >= 1000).unwrap_or(12_000);
    for _ in 0..span {
        let port = FIRST + (std::process::id().wrapping_mul(61).wrapping_add(NEXT.fetch_add(1, Relaxed))) % span;
        let port = port as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    Err("no free port".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_handed_out_twice() {
        let ports: BTreeSet<u16> = (0..20).filter_map(|_| free_port().ok()).collect();
        assert_eq!(ports.len(), 20);
    }

    #[test]
    fn a_dropped_folder_is_gone() {
        let folder = Folder::make_in(&std::env::temp_dir()).unwrap();
        let path = folder.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        drop(folder);
        assert!(!path.exists());
    }

    #[test]
    fn a_process_that_ignores_being_asked_to_end_is_reported_with_its_log() {
        let folder = Folder::make_in(&std::env::temp_dir().join("bench-stop-test")).unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo spoken; exit 3"]);
        let process = Process::start("talker", 1, folder.path(), &mut command).unwrap();
        let error = process.ready().err().unwrap();
        assert!(error.contains("ended at its start") && error.contains("spoken"), "{error}");
    }
}
