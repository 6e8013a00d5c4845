//! A fast fake of the upstream model servers, to measure and to torment a gateway with.
//!
//! usage: mockllm [--listen 127.0.0.1:9000] [--threads 1] [--default WORDS] [--require-key KEY]
//!
//!   POST /v1/chat/completions   OpenAI shape, whole or `"stream":true`
//!   POST /v1/messages           Anthropic shape, whole or `"stream":true`
//!   POST /v1/embeddings         GET /v1/models
//!   GET  /stats                 POST /stats/reset        GET /health/ready
//!   GET  /control               POST /control?WORDS      the default behaviour from now on
//!   GET  /last                  the last request, when `--capture` was given
//!
//! WORDS are those of `spec.rs`; the model name and an `x-mock` header override the default.

mod reply;
mod shape;
mod spec;
mod stats;

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    sync::{Arc, Mutex, RwLock, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use http_body_util::{BodyExt, combinators::BoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode,
    body::Incoming,
    header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};

use reply::{Aborted, Reply};
use shape::{Api, Events};
use spec::{Fault, Spec, field};
use stats::{InFlight, Stats};

struct Mock {
    stats: Arc<Stats>,
    default: RwLock<Spec>,
    key: Option<String>,
    capture: Option<Mutex<String>>,
}

type Answer = Response<BoxBody<Bytes, Aborted>>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream; charset=utf-8");

fn answer(status: StatusCode, kind: HeaderValue, body: Reply) -> Answer {
    let mut r = Response::new(body.boxed());
    *r.status_mut() = status;
    r.headers_mut().insert(CONTENT_TYPE, kind);
    r
}

fn plain(mock: &Mock, status: StatusCode, json: String) -> Answer {
    // Not a model's answer: counted neither as started nor as in flight.
    let mut guard = InFlight::new(&mock.stats);
    guard.complete();
    mock.stats.started.fetch_sub(1, Relaxed);
    mock.stats.completed.fetch_sub(1, Relaxed);
    answer(status, JSON, Reply::whole(json.into(), guard))
}

fn keyed(mock: &Mock, headers: &HeaderMap) -> bool {
    let Some(key) = &mock.key else { return true };
    let bearer = headers.get(AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(|v| v.strip_prefix("Bearer "));
    let x_api_key = headers.get("x-api-key").and_then(|v| v.to_str().ok());
    bearer.or(x_api_key) == Some(key)
}

fn remember(mock: &Mock, parts: &hyper::http::request::Parts, body: &[u8]) {
    let Some(last) = &mock.capture else { return };
    let headers: serde_json::Map<_, _> = parts
        .headers
        .iter()
        .map(|(k, v)| (k.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned().into()))
        .collect();
    let seen = serde_json::json!({
        "method": parts.method.as_str(),
        "uri": parts.uri.to_string(),
        "headers": headers,
        "body": String::from_utf8_lossy(body),
    });
    *last.lock().unwrap() = seen.to_string();
}

/// The next close of this socket is a TCP reset.
fn close_with_reset(fd: RawFd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let size = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: `fd` is this connection's open socket, `linger` outlives the call and `size` is its size.
    unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), size) };
}

