//! The servers and wires that the outage tests build upon do what they say.

use std::{
    io::{BufRead as _, BufReader},
    time::{Duration, Instant},
};

use sqlx::{Connection as _, PgConnection};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use crate::support::{
    chaos::{Chaos, Way},
    postgres::Postgres,
    redis::Redis,
    round_robin::RoundRobin,
    wait::{until, within},
};

async fn connect(url: &str) -> PgConnection {
    within("a connection", PgConnection::connect(url)).await.unwrap()
}

async fn number(connection: &mut PgConnection, sql: &'static str) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar(sql).fetch_one(connection).await
}

#[tokio::test]
async fn a_database_is_fresh_and_its_server_demands_durability() {
    let postgres = Postgres::shared().await;
    let (one, two) = (postgres.database().await, postgres.database().await);
    assert_ne!(one, two);
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(postgres.psql("postgres", &format!("SHOW {setting}")).await, "on");
    }
    let mut connection = connect(&one).await;
    sqlx::query("CREATE TABLE here (n int)").execute(&mut connection).await.unwrap();
    let mut other = connect(&two).await;
    assert!(sqlx::query("SELECT n FROM here").fetch_optional(&mut other).await.is_err());
}

#[tokio::test]
async fn postgres_is_reached_by_its_socket_and_takes_settings() {
    let postgres = Postgres::start_with(&[("fsync", "off")]).await;
    let mut connection = connect(&postgres.socket_url("postgres")).await;
    assert_eq!(number(&mut connection, "SELECT 1").await.unwrap(), 1);
    assert_eq!(postgres.psql("postgres", "SHOW fsync").await, "off");
}

#[tokio::test]
async fn a_killed_or_stopped_postgres_starts_again_with_what_was_committed() {
    let postgres = Postgres::start().await;
    postgres.psql("postgres", "CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)").await;
    let url = postgres.url("postgres");
    let mut connection = connect(&url).await;
    let first = postgres.pid();
    postgres.kill().await;
    assert_eq!(postgres.pid(), None);
    assert!(number(&mut connection, "SELECT n FROM kept").await.is_err());
    assert!(PgConnection::connect(&url).await.is_err(), "nobody listens");
    postgres.start_again().await;
    assert_eq!(number(&mut connect(&url).await, "SELECT n FROM kept").await.unwrap(), 7);
    postgres.stop().await;
    assert!(PgConnection::connect(&url).await.is_err(), "nobody listens");
    postgres.start_again().await;
    assert_eq!(number(&mut connect(&url).await, "SELECT n FROM kept").await.unwrap(), 7);
    assert_ne!(postgres.pid(), first);
    assert!(postgres.log().contains("was not properly shut down"), "{}", postgres.log());
    let folder = postgres.folder().to_path_buf();
    assert!(folder.exists());
    drop(postgres);
    assert!(!folder.exists());
}

#[tokio::test]
async fn a_paused_postgres_answers_nothing_until_it_is_resumed() {
    let postgres = Postgres::start().await;
    let mut connection = connect(&postgres.url("postgres")).await;
    postgres.pause();
    let url = postgres.url("postgres");
    let known = async { number(&mut connection, "SELECT 1").await.unwrap() };
    let new = async { number(&mut PgConnection::connect(&url).await.unwrap(), "SELECT 2").await.unwrap() };
    let mut both = Box::pin(async { tokio::join!(known, new) });
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut both).await.is_err());
    postgres.resume();
    assert_eq!(within("both answers", both).await, (1, 2));
}

#[tokio::test]
async fn a_killed_or_stopped_redis_starts_again_on_its_port_and_is_empty() {
    let redis = Redis::start().await;
    let (url, first) = (redis.url(), redis.pid());
    assert_eq!(url, format!("redis://127.0.0.1:{}", redis.port));
    assert_eq!(redis.command(&["SET", "a", "1"]).await, "OK");
    redis.kill().await;
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", redis.port)).await.is_err(), "nobody listens");
    redis.start_again().await;
    assert_ne!(redis.pid(), first);
    assert_eq!(redis.command(&["DBSIZE"]).await, "0");
    redis.stop().await;
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", redis.port)).await.is_err(), "nobody listens");
    redis.start_again().await;
    assert_eq!((redis.command(&["PING"]).await, redis.url()), ("PONG".into(), url));
    assert!(redis.log().contains("Ready to accept connections"));
}

