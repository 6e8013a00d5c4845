//! The in-language limit: the least that a hyper reverse proxy can do.
//! It forwards method, path, headers and body (streamed both ways) to one
//! upstream over a keep-alive pool, and does nothing else. No auth, no parsing,
//! no logging. What our gateway costs above this is the price of governance.
//!
//! usage: bareproxy [--listen 127.0.0.1:9100] [--upstream 127.0.0.1:9000] [--threads 2]
//!                  [--runtime shared|per-core]

use std::{convert::Infallible, net::SocketAddr};

use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{self, HeaderName, HeaderValue},
    http::uri::{Authority, PathAndQuery, Scheme},
    service::service_fn,
};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};

type Body = BoxBody<Bytes, hyper::Error>;

const HOP_BY_HOP: [HeaderName; 5] =
    [header::CONNECTION, header::TE, header::TRAILER, header::TRANSFER_ENCODING, header::UPGRADE];

fn strip(headers: &mut hyper::HeaderMap) {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

async fn forward(
    client: Client<HttpConnector, Incoming>,
    upstream: Authority,
    mut req: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let path = req.uri().path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    let uri = hyper::Uri::builder().scheme(Scheme::HTTP).authority(upstream.clone()).path_and_query(path).build();
    *req.uri_mut() = uri.expect("a parsed path and authority always form a URI");
    strip(req.headers_mut());
    let host = HeaderValue::from_str(upstream.as_str()).expect("an authority is a legal header value");
    req.headers_mut().insert(header::HOST, host);
    Ok(match client.request(req).await {
        Ok(mut resp) => {
            strip(resp.headers_mut());
            resp.map(|b| b.boxed())
        }
        Err(e) => {
            let text = format!("upstream: {e}\n");
            let mut resp = Response::new(Full::from(text).map_err(|n: Infallible| match n {}).boxed());
            *resp.status_mut() = StatusCode::BAD_GATEWAY;
            resp
        }
    })
}

fn option(name: &str, default: &str) -> String {
    let mut args = std::env::args();
    while let Some(a) = args.next() {
        if a == name {
            return args.next().unwrap_or_else(|| panic!("{name} needs a value"));
        }
    }
    default.to_owned()
}

async fn serve(listen: SocketAddr, upstream: Authority, shared: bool) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(1024).build(connector);
    let socket = tokio::net::TcpSocket::new_v4().expect("socket");
    socket.set_reuseaddr(true).expect("SO_REUSEADDR");
    if !shared {
        socket.set_reuseport(true).expect("SO_REUSEPORT");
    }
    socket.bind(listen).expect("bind");
    let listener = socket.listen(4096).expect("listen");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (client, upstream) = (client.clone(), upstream.clone());
        tokio::spawn(async move {
            let service = service_fn(move |req| forward(client.clone(), upstream.clone(), req));
            let _ = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

fn main() {
    let listen: SocketAddr = option("--listen", "127.0.0.1:9100").parse().expect("--listen ADDR:PORT");
    let upstream: Authority = option("--upstream", "127.0.0.1:9000").parse().expect("--upstream ADDR:PORT");
    let threads: usize = option("--threads", "2").parse().expect("--threads N");
    let shared = option("--runtime", "shared") == "shared";
    assert!(listen.ip().is_loopback(), "loopback only");
    eprintln!("bareproxy {listen} -> {upstream}");
    if shared {
        let rt = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build().unwrap();
        return rt.block_on(serve(listen, upstream, true));
    }
    // One single-threaded runtime, one listener and one pool a core: nothing is shared.
    let cores: Vec<_> = (0..threads)
        .map(|_| {
            let upstream = upstream.clone();
            std::thread::spawn(move || {
                let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                rt.block_on(serve(listen, upstream, false));
            })
        })
        .collect();
    for core in cores {
        core.join().expect("a core's thread");
    }
}