async fn serve(mock: Arc<Mock>, fd: RawFd, req: Request<Incoming>) -> Result<Answer, Aborted> {
    let (parts, body) = req.into_parts();
    let api = match (&parts.method, parts.uri.path()) {
        (&Method::POST, "/v1/chat/completions" | "/chat/completions") => Api::OpenAi,
        (&Method::POST, "/v1/messages") => Api::Anthropic,
        (&Method::POST, "/v1/embeddings" | "/embeddings") => {
            let guard = InFlight::new(&mock.stats);
            let body = body.collect().await.map_err(|_| Aborted)?.to_bytes();
            return Ok(embeddings(&mock, &body, guard));
        }
        (&Method::GET, "/v1/models" | "/models") => {
            let list = "{\"object\":\"list\",\"data\":[{\"id\":\"mock-model\",\"object\":\"model\",\
                        \"created\":1700000000,\"owned_by\":\"mock\"}]}";
            return Ok(plain(&mock, StatusCode::OK, list.into()));
        }
        (&Method::GET, "/health/ready") => return Ok(plain(&mock, StatusCode::OK, "{\"status\":\"ok\"}".into())),
        (&Method::GET, "/stats") => return Ok(plain(&mock, StatusCode::OK, mock.stats.json())),
        (&Method::POST, "/stats/reset") => {
            mock.stats.reset();
            return Ok(plain(&mock, StatusCode::OK, mock.stats.json()));
        }
        (&Method::POST, "/control") => {
            let mut spec = Spec::default();
            spec.apply(parts.uri.query().unwrap_or(""));
            *mock.default.write().unwrap() = spec.clone();
            return Ok(plain(&mock, StatusCode::OK, format!("\"{spec:?}\"\n")));
        }
        (&Method::GET, "/control") => {
            let spec = format!("\"{:?}\"\n", mock.default.read().unwrap());
            return Ok(plain(&mock, StatusCode::OK, spec));
        }
        (&Method::GET, "/last") => {
            let last = mock.capture.as_ref().map(|l| l.lock().unwrap().clone()).unwrap_or_default();
            return Ok(plain(&mock, StatusCode::OK, last));
        }
        _ => return Ok(plain(&mock, StatusCode::NOT_FOUND, "{\"error\":{\"message\":\"no such route\"}}".into())),
    };

    let mut guard = InFlight::new(&mock.stats);
    let body = body.collect().await.map_err(|_| Aborted)?.to_bytes();
    remember(&mock, &parts, &body);
    if !keyed(&mock, &parts.headers) {
        mock.stats.unauthorized.fetch_add(1, Relaxed);
        return Ok(answer(StatusCode::UNAUTHORIZED, JSON, Reply::whole(shape::error(api, 401).into(), guard)));
    }
    let model = field(&body, b"\"model\"").unwrap_or("mock-model");
    let stream = field(&body, b"\"stream\"") == Some("true");
    let mut spec = mock.default.read().unwrap().clone();
    spec.apply(model);
    if let Some(words) = parts.headers.get("x-mock").and_then(|v| v.to_str().ok()) {
        spec.apply(words);
    }
    if !spec.ttft.is_zero() {
        tokio::time::sleep(spec.ttft).await;
    }
    if spec.fault != Fault::None {
        mock.stats.faults.fetch_add(1, Relaxed);
    }
    let model = shape::safe(model);
    match spec.fault {
        Fault::Hang => {
            tokio::time::sleep(reply::FOREVER).await;
            return Ok(answer(StatusCode::GATEWAY_TIMEOUT, JSON, Reply::whole(shape::error(api, 504).into(), guard)));
        }
        Fault::Reset => {
            guard.complete();
            close_with_reset(fd);
            return Err(Aborted);
        }
        Fault::Status(code) => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let mut r = answer(status, JSON, Reply::whole(shape::error(api, code).into(), guard));
            if matches!(code, 429 | 503) {
                r.headers_mut().insert(RETRY_AFTER, HeaderValue::from(spec.retry));
            }
            return Ok(r);
        }
        _ => {}
    }
    let spec = Arc::new(spec);
    Ok(if stream { streamed(api, model, &body, spec, guard) } else { whole(api, &model, spec, guard) })
}

fn streamed(api: Api, model: String, body: &[u8], spec: Arc<Spec>, guard: InFlight) -> Answer {
    let usage = field(body, b"\"include_usage\"") == Some("true");
    let events = Events { api, model, usage, wide: spec.fault == Fault::Split };
    let all = |e: &Events| {
        let chunks: String = (1..=spec.chunks).map(|n| e.chunk(n, &spec)).collect();
        format!("{}{chunks}{}", e.open(), e.close(spec.chunks, true))
    };
    let reply = match spec.fault {
        Fault::Drip => Reply::drip(all(&events).as_bytes(), spec.clone(), guard),
        Fault::Split => Reply::split(&all(&events), spec.clone(), guard),
        Fault::Huge => {
            let one = events.content("HUGE");
            let (head, tail) = one.split_once("HUGE").expect("the marker is in the event");
            let tail = format!("{tail}{}", events.close(1, true));
            let head = format!("{}{head}", events.open());
            Reply::huge(head.into(), u64::from(spec.size) << 20, tail.into(), guard)
        }
        _ => Reply::stream(events, spec, guard),
    };
    let mut r = answer(StatusCode::OK, EVENTS, reply);
    r.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    r
}

