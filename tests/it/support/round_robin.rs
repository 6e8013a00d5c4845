//! What a load balancer does, at its smallest: each new connection goes to the next address that takes it.
//!
//! Owns a thread of its own, so that it works on while a test blocks, and the connections through it. Never looks into a
//! byte, never moves a connection to another address, never remembers who refused. A client whom nobody takes is reset.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

/// Loopback answers at once or not at all; a full backlog must not hold up the search.
const CONNECT: Duration = Duration::from_millis(500);

struct Upstreams {
    addresses: Vec<SocketAddr>,
    next: usize,
}

/// The proxy. Its connections are closed when it is dropped.
pub struct RoundRobin {
    address: SocketAddr,
    upstreams: Arc<Mutex<Upstreams>>,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl RoundRobin {
    /// Listens on any free port.
    pub fn over(upstreams: &[SocketAddr]) -> Self {
        Self::listen(0, upstreams).expect("a free port")
    }

    /// Listens on this port of loopback; an error says that it is taken.
    pub fn listen(port: u16, upstreams: &[SocketAddr]) -> std::io::Result<Self> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let upstreams = Arc::new(Mutex::new(Upstreams { addresses: upstreams.to_vec(), next: 0 }));
        let (stop, mut stopped) = watch::channel(false);
        let theirs = Arc::clone(&upstreams);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime starts");
            runtime.block_on(async {
                tokio::select! {
                    () = accept(TcpListener::from_std(listener).expect("a listener"), theirs) => {}
                    _ = stopped.wait_for(|stop| *stop) => {}
                }
            });
        });
        Ok(Self { address, upstreams, stop, thread: Some(thread) })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// New connections go to these from now on, e.g. because a gateway came back on another port.
    pub fn point_at(&self, upstreams: &[SocketAddr]) {
        self.upstreams.lock().expect("nobody panics in here").addresses = upstreams.to_vec();
    }
}

impl Drop for RoundRobin {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

async fn accept(listener: TcpListener, upstreams: Arc<Mutex<Upstreams>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            taken = listener.accept() => if let Ok((client, _)) = taken {
                connections.spawn(serve(client, Arc::clone(&upstreams)));
            },
            Some(ended) = connections.join_next() => ended.expect("a connection does not panic"),
        }
    }
}

async fn serve(mut client: TcpStream, upstreams: Arc<Mutex<Upstreams>>) {
    let Some(mut server) = connect(&upstreams).await else {
        client.set_zero_linger().ok();
        return;
    };
    drop((client.set_nodelay(true), server.set_nodelay(true)));
    if tokio::io::copy_bidirectional(&mut client, &mut server).await.is_err() {
        // A reset on one side is a reset on the other, not an orderly end.
        client.set_zero_linger().ok();
        server.set_zero_linger().ok();
    }
}

async fn connect(upstreams: &Mutex<Upstreams>) -> Option<TcpStream> {
    let in_turn: Vec<SocketAddr> = {
        let mut upstreams = upstreams.lock().expect("nobody panics in here");
        let mut addresses = upstreams.addresses.clone();
        let first = upstreams.next % addresses.len().max(1);
        upstreams.next = first + 1;
        addresses.rotate_left(first);
        addresses
    };
    for address in in_turn {
        if let Ok(Ok(server)) = timeout(CONNECT, TcpStream::connect(address)).await {
            return Some(server);
        }
    }
    None
}
