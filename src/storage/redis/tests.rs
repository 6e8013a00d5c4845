//! The link against a real server, and against one that never answers.

use std::time::Instant;

use rustix::process::Signal;

use super::{
    testing::{Server, client, until},
    *,
};

const ECHO: &str = "return {KEYS[1], ARGV[1]}";

async fn echo(redis: &Redis) -> Result<Vec<String>, RedisError> {
    redis.run(&Script::new(ECHO), &["key".to_owned()], &["argument".to_owned()]).await
}

#[tokio::test]
async fn an_error_of_the_server_breaks_the_link_until_it_is_well() {
    let server = Server::start().await;
    let redis = client(&server.url(), Duration::from_secs(5)).await;
    assert_eq!(echo(&redis).await.unwrap(), ["key", "argument"]);
    let flush = Script::new("redis.call('SCRIPT', 'FLUSH') return {}");
    // Redis refuses to flush from a script: an error like any other, after which a probe has to show that it can write.
    assert!(matches!(redis.run(&flush, &[], &[]).await, Err(RedisError::Failed(_))));
    assert!(redis.link().is_none());
    until("a new link", || redis.link().is_some()).await;
    assert_eq!(echo(&redis).await.unwrap(), ["key", "argument"]);
}

#[tokio::test]
async fn a_server_that_hangs_costs_each_of_many_callers_one_short_wait_and_then_none() {
    let server = Server::start().await;
    let limit = Duration::from_millis(300);
    let redis = client(&server.url(), limit).await;
    echo(&redis).await.unwrap();
    server.signal(Signal::STOP);
    let began = Instant::now();
    let waiting = futures_util::future::join_all((0..200).map(|_| echo(&redis))).await;
    assert!(waiting.iter().all(Result::is_err));
    assert!(began.elapsed() < limit * 2, "{:?}", began.elapsed());
    let began = Instant::now();
    assert!(matches!(echo(&redis).await, Err(RedisError::Down)));
    assert!(began.elapsed() < limit / 2, "nobody waits for what is known to be away");
    server.signal(Signal::CONT);
    until("a link after the pause", || redis.link().is_some()).await;
    echo(&redis).await.unwrap();
    assert_eq!(redis.0.metrics.redis_degraded.get(), 0);
}

#[tokio::test]
async fn a_server_that_dies_is_noticed_without_a_call_and_learns_the_scripts_anew() {
    let mut server = Server::start().await;
    let redis = client(&server.url(), Duration::from_secs(1)).await;
    echo(&redis).await.unwrap();
    server.kill();
    until("the loss to be noticed", || redis.link().is_none()).await;
    assert_eq!(redis.0.metrics.redis_degraded.get(), 1);
    assert!(server.launch().await);
    until("a new link", || redis.link() == Some(2)).await;
    assert_eq!(echo(&redis).await.unwrap(), ["key", "argument"]);
}

#[tokio::test]
async fn an_address_that_cannot_be_is_named_without_its_password() {
    let start = async |url: &str, ca: Option<&str>| {
        let settings = RedisSettings {
            url: url.to_owned().into(),
            ca: ca.map(|pem| pem.as_bytes().to_vec()),
            timeout: Duration::from_millis(50),
            connect_timeout: Duration::from_millis(50),
            prefix: "test".to_owned(),
        };
        let metrics = Arc::new(Metrics::default());
        let started = Redis::start(settings, metrics, &TaskTracker::new(), CancellationToken::new()).await;
        started.err().map(|error| error.to_string()).unwrap_or_default()
    };
    for (url, ca, words) in [
        ("http://:hunter2@localhost", None, "redis://"),
        ("redis://:hunter2@localhost:port", None, "redis"),
        ("redis://:hunter2@localhost", Some("-----BEGIN CERTIFICATE-----"), "rediss://"),
        ("rediss://:hunter2@localhost", Some("nonsense"), "ca_file"),
        ("rediss://:hunter2@localhost#insecure", None, "rediss://"),
    ] {
        let error = start(url, ca).await;
        assert!(error.contains(words) && !error.contains("hunter2"), "{url}: {error}");
    }
}
