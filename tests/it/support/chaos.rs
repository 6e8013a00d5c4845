//! A wire that a test can cut: a TCP proxy on loopback in front of any server.
//!
//! Owns a thread of its own, so that it works on while a test blocks, a listener and the connections through it. Never
//! makes up or changes a byte: it passes, delays, withholds or drops what others say. A server that refuses it is a
//! reset for its client. Fails by panicking when its port is taken while the wire is cut.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

#[path = "pg_wire.rs"]
pub mod pg_wire;

use pg_wire::Session;

/// Pieces that wait in one direction of one connection; beyond that the sender is held up.
const WAITING: usize = 4096;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    ToServer,
    ToClient,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Passes,
    Cut,
    Swallows,
}

#[derive(Clone, Copy)]
struct Control {
    mode: Mode,
    answers_held: bool,
    to_server: Duration,
    to_client: Duration,
    /// Connections of an earlier number have been cut.
    cuts: usize,
    stopped: bool,
}

impl Control {
    fn lets_pass(&self, way: Way) -> bool {
        self.mode == Mode::Passes && (way == Way::ToServer || !self.answers_held)
    }

    fn delay(&self, way: Way) -> Duration {
        match way {
            Way::ToServer => self.to_server,
            Way::ToClient => self.to_client,
        }
    }
}

/// What has happened so far.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Connections taken since the start.
    pub accepted: usize,
    /// Connections that exist now.
    pub open: usize,
    /// Requests with the pattern of [`Chaos::lose_answers`].
    pub matched: usize,
    /// Answers that the server gave and nobody got.
    pub lost: usize,
}

struct Loss {
    pattern: String,
    every: usize,
    limit: usize,
    matched: usize,
    chosen: usize,
}

struct Shared {
    upstream: SocketAddr,
    is_postgres: bool,
    control: watch::Sender<Control>,
    counts: watch::Sender<Counts>,
    listening: watch::Sender<bool>,
    loss: Mutex<Option<Loss>>,
}

/// The proxy. Its connections are reset when it is dropped.
pub struct Chaos {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Chaos {
    /// In front of a server that speaks whatever it speaks.
    pub fn in_front_of(upstream: SocketAddr) -> Self {
        Self::start(upstream, false)
    }

    /// In front of `PostgreSQL` without TLS: [`Chaos::lose_answers`] then knows statements that were prepared earlier.
    pub fn in_front_of_postgres(port: u16) -> Self {
        Self::start((Ipv4Addr::LOCALHOST, port).into(), true)
    }

