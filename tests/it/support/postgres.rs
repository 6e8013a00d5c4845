//! Real `PostgreSQL` servers, one shared by a process and any number of own ones.
//!
//! Owns the search for the installed binaries, the template that a start copies and the databases that tests ask for.
//! Never touches a server that it did not start. Includes nothing but its neighbour `server.rs`, so that other targets
//! can name it by `#[path]`. Fails by panicking: without the binaries with what to install, else with the server's log.

use std::{
    ffi::OsString,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use rustix::process::{Pid, Signal};

#[path = "server.rs"]
pub mod server;

use server::{Server, aside, free_port, new_folder, run};

const MISSING: &str = "PostgreSQL is not installed: `make servers` installs it, or `apt-get install postgresql`";

/// What every server is started with; a test's own settings come after these and win.
///
/// Everything that the product demands of its database is on by default. Parallel workers share memory through files of
/// the folder, since what lies in `/dev/shm` would outlive a killed server.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", "127.0.0.1"),
    ("max_connections", "200"),
    ("shared_buffers", "32MB"),
    ("dynamic_shared_memory_type", "mmap"),
    ("log_line_prefix", "%m [%p] "),
    ("timezone", "UTC"),
];

/// A running server with its own port, socket and folder. It is gone when dropped, or when the process ends.
pub struct Postgres {
    server: Server,
    pub port: u16,
}

impl Postgres {
    /// The server that all tests of this process share, each with a database of its own. Never stop this one.
    pub async fn shared() -> &'static Self {
        static SHARED: tokio::sync::OnceCell<Postgres> = tokio::sync::OnceCell::const_new();
        SHARED.get_or_init(Self::start).await
    }

    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// Starts with these settings besides, e.g. `[("fsync", "off")]`.
    pub async fn start_with(settings: &[(&str, &str)]) -> Self {
        let settings: Vec<String> =
            SETTINGS.iter().chain(settings).map(|(name, value)| format!("{name}={value}")).collect();
        let mut refused = String::new();
        for _ in 0..3 {
            let (settings, port) = (settings.clone(), free_port());
            let postgres = aside(move || Self::prepare(&settings, port)).await;
            match postgres.launch().await {
                Ok(()) => return postgres,
                Err(log) => refused = log,
            }
            // Another process may have taken the port between the question and the start.
            if !refused.contains("could not bind") {
                break;
            }
        }
        panic!("PostgreSQL ended instead of starting:\n{refused}");
    }

    fn prepare(settings: &[String], port: u16) -> Self {
        let installed = installed();
        let folder = new_folder("pg");
        let data = folder.join("data");
        run(Command::new("cp").args(["-a", "--reflink=auto"]).arg(template(installed)).arg(&data));
        if is_root() {
            run(Command::new("chown").arg("postgres:").arg(&folder));
        }
        let mut command = as_postgres();
        command.push(installed.bin.join("postgres").into());
        command.extend(["-D".into(), data.into(), "-p".into(), port.to_string().into(), "-k".into()]);
        command.push(folder.clone().into());
        for setting in settings {
            command.extend(["-c".into(), setting.into()]);
        }
        Self { server: Server::supervise(folder, &command), port }
    }

    async fn launch(&self) -> Result<(), String> {
        let pid = self.server.launch();
        let note = self.server.folder().join("data/postmaster.pid");
        self.server.ready(|| is_ready(&note, pid)).await
    }

    /// Makes a database that nobody else has, and tells its address.
    pub async fn database(&self) -> String {
        let mut random = [0_u8; 6];
        getrandom::fill(&mut random).expect("the system has chance to give");
        let name = format!("test_{}", hex::encode(random));
        self.psql("postgres", &format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// A database's address over TCP.
    pub fn url(&self, name: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{name}", self.port)
    }

    /// A database's address over the socket in the server's folder.
    pub fn socket_url(&self, name: &str) -> String {
        let folder = self.server.folder().display();
        format!("postgres:///{name}?host={folder}&port={}&user=postgres", self.port)
    }

    /// Runs SQL as the superuser over TCP; rows come back a line each, columns separated by `|`.
    pub async fn psql(&self, database: &str, sql: &str) -> String {
        let mut command = Command::new(installed().bin.join("psql"));
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "postgres"]);
        command.args(["-p", &self.port.to_string(), "-d", database, "-c", sql]);
        aside(move || run(&mut command)).await
    }

    /// Everything that the server has logged.
    pub fn log(&self) -> String {
        self.server.log()
    }

    /// The first process of the server.
    pub fn pid(&self) -> Option<Pid> {
        self.server.pid()
    }

    /// Where its data and its socket are.
    pub fn folder(&self) -> &Path {
        self.server.folder()
    }

    /// Stops all its processes where they stand: connections stay open, new ones are taken by the kernel, none answers.
    pub fn pause(&self) {
        self.server.pause();
    }

    pub fn resume(&self) {
        self.server.resume();
    }

    /// A fast shutdown: what runs is rolled back, connections are ended, everything is written.
    pub async fn stop(&self) {
        self.server.stop(Signal::INT).await;
    }

    /// Ends every process of the server at once, as a power cut would.
    pub async fn kill(&self) {
        self.server.kill().await;
    }

    /// Starts a stopped or killed server on its port and its data.
    pub async fn start_again(&self) {
        if let Err(log) = self.launch().await {
            panic!("PostgreSQL did not start again:\n{log}");
        }
    }
}