fn whole(api: Api, model: &str, spec: Arc<Spec>, guard: InFlight) -> Answer {
    let json = |content: &str| shape::whole(api, model, content);
    let text = shape::text(spec.body as usize);
    let (reply, length) = match spec.fault {
        Fault::Cut | Fault::Stall => {
            let s = json(&text);
            (Reply::cut(&s, guard), Some(s.len() as u64))
        }
        Fault::Malformed => (Reply::whole(json(&text).replace(':', ";").into(), guard), None),
        Fault::Drip => (Reply::drip(json(&text).as_bytes(), spec, guard), None),
        Fault::Split => {
            let wide = "\u{e9}\u{65e5}\u{672c}\u{8a9e}\u{1f389} ".repeat(20);
            (Reply::split(&json(&wide), spec, guard), None)
        }
        Fault::Huge => {
            let one = json("HUGE");
            let (head, tail) = one.split_once("HUGE").expect("the marker is in the body");
            let len = u64::from(spec.size) << 20;
            let total = len + (head.len() + tail.len()) as u64;
            (Reply::huge(head.to_owned().into(), len, tail.to_owned().into(), guard), Some(total))
        }
        _ => (Reply::whole(json(&text).into(), guard), None),
    };
    let mut r = answer(StatusCode::OK, JSON, reply);
    if let Some(n) = length {
        r.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(n));
    }
    r
}

fn embeddings(mock: &Mock, body: &[u8], guard: InFlight) -> Answer {
    let spec = mock.default.read().unwrap().clone();
    if let Fault::Status(code) = spec.fault {
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        return answer(status, JSON, Reply::whole(shape::error(Api::OpenAi, code).into(), guard));
    }
    let count = serde_json::from_slice::<serde_json::Value>(body)
        .ok()
        .and_then(|v| v.get("input").and_then(|i| i.as_array().map(Vec::len)))
        .unwrap_or(1)
        .min(2048);
    let vector = (0..256).map(|i| format!("{:.6}", f64::from(i) / 4096.0 - 0.03)).collect::<Vec<_>>().join(",");
    let rows = (0..count)
        .map(|i| format!("{{\"object\":\"embedding\",\"index\":{i},\"embedding\":[{vector}]}}"))
        .collect::<Vec<_>>()
        .join(",");
    let json = format!(
        "{{\"object\":\"list\",\"data\":[{rows}],\"model\":\"mock-embedding\",\
         \"usage\":{{\"prompt_tokens\":8,\"total_tokens\":8}}}}"
    );
    answer(StatusCode::OK, JSON, Reply::whole(json.into(), guard))
}

fn option(name: &str) -> Option<String> {
    let mut args = std::env::args().skip_while(|a| a != name);
    args.next()?;
    Some(args.next().unwrap_or_else(|| panic!("{name} needs a value")))
}

async fn listen(mock: Arc<Mock>, at: SocketAddr) {
    let listener = tokio::net::TcpListener::bind(at).await.expect("bind");
    eprintln!("mockllm on {at}");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let mock = mock.clone();
        tokio::spawn(async move {
            let fd = stream.as_raw_fd();
            mock.stats.connections.fetch_add(1, Relaxed);
            mock.stats.connections_total.fetch_add(1, Relaxed);
            let service = service_fn(|req| serve(mock.clone(), fd, req));
            let mut http = hyper::server::conn::http1::Builder::new();
            let _ = http.timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service).await;
            mock.stats.connections.fetch_sub(1, Relaxed);
        });
    }
}

fn main() {
    let at: SocketAddr = option("--listen").as_deref().unwrap_or("127.0.0.1:9000").parse().expect("--listen ADDR:PORT");
    assert!(at.ip().is_loopback(), "loopback only");
    let threads: usize = option("--threads").map_or(1, |t| t.parse().expect("--threads N"));
    let mut default = Spec::default();
    default.apply(option("--default").as_deref().unwrap_or(""));
    let mock = Arc::new(Mock {
        stats: Arc::default(),
        default: RwLock::new(default),
        key: option("--require-key"),
        capture: std::env::args().any(|a| a == "--capture").then(Mutex::default),
    });
    let mut rt = if threads == 1 {
        tokio::runtime::Builder::new_current_thread()
    } else {
        tokio::runtime::Builder::new_multi_thread()
    };
    if threads > 1 {
        rt.worker_threads(threads);
    }
    rt.enable_all().build().unwrap().block_on(listen(mock, at));
}
