//! A cluster on one machine, for people: `PostgreSQL`, Redis and three gateways behind one address.
//!
//! Owns what it starts and one temporary folder each; everything is gone when it ends, however it ends. Never keeps data
//! over a run, and never touches a server that it did not start. Fails with what could not be started, and its log.

#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for a terminal, which shares the tests' servers; those say by panicking what is wrong"
)]
#![expect(unreachable_pub, reason = "`pub` says what a shared file offers; nothing leaves this program")]

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};

#[path = "../tests/it/support/postgres.rs"]
#[expect(dead_code, reason = "the tests ask for more")]
mod postgres;
#[path = "../tests/it/support/redis.rs"]
#[expect(dead_code, reason = "the tests ask for more")]
mod redis;
#[path = "../tests/it/support/round_robin.rs"]
#[expect(dead_code, reason = "the tests ask for more")]
mod round_robin;

use postgres::{
    Postgres,
    server::{Server, free_port, new_folder},
};
use redis::Redis;
use round_robin::RoundRobin;

const GATEWAYS: usize = 3;
const PORT: u16 = 9620;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime starts");
    match runtime.block_on(run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

/// What all gateways share.
struct Shared {
    binary: PathBuf,
    public_url: String,
    database_url: String,
    redis_url: String,
    admin_key: String,
    agent_key: String,
}

async fn run() -> Result<(), String> {
    let binary = binary()?;
    let port = std::env::var_os("PORT").map_or(Some(PORT), |port| port.to_str()?.parse().ok());
    let port = port.ok_or("`PORT` is not a port")?;
    // First of all, since it is what most often fails; until gateways are named it resets whoever calls.
    let proxy = RoundRobin::listen(port, &[])
        .map_err(|error| format!("port {port} of loopback cannot be used ({error}); is `make run` still running?"))?;

    println!("starting PostgreSQL …");
    let postgres = Postgres::start().await;
    postgres.psql("postgres", "CREATE DATABASE tappass").await;
    println!("starting Redis …");
    let redis = Redis::start().await;
    let shared = Shared {
        binary,
        public_url: format!("http://{}", proxy.address()),
        database_url: postgres.url("tappass"),
        redis_url: redis.url(),
        admin_key: key("admin"),
        agent_key: key("agent"),
    };
    let mut gateways: Vec<Gateway> = Vec::new();
    for number in 1..=GATEWAYS {
        println!("starting gateway {number} of {GATEWAYS} …");
        // One after the other: the first makes the database's tables and the key file that the others read.
        let first = gateways.first().map(Gateway::kek);
        gateways.push(Gateway::start(number, &shared, first).await?);
    }
    let addresses: Vec<SocketAddr> = gateways.iter().map(|gateway| gateway.address).collect();
    lift_the_limit(*addresses.first().ok_or("no gateway runs")?, &shared)?;
    proxy.point_at(&addresses);
    introduce(proxy.address(), &shared, &gateways, &postgres, &redis);
    serve(&mut gateways).await?;

    println!("\nstopping …");
    for gateway in &gateways {
        gateway.server.stop(Signal::TERM).await;
        println!("gateway {} has ended", gateway.number);
    }
    redis.stop().await;
    postgres.stop().await;
    println!("Redis and PostgreSQL have ended; nothing is left of this run");
    Ok(())
}

/// Until somebody ends it; meanwhile says when a gateway has ended.
async fn serve(gateways: &mut [Gateway]) -> Result<(), String> {
    let taken = |kind| signal(kind).map_err(|error| format!("signals cannot be taken: {error}"));
    let (mut interrupt, mut terminate) = (taken(SignalKind::interrupt())?, taken(SignalKind::terminate())?);
    let mut look = tokio::time::interval(Duration::from_secs(1));
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(()),
            _ = terminate.recv() => return Ok(()),
            _ = look.tick() => {}
        }
        for gateway in gateways.iter_mut().filter(|gateway| gateway.is_alive && !gateway.server.is_alive()) {
            gateway.is_alive = false;
            println!("gateway {} has ended; new connections go to the others", gateway.number);
        }
    }
}

struct Gateway {
    number: usize,
    server: Server,
    address: SocketAddr,
    is_alive: bool,
}

