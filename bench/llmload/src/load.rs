//! The three kinds of load: closed loop (saturation), fixed rate (latency), streams.
//! Owns what a load observed of its answers; whatever is not a whole 200 is counted as bad, never dropped.

use std::{
    cell::RefCell,
    io::{self, Read, Write},
    net::TcpStream,
    rc::Rc,
    sync::Mutex,
    time::{Duration, Instant},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::http::{Endpoint, Events, Reader};

const PATIENCE: Duration = Duration::from_secs(10);

/// In microseconds.
#[derive(Clone, Debug, Default)]
pub struct Percentiles {
    pub p50: f64,
    pub p99: f64,
}

/// Of nanoseconds.
fn percentiles(mut ns: Vec<u64>) -> Percentiles {
    if ns.is_empty() {
        return Percentiles::default();
    }
    ns.sort_unstable();
    let at = |q: f64| ns[((ns.len() as f64 * q).ceil() as usize).clamp(1, ns.len()) - 1] as f64 / 1e3;
    Percentiles { p50: at(0.5), p99: at(0.99) }
}

#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub seconds: f64,
    pub ok: u64,
    pub errors: u64,
    /// Answers other than 200, by status; 0 where the connection failed.
    pub bad: std::collections::BTreeMap<u16, u64>,
    /// Whole answers, or whole streams.
    pub latency: Percentiles,
    /// Streams: to the first event.
    pub first: Percentiles,
    /// Streams: from the upstream's stamp in each chunk until it was read here.
    pub chunk: Percentiles,
    pub events: u64,
}

#[derive(Default)]
struct Tally {
    ok: u64,
    bad: std::collections::BTreeMap<u16, u64>,
    latency: Vec<u64>,
    first: Vec<u64>,
    chunk: Vec<u64>,
    events: u64,
}

impl Tally {
    fn outcome(self, seconds: f64) -> Outcome {
        Outcome {
            seconds,
            ok: self.ok,
            errors: self.bad.values().sum(),
            bad: self.bad,
            latency: percentiles(self.latency),
            first: percentiles(self.first),
            chunk: percentiles(self.chunk),
            events: self.events,
        }
    }
}

fn ns(d: Duration) -> u64 {
    d.as_nanos() as u64
}

/// One clock for all processes of this machine: the mock's stamps are of the same.
pub fn monotonic_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec that the call fills in.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

async fn exchange(
    socket: &mut tokio::net::TcpStream,
    request: &[u8],
    buffer: &mut [u8],
    mut sink: impl FnMut(&[u8]),
) -> io::Result<Reader> {
    socket.write_all(request).await?;
    let mut reader = Reader::new();
    while !reader.done() {
        let n = tokio::time::timeout(PATIENCE, socket.read(buffer)).await??;
        if n == 0 {
            if !reader.end() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            break;
        }
        reader.feed(&buffer[..n], &mut sink)?;
    }
    Ok(reader)
}

/// `connections` clients, each asking again as soon as it is answered. With
/// `stream`, events and stamps are read too, and a client staggers its start.
pub fn closed(to: &Endpoint, body: &str, connections: usize, time: Duration, stream: bool) -> Outcome {
    let rt = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let tally = Rc::new(RefCell::new(Tally::default()));
    let request: Rc<[u8]> = to.post(body).into();
    let begin = Instant::now();
    let deadline = begin + time;
    let local = tokio::task::LocalSet::new();
    let last = Rc::new(RefCell::new(begin));
    for i in 0..connections {
        let (tally, request, addr, last) = (tally.clone(), request.clone(), to.addr, last.clone());
        local.spawn_local(async move {
            if stream {
                tokio::time::sleep(Duration::from_millis(2 * i as u64)).await;
            }
            let mut buffer = vec![0; 16 * 1024];
            let mut socket = None;
            while Instant::now() < deadline {
                let started = Instant::now();
                let mut conn = match socket.take() {
                    Some(c) => c,
                    None => match tokio::net::TcpStream::connect(addr).await {
                        Ok(c) => {
                            let _ = c.set_nodelay(true);
                            c
                        }
                        Err(_) => {
                            *tally.borrow_mut().bad.entry(0).or_default() += 1;
                            tokio::time::sleep(Duration::from_millis(10)).await;
                            continue;
                        }
                    },
                };
                let (mut events, mut first) = (Events::default(), None);
                let answer = if stream {
                    exchange(&mut conn, &request, &mut buffer, |b| {
                        let now = monotonic_ns();
                        let mut tally = tally.borrow_mut();
                        events.feed(b, |stamp| tally.chunk.push(now.saturating_sub(stamp)));
                        if events.count > 0 && first.is_none() {
                            first = Some(started.elapsed());
                        }
                    })
                    .await
                } else {
                    exchange(&mut conn, &request, &mut buffer, |_| {}).await
                };
                let mut tally = tally.borrow_mut();
                match answer {
                    Ok(reader) => {
                        if reader.status == 200 {
                            tally.ok += 1;
                            tally.latency.push(ns(started.elapsed()));
                            tally.events += events.count;
                            tally.first.extend(first.map(ns));
                        } else {
                            *tally.bad.entry(reader.status).or_default() += 1;
                        }
                        if !reader.close {
                            socket = Some(conn);
                        }
                    }
                    Err(_) => *tally.bad.entry(0).or_default() += 1,
                }
                *last.borrow_mut() = Instant::now();
            }
        });
    }
    rt.block_on(async {
        let _ = tokio::time::timeout(time + 2 * PATIENCE, local).await;
    });
    let seconds = last.borrow().duration_since(begin).as_secs_f64();
    let tally = std::mem::take(&mut *tally.borrow_mut());
    tally.outcome(seconds)
}

