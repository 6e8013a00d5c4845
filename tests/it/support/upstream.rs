//! A scripted provider on loopback, byte by byte.
//!
//! Owns a thread, a listener and the log of what arrived. It speaks HTTP/1.1 on bare sockets, so that a script can cut,
//! stall and reset wherever a real network would. Every piece of a chunked answer is one HTTP chunk, so the gateway
//! sees the cuts that the script asked for however the kernel joins its packets. Never decides anything: scripts do.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket, TcpStream, tcp::ReadHalf},
    sync::watch,
};

pub use crate::support::script::{Answer, End, Gate};
use crate::support::{openai, script::Act, wait::within};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes of the answer that the kernel has taken so far.
    pub sent: usize,
    /// The script has been played to its end.
    pub finished: bool,
    /// The gateway left before that.
    pub abandoned: bool,
}

impl Seen {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

type Script = Arc<dyn Fn(&Seen) -> Answer + Send + Sync>;

struct State {
    seen: Vec<Seen>,
    connections: usize,
    queue: VecDeque<Answer>,
    script: Script,
}

struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn note<T>(&self, write: impl FnOnce(&mut State) -> T) -> T {
        let value = write(&mut self.lock());
        self.changed.send_modify(|count| *count += 1);
        value
    }
}

/// The fake provider. It stops when dropped.
pub struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
    stop: watch::Sender<bool>,
    threads: Vec<std::thread::JoinHandle<()>>,
    /// Connections that fill the backlog of a deaf provider, and the listener that does not accept.
    fillers: Vec<TcpStream>,
    deaf: Option<std::net::TcpListener>,
}

impl Upstream {
    /// Starts a provider that answers every chat call well until it is told otherwise.
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                seen: Vec::new(),
                connections: 0,
                queue: VecDeque::new(),
                script: Arc::new(openai::well_behaved),
            }),
            changed: watch::channel(0).0,
        });
        let stop = watch::channel(false).0;
        let mut upstream = Self { address, shared, stop, threads: Vec::new(), fillers: Vec::new(), deaf: None };
        upstream.listen(listener);
        upstream
    }

    fn listen(&mut self, listener: std::net::TcpListener) {
        let (theirs, mut stopped) = (Arc::clone(&self.shared), self.stop.subscribe());
        self.threads.push(std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::select! {
                    () = accept(TcpListener::from_std(listener).unwrap(), theirs) => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        }));
    }

    /// A port whose backlog is full: a connect to it neither succeeds nor fails.
    pub async fn deaf() -> Self {
        let mut upstream = Self::start();
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let listener = socket.listen(1).unwrap();
        upstream.address = listener.local_addr().unwrap();
        loop {
            let attempt = TcpStream::connect(upstream.address);
            match tokio::time::timeout(std::time::Duration::from_millis(200), attempt).await {
                Ok(stream) => upstream.fillers.push(stream.unwrap()),
                Err(_) => break,
            }
        }
        // The listener must live, and does not accept until it is told to.
        upstream.deaf = Some(listener.into_std().unwrap());
        upstream
    }

    /// A deaf provider begins to accept; answers how many connections are not a gateway's.
    pub fn hears(&mut self) -> usize {
        let listener = self.deaf.take().expect("it was deaf");
        self.listen(listener);
        self.fillers.len()
    }

    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.address)
    }

    /// The next request gets this answer; several queue up.
    pub fn then(&self, answer: Answer) -> &Self {
        self.shared.lock().queue.push_back(answer);
        self
    }

    /// Every request gets this answer when none is queued.
    pub fn always(&self, answer: Answer) -> &Self {
        self.script(move |_| answer.clone())
    }

    /// Every request gets what `script` makes of it when none is queued.
    pub fn script(&self, script: impl Fn(&Seen) -> Answer + Send + Sync + 'static) -> &Self {
        self.shared.lock().script = Arc::new(script);
        self
    }

    pub fn requests(&self) -> Vec<Seen> {
        self.shared.lock().seen.clone()
    }

    pub fn last(&self) -> Seen {
        self.requests().pop().expect("the provider saw a request")
    }

    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// Waits until the `number`th request (from 0) has arrived whole.
    pub async fn request(&self, number: usize) -> Seen {
        self.once("a request at the provider", |state| state.seen.get(number).cloned()).await
    }

    /// Waits until the gateway has left the `number`th request before its answer was over.
    pub async fn abandoned(&self, number: usize) -> Seen {
        self.once("the gateway to leave the provider", |state| {
            state.seen.get(number).filter(|seen| seen.abandoned).cloned()
        })
        .await
    }

    /// Waits until the `number`th answer was sent to its end.
    pub async fn finished(&self, number: usize) -> Seen {
        self.once("an answer to be sent", |state| state.seen.get(number).filter(|seen| seen.finished).cloned()).await
    }

    async fn once<T>(&self, what: &str, ask: impl Fn(&State) -> Option<T>) -> T {
        let mut changed = self.shared.changed.subscribe();
        within(what, async {
            loop {
                if let Some(value) = ask(&self.shared.lock()) {
                    return value;
                }
                changed.changed().await.unwrap();
            }
        })
        .await
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // A panic over there has been printed already.
            drop(thread.join());
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        stream.set_nodelay(true).unwrap();
        shared.note(|state| state.connections += 1);
        tokio::spawn(serve(stream, Arc::clone(&shared)));
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) {
    let mut buffer = Vec::new();
    while let Some(seen) = read_request(&mut stream, &mut buffer).await {
        let (number, answer) = {
            let queued = shared.lock().queue.pop_front();
            let script = Arc::clone(&shared.lock().script);
            let answer = queued.unwrap_or_else(|| script(&seen));
            let number = shared.note(|state| {
                state.seen.push(seen);
                state.seen.len() - 1
            });
            (number, answer)
        };
        let end = answer.end;
        let played = play(&mut stream, answer, number, &shared).await;
        shared.note(|state| {
            let seen = &mut state.seen[number];
            (seen.finished, seen.abandoned) = (played, !played);
        });
        if end == End::Reset {
            stream.set_zero_linger().unwrap();
        }
        if !played || end != End::Clean {
            return;
        }
    }
}

