//! Time as a parameter.
//!
//! Owns the one door to the system's clocks. Wall time names moments in records; running time (`CLOCK_BOOTTIME`, which
//! goes on in suspend) bounds permits and leases. Never compares wall clocks of two machines.

use std::{
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

/// Microseconds since 1970, UTC.
pub type Micros = i64;

/// Running time since the machine's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Running(pub u64);

impl Running {
    /// The moment `duration` later, in nanoseconds.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }
}

/// Where time comes from.
pub trait Clock: Send + Sync + 'static {
    /// Wall time.
    fn now(&self) -> Micros;
    /// Running time, in nanoseconds.
    fn running(&self) -> Running;
}

/// The system's clocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Micros {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        time.tv_sec * 1_000_000 + time.tv_nsec / 1_000
    }

    fn running(&self) -> Running {
        let time = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        Running(u64::try_from(time.tv_sec * 1_000_000_000 + time.tv_nsec).unwrap_or(0))
    }
}

/// A clock that moves when it is told to; part of the test surface of `app`.
#[derive(Debug, Default)]
pub struct ManualClock {
    now: AtomicI64,
    running: AtomicU64,
}

impl ManualClock {
    /// Stands at the given wall time.
    pub fn at(now: Micros) -> Self {
        Self { now: AtomicI64::new(now), running: AtomicU64::new(1_000_000_000) }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, by: Duration) {
        self.now.fetch_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX), Ordering::SeqCst);
        self.running.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        self.now.load(Ordering::SeqCst)
    }

    fn running(&self) -> Running {
        Running(self.running.load(Ordering::SeqCst))
    }
}

/// RFC 3339 in UTC with microseconds, for people and JSON.
pub fn rfc3339(at: Micros) -> String {
    let nanos = i128::from(at) * 1_000;
    let moment = time::OffsetDateTime::from_unix_timestamp_nanos(nanos).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    moment.format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}