fn sleep_until(at: u64) {
    let t = libc::timespec { tv_sec: (at / 1_000_000_000) as _, tv_nsec: (at % 1_000_000_000) as _ };
    // SAFETY: `t` is valid for the call; no remainder is asked for with an absolute time.
    unsafe { libc::clock_nanosleep(libc::CLOCK_MONOTONIC, libc::TIMER_ABSTIME, &t, std::ptr::null_mut()) };
}

/// `rate` requests a second over `connections` connections in turn, sent when
/// due whatever became of those before. A request whose connection was still
/// busy when it fell due counts from when it was due, so that a slow target
/// cannot hide its queue.
pub fn open(to: &Endpoint, body: &str, rate: f64, connections: usize, time: Duration) -> Outcome {
    let request = to.post(body);
    let total = Mutex::new(Tally::default());
    let step = (1e9 / rate) as u64;
    let count = (rate * time.as_secs_f64()) as u64;
    let zero = monotonic_ns() + 20_000_000;
    std::thread::scope(|scope| {
        for i in 0..connections.min(count as usize) as u64 {
            let (request, total) = (&request, &total);
            std::thread::Builder::new()
                .stack_size(128 * 1024)
                .spawn_scoped(scope, move || {
                    // SAFETY: sets this thread's timer slack to 1 ns; no memory is involved.
                    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
                    let mut tally = Tally::default();
                    let mut socket: Option<TcpStream> = None;
                    let mut buffer = vec![0; 16 * 1024];
                    for k in (i..count).step_by(connections) {
                        let due = zero + k * step;
                        // Connect ahead of time: a handshake is no part of a kept-alive answer.
                        if socket.is_none() {
                            socket = TcpStream::connect(to.addr).ok();
                            if let Some(s) = &socket {
                                let _ = s.set_nodelay(true);
                                let _ = s.set_read_timeout(Some(PATIENCE));
                            }
                        }
                        let late = monotonic_ns() > due;
                        if !late {
                            sleep_until(due);
                        }
                        let from = if late { due } else { monotonic_ns() };
                        match socket.as_mut().map(|s| blocking(s, request, &mut buffer, |_| {})) {
                            Some(Ok(reader)) => {
                                if reader.status == 200 {
                                    tally.ok += 1;
                                    tally.latency.push(monotonic_ns() - from);
                                } else {
                                    *tally.bad.entry(reader.status).or_default() += 1;
                                }
                                if reader.close {
                                    socket = None;
                                }
                            }
                            _ => {
                                *tally.bad.entry(0).or_default() += 1;
                                socket = None;
                            }
                        }
                        // A target far behind its rate must not hold the run up for long.
                        if monotonic_ns() > zero + ns(time) + ns(PATIENCE) {
                            break;
                        }
                    }
                    let mut total = total.lock().unwrap();
                    total.ok += tally.ok;
                    total.latency.extend(tally.latency);
                    for (status, n) in tally.bad {
                        *total.bad.entry(status).or_default() += n;
                    }
                })
                .expect("spawn a thread");
        }
    });
    let seconds = (monotonic_ns() - zero) as f64 / 1e9;
    total.into_inner().unwrap().outcome(seconds)
}

/// One exchange over `socket`; `sink` gets the body as it comes.
pub fn blocking(
    socket: &mut TcpStream,
    request: &[u8],
    buffer: &mut [u8],
    mut sink: impl FnMut(&[u8]),
) -> io::Result<Reader> {
    socket.write_all(request)?;
    let mut reader = Reader::new();
    while !reader.done() {
        let n = socket.read(buffer)?;
        if n == 0 {
            if !reader.end() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            break;
        }
        reader.feed(&buffer[..n], &mut sink)?;
    }
    Ok(reader)
}

/// One exchange over a connection of its own: status and body.
pub fn ask(to: &Endpoint, request: &[u8]) -> io::Result<(u16, Vec<u8>)> {
    let mut socket = TcpStream::connect_timeout(&to.addr, Duration::from_secs(2))?;
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(PATIENCE))?;
    let mut body = Vec::new();
    let reader = blocking(&mut socket, request, &mut [0; 16 * 1024], |b| body.extend_from_slice(b))?;
    Ok((reader.status, body))
}
