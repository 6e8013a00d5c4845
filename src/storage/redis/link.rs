//! One connection to Redis, from its making to its breaking.
//!
//! Owns TLS, AUTH and socket options, and the token that releases everybody who waits when it breaks. Never repairs
//! itself: a link that failed once is thrown away, since a timed-out connection may be a dead one.

use std::{sync::LazyLock, time::Duration};

use deadpool_redis::redis::{
    self, AsyncConnectionConfig, Client, IntoConnectionInfo as _, TlsCertificates, aio::MultiplexedConnection,
    io::tcp::TcpSettings,
};
use secrecy::ExposeSecret as _;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{RedisError, RedisSettings, Script};

/// A sign of life is a write, as calls are: a replica, a full server or a key without the right to write is no recovery.
static PROBE: LazyLock<Script> =
    LazyLock::new(|| Script::new("redis.call('SET', KEYS[1], '1', 'PX', 5000) return {'alive'}"));

pub(super) struct Link {
    connection: MultiplexedConnection,
    broken: CancellationToken,
    /// Counts from 1.
    pub(super) number: u64,
    pub(super) since: Instant,
}

impl Link {
    /// Connects, authenticates and tries a write.
    pub(super) async fn open(client: &Client, limit: Duration, prefix: &str, number: u64) -> Result<Self, RedisError> {
        let opened = async {
            // Each call has a time limit of its own; the crate's would be a second one.
            let config = AsyncConnectionConfig::new().set_connection_timeout(Some(limit)).set_response_timeout(None);
            let connection = client.get_multiplexed_async_connection_with_config(&config).await?;
            let link = Self { connection, broken: CancellationToken::new(), number, since: Instant::now() };
            link.probe(prefix, limit).await?;
            Ok(link)
        };
        tokio::time::timeout(limit, opened).await.unwrap_or(Err(RedisError::Late(limit)))
    }

    pub(super) async fn probe(&self, prefix: &str, limit: Duration) -> Result<(), RedisError> {
        self.run(&PROBE, &[format!("{prefix}:alive")], &[], limit).await.map(drop)
    }

    /// Runs a script, until the limit or until anybody finds the link broken.
    pub(super) async fn run(
        &self,
        script: &Script,
        keys: &[String],
        arguments: &[String],
        limit: Duration,
    ) -> Result<Vec<String>, RedisError> {
        let mut invocation = script.0.prepare_invoke();
        for key in keys {
            invocation.key(key);
        }
        for argument in arguments {
            invocation.arg(argument);
        }
        // A clone is a handle: all calls share one socket.
        let mut connection = self.connection.clone();
        tokio::select! {
            answer = invocation.invoke_async(&mut connection) => Ok(answer?),
            () = self.broken.cancelled() => Err(RedisError::Down),
            () = tokio::time::sleep(limit) => Err(RedisError::Late(limit)),
        }
    }

    /// Releases everybody who waits; whether it was not broken before.
    pub(super) fn sever(&self) -> bool {
        let first = !self.broken.is_cancelled();
        self.broken.cancel();
        first
    }

    pub(super) async fn severed(&self) {
        self.broken.cancelled().await;
    }
}

/// The client of an address; nothing is connected yet. Errors never repeat the address: it may hold the password.
pub(super) fn client(settings: &RedisSettings) -> Result<Client, RedisError> {
    let url = settings.url.expose_secret();
    let wrong = |words: &str| RedisError::Settings(words.to_owned());
    let tls = url.starts_with("rediss://");
    if !tls && !url.starts_with("redis://") || url.contains('#') {
        return Err(wrong("must be redis://[user:password@]host:port[/db], or the same with rediss:// for TLS"));
    }
    let info = url.into_connection_info().map_err(|error| {
        // The crate's words name the part that is wrong, not its value.
        RedisError::Settings(format!(
            "is not an address of Redis ({}): {error}",
            "redis[s]://[user:password@]host:port"
        ))
    })?;
    // Nagle would hold back every call behind the answer to the one before.
    let info = info.set_tcp_settings(TcpSettings::default().set_nodelay(true));
    if tls {
        crate::net::install_tls();
    }
    let client = match &settings.ca {
        None => Client::open(info),
        Some(_) if !tls => return Err(wrong("must begin with rediss:// where `redis.ca_file` is set")),
        Some(pem) if !pem.windows(27).any(|part| part == b"-----BEGIN CERTIFICATE-----") => {
            return Err(wrong("cannot be used: `redis.ca_file` holds no PEM certificate (BEGIN CERTIFICATE)"));
        }
        Some(pem) => Client::build_with_tls(info, TlsCertificates { client_tls: None, root_cert: Some(pem.clone()) }),
    };
    client.map_err(|error: redis::RedisError| RedisError::Settings(format!("cannot be used: {error}")))
}