#[tokio::test]
async fn a_paused_redis_answers_nothing_until_it_is_resumed() {
    let redis = Redis::start().await;
    redis.pause();
    let mut answer = Box::pin(redis.command(&["PING"]));
    assert!(tokio::time::timeout(Duration::from_millis(200), &mut answer).await.is_err());
    redis.resume();
    assert_eq!(within("the answer", answer).await, "PONG");
}

#[tokio::test]
async fn redis_asks_for_its_password_and_speaks_tls_of_its_own_authority() {
    let redis = Redis::builder().password("s3cret").tls().start().await;
    assert_eq!(redis.url(), format!("rediss://:s3cret@127.0.0.1:{}", redis.port));
    assert_eq!(redis.command(&["PING"]).await, "PONG");
    let stranger = |arguments: &[&str]| {
        let mut command = std::process::Command::new("redis-cli");
        let output = command.args(["-e", "-p", &redis.port.to_string()]).args(arguments).arg("PING").output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(stranger(&["--tls"]).contains("certificate"), "not an authority that the system knows");
    let authority = redis.authority().unwrap();
    assert!(stranger(&["--tls", "--cacert", authority.to_str().unwrap()]).contains("NOAUTH"));
    assert!(!stranger(&[]).is_empty(), "no TLS, no answer");
}

#[tokio::test]
async fn a_test_process_that_is_killed_leaves_no_server_and_no_folder() {
    const ROLE: &str = "TAPPASS_IT_IS_TO_BE_KILLED";
    if std::env::var_os(ROLE).is_some() {
        // The process below: it never gets as far as a drop.
        let (postgres, redis, paused) = (Postgres::shared().await, Redis::start().await, Postgres::start().await);
        paused.pause();
        for (folder, pid) in [(postgres.folder(), postgres.pid()), (redis.folder(), redis.pid())] {
            eprintln!("has {} {}", folder.display(), pid.unwrap().as_raw_nonzero());
        }
        eprintln!("has {} {}", paused.folder().display(), paused.pid().unwrap().as_raw_nonzero());
        return std::future::pending().await;
    }
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "--nocapture"]);
    command.arg("the_servers::a_test_process_that_is_killed_leaves_no_server_and_no_folder");
    command.env(ROLE, "1").stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let told = tokio::task::spawn_blocking(move || {
        let told = lines.map(Result::unwrap).filter_map(|line| Some(line.strip_prefix("has ")?.to_owned()));
        told.take(3).collect::<Vec<_>>()
    });
    let told = within("three servers", told).await.unwrap();
    assert_eq!(told.len(), 3, "the process started its servers");
    child.kill().unwrap();
    child.wait().unwrap();
    for server in told {
        let (folder, pid) = server.rsplit_once(' ').unwrap();
        let process = format!("/proc/{pid}/cmdline");
        until("the folder and the process to be gone", async || {
            let is_gone = std::fs::read(&process).is_ok_and(|command| command.is_empty()) || !exists(&process);
            (is_gone && !exists(folder)).then_some(())
        })
        .await;
    }
}

fn exists(path: &str) -> bool {
    std::path::Path::new(path).exists()
}

/// Not within a time that a working wire would need a thousandth of.
async fn stays_silent<T>(answer: &mut (impl Future<Output = T> + Unpin)) {
    assert!(tokio::time::timeout(Duration::from_millis(200), answer).await.is_err(), "an answer came through");
}

