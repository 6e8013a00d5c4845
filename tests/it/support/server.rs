//! A real server as a child of a supervising shell, so that it ends however the test ends.
//!
//! Owns the server's folder, its processes and the shell between them and the test. The shell's standard input is a pipe
//! that only the test process holds: when it closes, by a drop, an exit or `kill -9`, the shell kills the server and
//! removes the folder. Never knows which server it runs. Fails by panicking with the server's own log. It needs `/proc`,
//! so Linux.

use std::{
    ffi::OsStr,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// Longer than any start or stop takes on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

/// Reads one word a line; the server is its child, so that no other process can get the server's number meanwhile.
///
/// At the end everything dies by SIGKILL, stopped first so that nothing forks meanwhile. That is immediate and works on a
/// paused server too; what `PostgreSQL` then leaves behind outside its folder is one shared memory segment.
const SUPERVISOR: &str = r#"
trap '' HUP INT TERM PIPE
folder=$1
shift
server=
while read -r word; do
    case $word in
    start)
        "$@" </dev/null >>"$folder/log" 2>&1 &
        server=$!
        echo "$server"
        ;;
    reap)
        wait "$server"
        echo "$?"
        server=
        ;;
    esac
done
if [ -n "$server" ]; then
    kill -STOP "$server"
    for stat in /proc/[0-9]*/stat; do
        if read -r pid name state parent rest <"$stat" && [ "$parent" = "$server" ]; then
            kill -KILL "$pid"
        fi
    done
    kill -KILL "$server"
    wait "$server"
fi
segment=$(sed -n '7s/.* //p' "$folder/data/postmaster.pid")
[ -z "$segment" ] || ipcrm -m "$segment"
for attempt in 1 2 3 4 5; do
    rm -rf "$folder" && break
    sleep 0.2
done
"#;

/// A server that is stopped, killed, paused and started again on the same folder. It is gone when dropped.
pub struct Server {
    folder: PathBuf,
    state: Mutex<State>,
}

struct State {
    shell: Child,
    words: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    running: Option<Pid>,
    /// How its last run ended, as a shell tells it: 128 and more is a signal.
    ended: Option<i32>,
}

impl Server {
    /// Takes over a folder and starts nothing yet. `command` runs the server in the foreground.
    pub fn supervise<S: AsRef<OsStr>>(folder: PathBuf, command: &[S]) -> Self {
        let mut shell = Command::new("sh");
        shell.args(["-c", SUPERVISOR, "supervisor"]).arg(&folder).args(command).current_dir(&folder);
        // A group of its own: what interrupts the test must reach the server through the pipe alone.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut shell = shell.spawn().expect("`sh` starts");
        let words = shell.stdin.take();
        let answers = BufReader::new(shell.stdout.take().expect("a pipe"));
        Self { folder, state: Mutex::new(State { shell, words, answers, running: None, ended: None }) }
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Everything that the server has printed since the first start.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked in here")
    }

    /// The server's first process, whose children are the rest of it.
    pub fn pid(&self) -> Option<Pid> {
        self.state().running
    }

    pub fn is_alive(&self) -> bool {
        self.pid().is_some_and(is_alive)
    }

    pub fn launch(&self) -> Pid {
        let mut state = self.state();
        assert!(state.running.is_none(), "the server runs already");
        let pid = Pid::from_raw(state.ask("start")).expect("the number of a process");
        state.running = Some(pid);
        pid
    }

    /// Asks until the server is ready. A server that ended instead is an `Err` with its log.
    pub async fn ready(&self, mut ask: impl FnMut() -> bool) -> Result<(), String> {
        let end = poll(|| (ask().then_some(true)).or_else(|| (!self.is_alive()).then_some(false))).await;
        match end {
            Some(true) => Ok(()),
            Some(false) => {
                self.reap();
                Err(self.log())
            }
            None => panic!("the server was not ready after {PATIENCE:?}:\n{}", self.log()),
        }
    }

    /// Stops every process of the server where it stands. Its sockets stay open and answer nothing.
    pub fn pause(&self) {
        if let Some(pid) = self.pid() {
            // The first process first: then nothing is born meanwhile.
            signal(pid, Signal::STOP);
            signal_all(&children(pid), Signal::STOP);
        }
    }