/// Plays an answer; false when the peer left before its end.
async fn play(stream: &mut TcpStream, answer: Answer, number: usize, shared: &Shared) -> bool {
    let mut acts = answer.before_head.clone();
    if !answer.headless {
        acts.push(Act::Piece(answer.head()));
    }
    let head_acts = acts.len();
    acts.extend(answer.body);
    let (mut read, mut write) = stream.split();
    for (position, act) in acts.into_iter().enumerate() {
        let framed = answer.chunked && position >= head_acts;
        let step = async {
            let bytes = match act {
                Act::Wait(gate) => return gate.pass().await,
                Act::Piece(bytes) if bytes.is_empty() => return true,
                Act::Piece(bytes) if framed => chunk(&bytes),
                Act::Piece(bytes) => bytes,
            };
            for part in bytes.chunks(16 * 1024) {
                if write.write_all(part).await.is_err() {
                    return false;
                }
                shared.note(|state| state.seen[number].sent += part.len());
            }
            true
        };
        tokio::select! {
            went = step => if !went { return false },
            () = left(&mut read) => return false,
        }
    }
    match answer.end {
        End::Clean if answer.chunked => write.write_all(b"0\r\n\r\n").await.is_ok(),
        End::Stall => {
            left(&mut read).await;
            false
        }
        End::Clean | End::Close | End::Reset => true,
    }
}

/// Comes back when the peer has closed or reset the connection.
async fn left(read: &mut ReadHalf<'_>) {
    let mut byte = [0];
    if matches!(read.peek(&mut byte).await, Ok(1..)) {
        // The next request is here already: the peer has not left, and will not be watched further.
        std::future::pending::<()>().await;
    }
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut framed = format!("{:x}\r\n", bytes.len()).into_bytes();
    framed.extend_from_slice(bytes);
    framed.extend_from_slice(b"\r\n");
    framed
}

async fn read_request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Seen> {
    let head_end = loop {
        if let Some(at) = find(buffer, b"\r\n\r\n") {
            break at;
        }
        more(stream, buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    buffer.drain(..head_end + 4);
    let mut lines = head.split("\r\n");
    let mut request_line = lines.next()?.split(' ');
    let (method, target) = (request_line.next()?.to_owned(), request_line.next()?.to_owned());
    let headers: Vec<(String, String)> =
        lines.filter_map(|line| line.split_once(':')).map(|(k, v)| (k.to_owned(), v.trim().to_owned())).collect();
    let mut seen = Seen { method, target, headers, body: Vec::new(), sent: 0, finished: false, abandoned: false };
    if let Some(length) = seen.header("content-length").and_then(|text| text.parse::<usize>().ok()) {
        while buffer.len() < length {
            more(stream, buffer).await?;
        }
        seen.body = buffer.drain(..length).collect();
    } else if seen.header("transfer-encoding").is_some() {
        seen.body = read_chunks(stream, buffer).await?;
    }
    Some(seen)
}

async fn read_chunks(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let line_end = loop {
            if let Some(at) = find(buffer, b"\r\n") {
                break at;
            }
            more(stream, buffer).await?;
        };
        let size = usize::from_str_radix(&String::from_utf8_lossy(&buffer[..line_end]), 16).ok()?;
        while buffer.len() < line_end + 2 + size + 2 {
            more(stream, buffer).await?;
        }
        body.extend_from_slice(&buffer[line_end + 2..line_end + 2 + size]);
        buffer.drain(..line_end + 2 + size + 2);
        if size == 0 {
            return Some(body);
        }
    }
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    match stream.read_buf(buffer).await {
        Ok(1..) => Some(()),
        Ok(0) | Err(_) => None,
    }
}

pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