/// A table that counts how often `append` has been carried out, and a wire to it.
async fn counted() -> (&'static Postgres, String, Chaos, String) {
    let postgres = Postgres::shared().await;
    let direct = postgres.database().await;
    let sql = "CREATE TABLE appended (n int);
        CREATE FUNCTION append(n int) RETURNS int LANGUAGE sql AS 'INSERT INTO appended VALUES (n) RETURNING n'";
    sqlx::raw_sql(sql).execute(&mut connect(&direct).await).await.unwrap();
    let chaos = Chaos::in_front_of_postgres(postgres.port);
    let through = chaos.instead_of(&direct);
    (postgres, direct, chaos, through)
}

async fn append(connection: &mut PgConnection, number: i32) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("SELECT append($1)").bind(number).fetch_one(connection).await
}

async fn appended(url: &str) -> Vec<i32> {
    sqlx::query_scalar("SELECT n FROM appended ORDER BY n").fetch_all(&mut connect(url).await).await.unwrap()
}

#[tokio::test]
async fn a_cut_wire_resets_what_runs_refuses_what_comes_and_passes_everything_once_mended() {
    let (_postgres, direct, chaos, through) = counted().await;
    let mut connection = connect(&through).await;
    assert_eq!(append(&mut connection, 1).await.unwrap(), 1);
    chaos.cut().await;
    assert!(append(&mut connection, 2).await.is_err());
    assert!(TcpStream::connect(chaos.address()).await.is_err());
    chaos.mend().await;
    assert_eq!(append(&mut connect(&through).await, 3).await.unwrap(), 3);
    assert_eq!(appended(&direct).await, [1, 3]);
    until("both connections to be gone", async || (chaos.counts().open == 0).then_some(())).await;
    assert_eq!(chaos.counts().accepted, 2);
    for _ in 0..20 {
        chaos.cut().await;
        chaos.mend().await;
    }
    connect(&through).await;
}

#[tokio::test]
async fn a_black_hole_takes_everything_and_answers_nothing_until_it_is_mended() {
    let (_postgres, direct, chaos, through) = counted().await;
    let mut old = connect(&through).await;
    chaos.black_hole();
    let append_both = async {
        tokio::join!(append(&mut old, 1), async { append(&mut PgConnection::connect(&through).await?, 2).await })
    };
    let mut both = Box::pin(append_both);
    stays_silent(&mut both).await;
    assert!(appended(&direct).await.is_empty());
    chaos.mend().await;
    let (old, new) = within("both answers", both).await;
    assert_eq!((old.unwrap(), new.unwrap()), (1, 2));
    assert_eq!(appended(&direct).await, [1, 2]);
}

#[tokio::test]
async fn held_answers_leave_the_server_to_commit() {
    let (_postgres, direct, chaos, through) = counted().await;
    let mut connection = connect(&through).await;
    append(&mut connection, 1).await.unwrap();
    chaos.hold_answers();
    let mut answer = Box::pin(append(&mut connection, 2));
    let committed = until("the commit", async || (appended(&direct).await == [1, 2]).then_some(()));
    tokio::select! {
        () = committed => {}
        _ = &mut answer => panic!("an answer came through"),
    }
    stays_silent(&mut answer).await;
    chaos.mend().await;
    assert_eq!(within("the answer", answer).await.unwrap(), 2);
}

#[tokio::test]
async fn every_second_answer_of_a_function_is_lost_after_its_commit_up_to_a_limit() {
    let (_postgres, direct, chaos, through) = counted().await;
    let mut connection = connect(&through).await;
    append(&mut connection, 0).await.unwrap();
    // The function has been prepared by now: its name does not go over the wire again.
    chaos.lose_answers("append(", 2, 2);
    let mut failed = Vec::new();
    for round in 1..=7 {
        assert_eq!(number(&mut connection, "SELECT 1").await.unwrap(), 1, "what does not match is left alone");
        if append(&mut connection, round).await.is_err() {
            failed.push(round);
            connection = connect(&through).await;
        }
    }
    assert_eq!((failed, chaos.lost(), chaos.counts().matched), (vec![2, 4], 2, 7));
    assert_eq!(appended(&direct).await, [0, 1, 2, 3, 4, 5, 6, 7], "all of them were carried out");
    chaos.lose_answers("append(", 1, 1);
    chaos.lose_no_more_answers();
    append(&mut connection, 8).await.unwrap();
}