/// The file says who wrote it, then how far it is; a killed server's old one names another process.
fn is_ready(note: &Path, pid: Pid) -> bool {
    let text = fs::read_to_string(note).unwrap_or_default();
    let line = |number: usize| text.lines().nth(number).unwrap_or_default().trim();
    line(0) == pid.as_raw_nonzero().to_string() && line(7) == "ready"
}

/// The binaries of this machine.
struct Installed {
    bin: PathBuf,
    version: String,
}

fn installed() -> &'static Installed {
    static INSTALLED: OnceLock<Installed> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let bin = named_folder().or_else(newest_folder).expect(MISSING);
        let version = run(Command::new(bin.join("postgres")).arg("--version"));
        let version = version.split_whitespace().nth(2).expect("a version").to_owned();
        Installed { bin, version }
    })
}

/// `pg_config` may belong to the client library alone, so its folder counts only with a server in it.
fn named_folder() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let folder = PathBuf::from(String::from_utf8(output.stdout).ok()?.trim());
    folder.join("postgres").exists().then_some(folder)
}

fn newest_folder() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?.filter_map(Result::ok).map(|entry| entry.path());
    let number = |path: &Path| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest = versions.filter(|path| path.join("bin/postgres").exists()).max_by_key(|path| number(path));
    Some(newest?.join("bin"))
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The server refuses to run as root, so root hands it to the user that the package made.
fn as_postgres() -> Vec<OsString> {
    let words: &[&str] =
        if is_root() { &["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"] } else { &[] };
    words.iter().map(OsString::from).collect()
}

/// A data folder to copy, since making one takes a second. Made once per build folder, version and user.
fn template(installed: &Installed) -> PathBuf {
    let place = build_folder();
    let user = rustix::process::geteuid().as_raw();
    let template = place.join(format!("pg-template-{}-{user}", installed.version));
    if template.exists() {
        return template;
    }
    let lock = File::create(place.join(format!("pg-template-{user}.lock"))).expect("the build folder can be written");
    lock.lock().expect("a file can be locked");
    if !template.exists() {
        let making = new_folder("pg-template");
        let mut words = as_postgres();
        words.push(installed.bin.join("initdb").into());
        words.extend(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"].map(Into::into));
        words.push(making.join("data").into());
        if is_root() {
            run(Command::new("chown").arg("postgres:").arg(&making));
        }
        let (program, arguments) = words.split_first().expect("not empty");
        run(Command::new(program).args(arguments).current_dir(&making));
        // Seen by others only when it is whole, hence under another name first.
        let unfinished = template.with_extension(format!("unfinished-{}", std::process::id()));
        run(Command::new("cp").arg("-a").arg(making.join("data")).arg(&unfinished));
        fs::rename(&unfinished, &template).expect("the template gets its name");
        drop(fs::remove_dir_all(&making));
    }
    template
}

/// The folder that cargo builds into, which this program runs from; a program from elsewhere uses the temporary one.
fn build_folder() -> PathBuf {
    let program = std::env::current_exe().expect("this program has a path");
    let mut above = program.ancestors();
    let found = above.find(|folder| folder.ends_with("target") || folder.join("CACHEDIR.TAG").exists());
    found.map_or_else(std::env::temp_dir, Path::to_path_buf)
}