    fn start(upstream: SocketAddr, is_postgres: bool) -> Self {
        let listener = bind_somewhere();
        let address = listener.local_addr().expect("a bound socket has an address");
        let control = Control {
            mode: Mode::Passes,
            answers_held: false,
            to_server: Duration::ZERO,
            to_client: Duration::ZERO,
            cuts: 0,
            stopped: false,
        };
        let shared = Arc::new(Shared {
            upstream,
            is_postgres,
            control: watch::channel(control).0,
            counts: watch::channel(Counts::default()).0,
            listening: watch::channel(true).0,
            loss: Mutex::new(None),
        });
        let theirs = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(async {
                let mut stop = theirs.control.subscribe();
                tokio::select! {
                    () = listen(listener, address, Arc::clone(&theirs)) => {}
                    _ = stop.wait_for(|control| control.stopped) => {}
                }
            });
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same address (`postgres://…`, `redis://…`), but through here.
    pub fn instead_of(&self, url: &str) -> String {
        let direct = self.shared.upstream.to_string();
        assert!(url.contains(&direct), "{url} does not name {direct}");
        url.replacen(&direct, &self.address.to_string(), 1)
    }

    /// Resets every connection and refuses new ones. Both are true when this returns.
    pub async fn cut(&self) {
        self.change(|control| {
            control.mode = Mode::Cut;
            control.cuts += 1;
        });
        let (mut listening, mut counts) = (self.shared.listening.subscribe(), self.shared.counts.subscribe());
        listening.wait_for(|listening| !listening).await.expect("the proxy lives");
        counts.wait_for(|counts| counts.open == 0).await.expect("the proxy lives");
    }

    /// Ends [`Chaos::cut`], [`Chaos::black_hole`] and [`Chaos::hold_answers`]; delays and losses stay as they are.
    pub async fn mend(&self) {
        self.change(|control| {
            control.mode = Mode::Passes;
            control.answers_held = false;
        });
        let mut listening = self.shared.listening.subscribe();
        listening.wait_for(|listening| *listening).await.expect("the proxy lives");
    }

    /// Takes connections and bytes and hands on nothing, in either direction.
    ///
    /// What was swallowed is delivered by [`Chaos::mend`], as a network that heals sends again what it had lost: also the
    /// request of a client that has left meanwhile.
    pub fn black_hole(&self) {
        self.change(|control| control.mode = Mode::Swallows);
    }

    /// Requests still reach the server; its answers wait for [`Chaos::mend`].
    pub fn hold_answers(&self) {
        self.change(|control| control.answers_held = true);
    }

    /// Every piece in this direction arrives that much later; the throughput stays.
    pub fn delay(&self, way: Way, by: Duration) {
        self.change(|control| match way {
            Way::ToServer => control.to_server = by,
            Way::ToClient => control.to_client = by,
        });
    }

    /// From now on every `every`th request that contains `pattern` reaches the server and is carried out, and then its
    /// connection is reset instead of the answer being delivered; at most `limit` times.
    ///
    /// In front of `PostgreSQL` the pattern is looked for in the text of what is executed, and the answer has come when
    /// the server is ready for the next statement, which is after its commit. Elsewhere it is looked for in the bytes,
    /// and the first byte back is an answer.
    pub fn lose_answers(&self, pattern: &str, every: usize, limit: usize) {
        assert!(!pattern.is_empty() && every > 0, "every request is every first");
        let loss = Loss { pattern: pattern.into(), every, limit, matched: 0, chosen: 0 };
        *self.shared.loss() = Some(loss);
    }

    pub fn lose_no_more_answers(&self) {
        *self.shared.loss() = None;
    }

    pub fn counts(&self) -> Counts {
        *self.shared.counts.borrow()
    }

    /// Answers that the server gave and nobody got.
    pub fn lost(&self) -> usize {
        self.counts().lost
    }

    fn change(&self, change: impl FnOnce(&mut Control)) {
        self.shared.control.send_modify(change);
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.change(|control| control.stopped = true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Below the ports that the kernel gives to outgoing connections, so that it can be taken again after a cut.
fn bind_somewhere() -> std::net::TcpListener {
    for _ in 0..1000 {
        let mut random = [0_u8; 2];
        getrandom::fill(&mut random).expect("the system has chance to give");
        let port = 10_000 + u16::from_ne_bytes(random) % 22_000;
        if let Ok(listener) = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            listener.set_nonblocking(true).expect("a socket");
            return listener;
        }
    }
    panic!("1000 ports were asked for and none is free");
}

async fn listen(first: std::net::TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    let mut listener = TcpListener::from_std(first).expect("a listener");
    loop {
        tokio::select! {
            taken = listener.accept() => if let Ok((client, _)) = taken {
                connections.spawn(serve(client, Arc::clone(&shared)));
            },
            Some(ended) = connections.join_next() => ended.expect("a connection does not panic"),
            () = shared.becomes(|mode| mode == Mode::Cut) => {
                drop(listener);
                shared.listening.send_replace(false);
                // Connections end by themselves: they watch the number of cuts.
                while connections.join_next().await.is_some() {}
                shared.becomes(|mode| mode != Mode::Cut).await;
                listener = TcpListener::bind(address).await.expect("the port is still free");
                shared.listening.send_replace(true);
            }
        }
    }
}

/// Counts a connection for as long as it lives, however it ends.
struct Open(Arc<Shared>);

impl Open {
    fn new(shared: Arc<Shared>) -> Self {
        shared.count(|counts| {
            counts.accepted += 1;
            counts.open += 1;
        });
        Self(shared)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.count(|counts| counts.open -= 1);
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let cuts = shared.control.borrow().cuts;
    // The count goes down only when the sockets below are closed.
    let _open = Open::new(Arc::clone(&shared));
    drop(client.set_nodelay(true));
    let end = tokio::select! {
        // In this order: only the inner one can reset the server's side too.
        biased;
        end = carry(&mut client, &shared, cuts) => end,
        () = shared.cut_since(cuts) => Err(cut()),
    };
    if end.is_err() {
        client.set_zero_linger().ok();
    }
    drop(client);
}

async fn carry(client: &mut TcpStream, shared: &Shared, cuts: usize) -> io::Result<()> {
    let wire = Wire::new(shared);
    let (from_client, to_client) = client.split();
    let (requests, waiting_requests) = mpsc::channel(WAITING);
    let (answers, waiting_answers) = mpsc::channel(WAITING);
    let server_side = async {
        shared.opened(Way::ToServer).await;
        let mut server = TcpStream::connect(shared.upstream).await?;
        server.set_nodelay(true)?;
        let (from_server, to_server) = server.split();
        let end = tokio::select! {
            end = async { tokio::try_join!(
                give(waiting_requests, to_server, Way::ToServer, &wire),
                take(from_server, answers, Way::ToClient, &wire),
                give(waiting_answers, to_client, Way::ToClient, &wire),
            ) } => end.map(|_| ()),
            () = shared.cut_since(cuts) => Err(cut()),
        };
        if end.is_err() {
            server.set_zero_linger().ok();
        }
        end
    };
    tokio::try_join!(take(from_client, requests, Way::ToServer, &wire), server_side).map(|_| ())
}

struct Piece {
    bytes: Vec<u8>,
    arrived: Instant,
}

/// Reads whatever comes, whether it may be handed on or not.
async fn take(mut from: ReadHalf<'_>, queue: mpsc::Sender<Piece>, way: Way, wire: &Wire<'_>) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { return Ok(()) };
        if way == Way::ToClient && !wire.may_deliver(bytes)? {
            continue;
        }
        if queue.send(Piece { bytes: bytes.to_vec(), arrived: Instant::now() }).await.is_err() {
            return Ok(());
        }
    }
}

async fn give(mut queue: mpsc::Receiver<Piece>, mut to: WriteHalf<'_>, way: Way, wire: &Wire<'_>) -> io::Result<()> {
    while let Some(piece) = queue.recv().await {
        let delay = wire.shared.control.borrow().delay(way);
        tokio::time::sleep_until(piece.arrived + delay).await;
        wire.shared.opened(way).await;
        if way == Way::ToServer {
            // Before it is sent: its answer must not be faster than the decision to lose it.
            wire.note_request(&piece.bytes);
        }
        to.write_all(&piece.bytes).await?;
    }
    wire.shared.opened(way).await;
    to.shutdown().await
}

fn cut() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl Shared {
    fn loss(&self) -> MutexGuard<'_, Option<Loss>> {
        self.loss.lock().expect("nobody panics in here")
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        self.counts.send_modify(change);
    }

    /// Waits until bytes may pass this way.
    async fn opened(&self, way: Way) {
        let mut control = self.control.subscribe();
        control.wait_for(|control| control.lets_pass(way)).await.expect("the sender is ours");
    }

    async fn becomes(&self, mode: impl Fn(Mode) -> bool) {
        let mut control = self.control.subscribe();
        control.wait_for(|control| mode(control.mode)).await.expect("the sender is ours");
    }

    async fn cut_since(&self, cuts: usize) {
        let mut control = self.control.subscribe();
        control.wait_for(|control| control.cuts != cuts).await.expect("the sender is ours");
    }

    /// Whether the answer to a request that matched is to be lost.
    fn chooses(&self, loss: &mut Loss) -> bool {
        loss.matched += 1;
        self.count(|counts| counts.matched += 1);
        let chosen = loss.matched.is_multiple_of(loss.every) && loss.chosen < loss.limit;
        loss.chosen += usize::from(chosen);
        chosen
    }
}

/// What is known of one connection's conversation.
struct Wire<'a> {
    shared: &'a Shared,
    said: Mutex<Said>,
}

#[derive(Default)]
struct Said {
    session: Session,
    /// The end of the last request bytes, where a pattern may have begun.
    tail: Vec<u8>,
    /// Nothing is delivered any more, and after the answer with this number all is over.
    doomed: Option<usize>,
}

impl<'a> Wire<'a> {
    fn new(shared: &'a Shared) -> Self {
        Self { shared, said: Mutex::default() }
    }

