//! The servers and wires that the outage tests build upon do what they say.

use std::time::Duration;

use sqlx::{Connection as _, PgConnection};

use crate::support::{postgres::Postgres, redis::Redis, wait::within};

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
