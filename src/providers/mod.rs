//! Model providers: sending a call and reading what comes back.
//!
//! Owns the way to a provider, its time limits and the wire forms. Never decides whether a call may be made: it is given
//! the right to start, and asks for it in the poll that hands the first byte to the connection. Never retries: whoever
//! holds the permit does. Every failure says which limit or which break it was, and whether the provider can have begun.

mod body;
mod client;
mod echo;
pub mod openai;
pub mod sse;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
pub use body::UpstreamBody;
use bytes::Bytes;
pub use client::HttpProvider;
pub use echo::{ECHO_MODEL, Echo};
use http::{HeaderMap, StatusCode};

use crate::vault::SecretText;

/// Asked in the poll that writes the first byte: may the call still begin?
pub type MayStart = Arc<dyn Fn() -> bool + Send + Sync>;

/// One call.
pub struct Call {
    /// The request's JSON.
    pub body: Bytes,
    /// The provider's key, if it takes one.
    pub key: Option<SecretText>,
    /// The right to begin.
    pub may_start: MayStart,
}

/// What a provider answered, before its body.
pub struct UpstreamReply {
    /// Its status.
    pub status: StatusCode,
    /// Those of its headers that a caller may see.
    pub headers: HeaderMap,
    /// Whether the body is an event stream.
    pub is_event_stream: bool,
    /// The body, decoded.
    pub body: UpstreamBody,
}

/// Which limit a call ran into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Until connected, TLS included.
    Connect,
    /// Until the first byte of the answer.
    FirstByte,
    /// Between two bytes.
    Idle,
    /// Over all.
    Total,
}

/// Why a call has no answer, or no whole one.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The permit had run out before the first byte.
    #[error("the permit ran out before the call began")]
    NotStarted,
    /// No connection: nothing was sent.
    #[error("the provider cannot be reached")]
    Connect(#[source] reqwest::Error),
    /// A time limit.
    #[error("the provider did not answer in time ({0:?})")]
    Timeout(Limit),
    /// The connection broke.
    #[error("the connection to the provider broke")]
    Broken(#[source] reqwest::Error),
    /// An answer larger than is collected.
    #[error("the provider's answer is larger than {0} bytes")]
    TooLarge(usize),
    /// An answer in an encoding that cannot be read, or that does not decode.
    #[error("the provider's answer has an encoding that cannot be read")]
    Encoding,
    /// The key cannot stand in a header.
    #[error("the provider's key cannot be sent")]
    Key,
}

impl ProviderError {
    /// A word for error bodies, records and metrics.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NotStarted => "permit_expired",
            Self::Connect(_) => "provider_unreachable",
            Self::Timeout(Limit::Connect) => "provider_connect_timeout",
            Self::Timeout(Limit::FirstByte) => "provider_first_byte_timeout",
            Self::Timeout(Limit::Idle) => "provider_idle_timeout",
            Self::Timeout(Limit::Total) => "provider_total_timeout",
            Self::Broken(_) => "provider_broken",
            Self::TooLarge(_) => "provider_answer_too_large",
            Self::Encoding => "provider_encoding",
            Self::Key => "provider_key_malformed",
        }
    }

    /// Whether the provider certainly saw nothing, so that another attempt costs nothing.
    pub fn is_surely_unsent(&self) -> bool {
        match self {
            Self::NotStarted | Self::Connect(_) | Self::Timeout(Limit::Connect) | Self::Key => true,
            Self::Timeout(_) | Self::Broken(_) | Self::TooLarge(_) | Self::Encoding => false,
        }
    }
}

/// What a provider says about a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyCheck {
    /// It takes it.
    Valid,
    /// It refuses it.
    Invalid,
    /// Neither: out of reach, slow, or an answer that says something else.
    Unknown,
}

impl KeyCheck {
    /// The word that is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Unknown => "unknown",
        }
    }
}

/// Time limits of a call.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// Until the answer's headers.
    pub first_byte: Duration,
    /// Between two pieces of the body.
    pub idle: Duration,
    /// Over all.
    pub total: Duration,
}

/// A provider of chat completions.
#[async_trait]
pub trait Provider: Send + Sync {
    /// Its name, as credentials and records use it.
    fn name(&self) -> &'static str;
    /// Whether a call without a stored key is refused.
    fn needs_key(&self) -> bool;
    /// The models that it lists.
    fn models(&self) -> &[String];
    /// Sends a call; the answer's body is read by the caller.
    async fn chat(&self, call: Call) -> Result<UpstreamReply, ProviderError>;
    /// Asks whether a key is good, without using it up.
    async fn validate(&self, key: &SecretText) -> KeyCheck;
}

/// Every provider, and which one a model's name means.
#[derive(Clone)]
pub struct Providers {
    echo: Arc<dyn Provider>,
    openai: Arc<dyn Provider>,
}

impl Providers {
    /// The built-in one and the one over HTTP.
    pub fn new(echo: Arc<dyn Provider>, openai: Arc<dyn Provider>) -> Self {
        Self { echo, openai }
    }

    /// The provider of a model and the name under which it knows it.
    pub fn of<'m>(&self, model: &'m str) -> (&Arc<dyn Provider>, &'m str) {
        if model == ECHO_MODEL {
            return (&self.echo, model);
        }
        (&self.openai, model.strip_prefix("openai/").unwrap_or(model))
    }

    /// Every provider.
    pub fn all(&self) -> [&Arc<dyn Provider>; 2] {
        [&self.echo, &self.openai]
    }

    /// The provider of that name.
    pub fn named(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.all().into_iter().find(|provider| provider.name() == name)
    }
}