    fn said(&self) -> MutexGuard<'_, Said> {
        self.said.lock().expect("nobody panics in here")
    }

    fn note_request(&self, bytes: &[u8]) {
        let mut said = self.said();
        let executed = if self.shared.is_postgres { said.session.hear_client(bytes) } else { Vec::new() };
        let mut loss = self.shared.loss();
        let Some(loss) = loss.as_mut() else { return };
        let answers: Vec<usize> = if self.shared.is_postgres {
            let matching = executed.into_iter().filter(|statement| statement.text.contains(&loss.pattern));
            matching.map(|statement| statement.answer).collect()
        } else {
            said.tail.extend_from_slice(bytes);
            let found = said.tail.windows(loss.pattern.len()).any(|window| window == loss.pattern.as_bytes());
            let kept = if found { 0 } else { said.tail.len().min(loss.pattern.len() - 1) };
            let cut_at = said.tail.len() - kept;
            said.tail.drain(..cut_at);
            if found { vec![0] } else { Vec::new() }
        };
        for answer in answers {
            if self.shared.chooses(loss) {
                said.doomed.get_or_insert(answer);
            }
        }
    }

    /// Whether these bytes from the server may go on. An error ends the connection: its answer is lost.
    fn may_deliver(&self, bytes: &[u8]) -> io::Result<bool> {
        let mut said = self.said();
        if self.shared.is_postgres {
            said.session.hear_server(bytes);
        }
        let Some(answer) = said.doomed else { return Ok(true) };
        if self.shared.is_postgres && said.session.answers() < answer {
            return Ok(false);
        }
        self.shared.count(|counts| counts.lost += 1);
        Err(cut())
    }
}
