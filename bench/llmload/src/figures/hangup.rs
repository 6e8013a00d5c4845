//! The caller hangs up: how long until the provider sees it.
//! Owns the scenes and their clock (from before the caller's close to the mock's notice of the abort, on one monotonic
//! clock). A hang-up that is never seen counts as the limit and is named, it is no error of the run.

use std::{
    io::{Read, Write},
    net::TcpStream,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    figures::mock::{Mock, Stats},
    http::{Events, Reader},
    load::monotonic_ns,
    measure::{Target, body, median},
};

/// Shorter than any pause of the scenes: a gateway that only notices when it next writes is not seen in time.
const LIMIT: Duration = Duration::from_millis(900);

/// A gateway that misses so many of a scene will miss the rest of it too.
const ENOUGH_UNSEEN: usize = 2;

struct Scene {
    what: &'static str,
    control: &'static str,
    stream: bool,
    /// Hang up after the first event; else as soon as the provider has the request.
    after_first_event: bool,
}

const SCENES: [Scene; 3] = [
    Scene { what: "mid-stream", control: "chunks=3&gap=1000", stream: true, after_first_event: true },
    Scene { what: "before the first byte", control: "ttft=1000", stream: true, after_first_event: false },
    Scene { what: "not streaming", control: "ttft=1000", stream: false, after_first_event: false },
];

/// The samples of one scene, milliseconds.
pub struct HangUps {
    pub target: &'static str,
    pub what: &'static str,
    pub ms: Vec<f64>,
    pub unseen: usize,
}

impl HangUps {
    pub fn median(&self) -> Option<f64> {
        median(self.ms.clone())
    }

    pub fn worst(&self) -> Option<f64> {
        self.ms.iter().copied().max_by(f64::total_cmp)
    }
}

/// Every scene against every target, the targets taking turns.
pub fn run(mock: &Mock, targets: &[&Target], samples: usize) -> Result<Vec<HangUps>, String> {
    let mut all = Vec::new();
    for scene in &SCENES {
        mock.set(scene.control)?;
        let mut of_scene: Vec<HangUps> =
            targets.iter().map(|t| HangUps { target: t.name, what: scene.what, ms: Vec::new(), unseen: 0 }).collect();
        for n in 0..samples {
            for (target, seen) in targets.iter().zip(&mut of_scene) {
                if seen.unseen >= ENOUGH_UNSEEN {
                    continue;
                }
                let ms = sample(mock, target, scene, n).map_err(|e| format!("{}, {}: {e}", target.name, scene.what))?;
                seen.unseen += usize::from(ms.is_none());
                seen.ms.push(ms.unwrap_or(LIMIT.as_secs_f64() * 1e3));
            }
        }
        all.extend(of_scene);
    }
    mock.set("")?;
    Ok(all)
}

fn sample(mock: &Mock, target: &Target, scene: &Scene, n: usize) -> Result<Option<f64>, String> {
    // A hang-up that went unseen leaves an exchange behind; its late end must not be taken for this one's.
    let before = poll(mock, Duration::from_secs(5), |s| s.in_flight == 0)?.ok_or("the mock does not come to rest")?;
    let mut socket = TcpStream::connect(target.endpoint.addr).map_err(|e| e.to_string())?;
    let patience = Some(Duration::from_secs(5));
    socket.set_read_timeout(patience).map_err(|e| e.to_string())?;
    socket.write_all(&target.endpoint.post(&body(scene.stream, 64))).map_err(|e| e.to_string())?;
    if scene.after_first_event {
        read_first_event(&mut socket)?;
    } else {
        let arrived = poll(mock, Duration::from_secs(5), |s| s.started > before.started)?;
        arrived.ok_or("the request does not reach the mock")?;
    }
    // Not always at the same moment of the gateway's timers.
    sleep(Duration::from_millis(10 + 7 * (n as u64 % 5)));
    let gone = monotonic_ns();
    drop(socket);
    let seen = poll(mock, LIMIT, |s| s.cancelled > before.cancelled)?;
    Ok(seen.map(|s| s.cancelled_at_ns.saturating_sub(gone) as f64 / 1e6))
}

fn read_first_event(socket: &mut TcpStream) -> Result<(), String> {
    let (mut reader, mut events, mut buffer) = (Reader::new(), Events::default(), [0; 16 * 1024]);
    while events.count == 0 {
        let n = socket.read(&mut buffer).map_err(|e| e.to_string())?;
        if n == 0 {
            return Err(format!("closed without an event (status {})", reader.status));
        }
        reader.feed(&buffer[..n], |b| events.feed(b, |_| {})).map_err(|e| e.to_string())?;
        if reader.status != 0 && reader.status != 200 {
            return Err(format!("status {}", reader.status));
        }
    }
    Ok(())
}

/// Asks the mock every millisecond until `done`; `None` where it was not within `limit`.
fn poll(mock: &Mock, limit: Duration, done: impl Fn(&Stats) -> bool) -> Result<Option<Stats>, String> {
    let begin = Instant::now();
    loop {
        let stats = mock.stats()?;
        if done(&stats) {
            return Ok(Some(stats));
        }
        if begin.elapsed() > limit {
            return Ok(None);
        }
        sleep(Duration::from_millis(1));
    }
}