impl Gateway {
    async fn start(number: usize, shared: &Shared, kek: Option<PathBuf>) -> Result<Self, String> {
        let folder = new_folder(&format!("gateway{number}"));
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
        let kek = kek.unwrap_or_else(|| folder.join("kek"));
        let data = folder.join("data");
        let variables = [
            ("DATABASE_URL", shared.database_url.clone()),
            ("REDIS_URL", shared.redis_url.clone()),
            ("TAPPASS_ADMIN_KEY", shared.admin_key.clone()),
            ("TAPPASS_BOOTSTRAP_AGENT_KEY", shared.agent_key.clone()),
            ("TAPPASS_VAULT__KEK_FILE", kek.display().to_string()),
            ("TAPPASS_DATA__DIR", data.display().to_string()),
            ("TAPPASS_SERVER__PUBLIC_URL", shared.public_url.clone()),
            ("PORT", address.port().to_string()),
        ];
        // `env` sets them and becomes the gateway: the supervisor's own environment is this program's.
        let mut command = vec!["env".into()];
        command.extend(variables.map(|(name, value)| format!("{name}={value}")));
        command.extend([shared.binary.display().to_string(), "serve".into()]);
        let gateway = Self { number, server: Server::supervise(folder, &command), address, is_alive: true };
        gateway.server.launch();
        let ended = |log| format!("gateway {number} ended instead of starting:\n{log}");
        gateway.server.ready(|| is_ready(address)).await.map_err(ended)?;
        Ok(gateway)
    }

    fn kek(&self) -> PathBuf {
        self.server.folder().join("kek")
    }

    fn log(&self) -> PathBuf {
        self.server.folder().join("log")
    }
}

fn is_ready(address: SocketAddr) -> bool {
    is_fine(address, "GET /health/ready", "", "")
}

/// The preset's hundred calls an hour would end the first quarter of an hour.
fn lift_the_limit(address: SocketAddr, shared: &Shared) -> Result<(), String> {
    let body = r#"{"preset":"starter","overrides":{"rate_limit":{"max_calls":1000000}}}"#;
    let key = format!("authorization: Bearer {}\r\ncontent-type: application/json\r\n", shared.admin_key);
    let done = is_fine(address, "PUT /api/pipeline", &key, body);
    done.then_some(()).ok_or_else(|| "the limit of calls could not be lifted".to_owned())
}

/// Whether the answer is a 200.
fn is_fine(address: SocketAddr, request: &str, headers: &str, body: &str) -> bool {
    let mut head = [0; 12];
    let length = body.len();
    let asked = TcpStream::connect(address).and_then(|mut stream| {
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        write!(
            stream,
            "{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}"
        )?;
        stream.read_exact(&mut head)
    });
    asked.is_ok() && head.ends_with(b" 200")
}

fn introduce(proxy: SocketAddr, shared: &Shared, gateways: &[Gateway], postgres: &Postgres, redis: &Redis) {
    println!("\nThree gateways on one database, behind http://{proxy}\n");
    let pid = |server: Option<rustix::process::Pid>| server.map_or(0, |pid| pid.as_raw_nonzero().get());
    for gateway in gateways {
        let (address, log) = (gateway.address, gateway.log());
        let pid = pid(gateway.server.pid());
        println!("  gateway {}   http://{address}   pid {pid}   log {}", gateway.number, log.display());
    }
    println!("  PostgreSQL  {}   pid {}", shared.database_url, pid(postgres.pid()));
    println!("  Redis       {}   pid {}", shared.redis_url, pid(redis.pid()));
    println!("\n  admin key   {}\n  agent key   {}", shared.admin_key, shared.agent_key);
    let body = r#"{"model":"tappass/echo","messages":[{"role":"user","content":"hello"}]}"#;
    println!("\n  curl http://{proxy}/v1/chat/completions -H 'Authorization: Bearer {}' \\", shared.agent_key);
    println!("    -H 'Content-Type: application/json' -d '{body}'");
    if let Some(first) = gateways.first() {
        let pid = pid(first.server.pid());
        println!(
            "\nPause a gateway: kill -STOP {pid}, and kill -CONT {pid} when it may go on. End one: kill -9 {pid}."
        );
        println!("A paused one still gets its share of new connections, and those wait.");
    }
    println!("Pause Redis: kill -STOP {}. Ctrl-C stops everything.", pid(redis.pid()));
}

/// The gateway that lies beside this program, unless `TAPPASS_BIN` names another.
fn binary() -> Result<PathBuf, String> {
    if let Some(named) = std::env::var_os("TAPPASS_BIN") {
        let named = PathBuf::from(named);
        let whole = named.canonicalize();
        return whole.map_err(|error| format!("`TAPPASS_BIN` names {}: {error}", named.display()));
    }
    let program = std::env::current_exe().map_err(|error| format!("this program has no path: {error}"))?;
    let built = program.parent().and_then(Path::parent).map(|folder| folder.join("tappass"));
    let built = built.filter(|path| path.exists());
    built.ok_or_else(|| "there is no `tappass` beside this program; `make cluster` builds both".into())
}

fn key(whose: &str) -> String {
    let mut random = [0_u8; 16];
    getrandom::fill(&mut random).expect("the system has chance to give");
    format!("{whose}-{}", hex::encode(random))
}
