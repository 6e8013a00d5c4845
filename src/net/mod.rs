//! Outgoing HTTP: the one place that builds clients.
//!
//! Owns TLS roots, time limits and the rules of egress: no redirects, no proxy from the environment, no retries behind our
//! back, a bounded idle pool. Never adds a header. A client that cannot be built stops the start.

mod decode;

use std::time::Duration;

pub use decode::Encoding;

/// Why a client cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// TLS is not usable.
    #[error("TLS cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The client refuses its settings.
    #[error("the HTTP client cannot be built")]
    Client(#[source] reqwest::Error),
}

/// Installs the process's TLS provider; the first thing that `main` does. A second call changes nothing.
pub fn install_tls() {
    // An error only says that one is installed already.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
}

/// A client for providers. Roots are built in, so that an image without CA certificates works.
pub fn provider_client(connect_timeout: Duration) -> Result<reqwest::Client, NetError> {
    let roots: rustls::RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(NetError::Tls)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    // HTTP/1.1 only: HTTP/2 may send a call's headers before its body is first polled, which is where the right to start is
    // checked; and providers bound the streams of one connection.
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    reqwest::Client::builder()
        .tls_backend_preconfigured(tls)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .tcp_keepalive(Duration::from_secs(30))
        .pool_max_idle_per_host(1024)
        .pool_idle_timeout(Duration::from_mins(1))
        .http1_only()
        .build()
        .map_err(NetError::Client)
}