#[tokio::test]
async fn the_answer_of_a_commit_is_lost_and_the_transaction_is_not() {
    let (_postgres, direct, chaos, through) = counted().await;
    chaos.lose_answers("COMMIT", 1, 1);
    let mut connection = connect(&through).await;
    let mut transaction = connection.begin().await.unwrap();
    append(&mut transaction, 1).await.unwrap();
    assert!(appended(&direct).await.is_empty());
    assert!(transaction.commit().await.is_err());
    assert_eq!((chaos.lost(), appended(&direct).await), (1, vec![1]));
}

#[tokio::test]
async fn answers_of_other_servers_are_lost_by_the_bytes_of_their_request() {
    let redis = Redis::start().await;
    let chaos = Chaos::in_front_of(([127, 0, 0, 1], redis.port).into());
    assert_eq!(chaos.instead_of(&redis.url()), format!("redis://{}", chaos.address()));
    chaos.lose_answers("INCR", 2, 1);
    let mut lost = Vec::new();
    for round in 1..=4 {
        let mut stream = TcpStream::connect(chaos.address()).await.unwrap();
        // In two pieces, and the pattern across both.
        stream.write_all(b"PING\r\nIN").await.unwrap();
        let mut pong = [0; 7];
        stream.read_exact(&mut pong).await.unwrap();
        stream.write_all(b"CR n\r\n").await.unwrap();
        let mut answer = [0; 4];
        if stream.read_exact(&mut answer).await.is_err() {
            lost.push(round);
        }
    }
    assert_eq!((lost, redis.command(&["GET", "n"]).await), (vec![2], "4".to_owned()));
}

#[tokio::test]
async fn a_delay_counts_in_each_direction() {
    let (_postgres, _direct, chaos, through) = counted().await;
    let mut connection = connect(&through).await;
    number(&mut connection, "SELECT 1").await.unwrap();
    for (way, before) in [(Way::ToServer, 0), (Way::ToClient, 150)] {
        chaos.delay(way, Duration::from_millis(150));
        let asked = Instant::now();
        number(&mut connection, "SELECT 1").await.unwrap();
        assert!(asked.elapsed() >= Duration::from_millis(150 + before), "{way:?}: {:?}", asked.elapsed());
    }
}

/// A server that greets each connection with its letter, and ends it.
async fn greeter(letter: &'static [u8]) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(letter).await.unwrap();
        }
    });
    (address, serving)
}

async fn greeted(address: std::net::SocketAddr) -> std::io::Result<String> {
    let mut text = String::new();
    TcpStream::connect(address).await?.read_to_string(&mut text).await?;
    Ok(text)
}

#[tokio::test]
async fn connections_go_round_and_past_those_who_refuse() {
    let ((a, serve_a), (b, serve_b), (c, _serve_c)) = (greeter(b"a").await, greeter(b"b").await, greeter(b"c").await);
    let proxy = RoundRobin::over(&[a, b, c]);
    let around = async |times: usize| {
        let mut letters = String::new();
        for _ in 0..times {
            letters.push_str(&greeted(proxy.address()).await.unwrap());
        }
        letters
    };
    assert_eq!(around(6).await, "abcabc");
    serve_b.abort();
    until("b to refuse", async || TcpStream::connect(b).await.err()).await;
    assert_eq!(around(3).await, "acc", "b's turn goes to c, and then it is c's own");
    proxy.point_at(&[a]);
    assert_eq!(around(2).await, "aa");
    serve_a.abort();
    until("a to refuse", async || TcpStream::connect(a).await.err()).await;
    assert!(greeted(proxy.address()).await.is_err(), "nobody is left");
    assert!(RoundRobin::listen(proxy.address().port(), &[a]).is_err(), "the port is taken");
}