    pub fn resume(&self) {
        if let Some(pid) = self.pid() {
            signal_all(&children(pid), Signal::CONT);
            signal(pid, Signal::CONT);
        }
    }

    /// Ends every process at once, as a power cut would.
    pub async fn kill(&self) {
        let Some(pid) = self.pid() else { return };
        signal(pid, Signal::STOP);
        let mut all = children(pid);
        all.push(pid);
        signal_all(&all, Signal::KILL);
        self.wait_for(&all).await;
    }

    /// Asks the server to end, and waits until it has.
    pub async fn stop(&self, how: Signal) {
        let Some(pid) = self.pid() else { return };
        self.resume();
        signal(pid, how);
        self.wait_for(&[pid]).await;
    }

    async fn wait_for(&self, all: &[Pid]) {
        let ended = poll(|| all.iter().all(|pid| !is_alive(*pid)).then_some(())).await;
        assert!(ended.is_some(), "the server did not end within {PATIENCE:?}:\n{}", self.log());
        self.reap();
    }

    /// A dead child keeps its number until then, and `PostgreSQL` takes it for a running server.
    fn reap(&self) {
        let mut state = self.state();
        if state.running.take().is_some() {
            state.ended = Some(state.ask("reap"));
        }
    }

    /// The exit code of the run that ended last, 128 and more for a signal.
    pub fn exit_code(&self) -> Option<i32> {
        self.state().ended
    }
}

impl State {
    /// Says a word to the supervisor, which answers with a number.
    fn ask(&mut self, word: &str) -> i32 {
        let words = self.words.as_mut().expect("open until the drop");
        writeln!(words, "{word}").expect("the supervisor lives");
        let mut line = String::new();
        self.answers.read_line(&mut line).expect("the supervisor answers");
        line.trim().parse().expect("the supervisor answers with a number")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let state = self.state.get_mut().expect("no test panicked in here");
        state.words = None;
        // After this nothing of the server is left, not even its folder.
        state.shell.wait().expect("the supervisor ends");
    }
}

/// A folder of its own for a server to own.
pub fn new_folder(name: &str) -> PathBuf {
    let mut random = [0_u8; 6];
    getrandom::fill(&mut random).expect("the system has chance to give");
    let path = std::env::temp_dir().join(format!("tappass-{name}-{}", hex::encode(random)));
    fs::create_dir(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    path
}

/// A port below those that the kernel gives to outgoing connections, so that it is still free after a stop.
pub fn free_port() -> u16 {
    for _ in 0..1000 {
        let mut random = [0_u8; 2];
        getrandom::fill(&mut random).expect("the system has chance to give");
        let port = 10_000 + u16::from_ne_bytes(random) % 22_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("1000 ports were asked for and none is free");
}

/// Runs a helper to its end and hands over what it printed; a failure panics with both outputs.
pub fn run(command: &mut Command) -> String {
    let shown = format!("{command:?}");
    let output = command.stdin(Stdio::null()).output().unwrap_or_else(|error| panic!("{shown}: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    assert!(output.status.success(), "{shown}: {}\n{}{}", output.status, text(&output.stdout), text(&output.stderr));
    text(&output.stdout)
}

/// Runs what takes a while and cannot be awaited without holding up the rest of the test.
pub async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

/// Asks again and again. For what can only be asked, such as whether a process is still there.
async fn poll<T>(mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let mut tick = tokio::time::interval(Duration::from_millis(3));
    let asking = async {
        loop {
            tick.tick().await;
            if let Some(value) = ask() {
                return value;
            }
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.ok()
}

/// State and parent of a process. The name before them is in brackets and may contain anything.
fn stat(pid: Pid) -> Option<(char, i32)> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    let mut fields = rest.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// Whether a process has not ended; one that only waits to be reaped has.
fn is_alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

fn children(parent: Pid) -> Vec<Pid> {
    let all = fs::read_dir("/proc").expect("`/proc` is mounted").filter_map(Result::ok);
    let pids = all.filter_map(|entry| Pid::from_raw(entry.file_name().to_str()?.parse().ok()?));
    pids.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent.as_raw_nonzero().get())).collect()
}

fn signal_all(pids: &[Pid], how: Signal) {
    for pid in pids {
        signal(*pid, how);
    }
}

/// A process that is gone already has nothing left to be told.
fn signal(pid: Pid, how: Signal) {
    kill_process(pid, how).ok();
}
