//! What is going on and what went on: read at GET /stats, zeroed by POST /stats/reset.

use std::sync::{
    Arc,
    atomic::{
        AtomicI64, AtomicU64,
        Ordering::{Acquire, Relaxed, Release},
    },
};

use crate::shape::now_ns;

#[derive(Default)]
pub struct Stats {
    pub started: AtomicU64,
    pub completed: AtomicU64,
    /// The client went away before its answer was handed over whole.
    pub cancelled: AtomicU64,
    /// The monotonic clock (ns) of the last such departure: another process of this machine can subtract its own.
    pub cancelled_at: AtomicU64,
    pub faults: AtomicU64,
    pub unauthorized: AtomicU64,
    pub pieces: AtomicU64,
    pub in_flight: AtomicI64,
    pub in_flight_max: AtomicI64,
    pub connections: AtomicI64,
    pub connections_total: AtomicU64,
}

impl Stats {
    pub fn json(&self) -> String {
        format!(
            "{{\"in_flight\":{},\"in_flight_max\":{},\"started\":{},\"completed\":{},\"cancelled\":{},\
             \"cancelled_at_ns\":{},\"faults\":{},\"unauthorized\":{},\"pieces\":{},\"connections\":{},\"connections_total\":{}}}\n",
            self.in_flight.load(Relaxed),
            self.in_flight_max.load(Relaxed),
            self.started.load(Relaxed),
            self.completed.load(Relaxed),
            self.cancelled.load(Acquire),
            self.cancelled_at.load(Relaxed),
            self.faults.load(Relaxed),
            self.unauthorized.load(Relaxed),
            self.pieces.load(Relaxed),
            self.connections.load(Relaxed),
            self.connections_total.load(Relaxed),
        )
    }

    /// Gauges stay as they are.
    pub fn reset(&self) {
        for c in [
            &self.started,
            &self.completed,
            &self.cancelled,
            &self.faults,
            &self.unauthorized,
            &self.pieces,
            &self.connections_total,
        ] {
            c.store(0, Relaxed);
        }
        self.in_flight_max.store(self.in_flight.load(Relaxed), Relaxed);
    }
}

/// Held from a request's arrival until its answer is handed over; dropped sooner, it counts as cancelled.
pub struct InFlight {
    stats: Arc<Stats>,
    over: bool,
}

impl InFlight {
    pub fn new(stats: &Arc<Stats>) -> Self {
        stats.started.fetch_add(1, Relaxed);
        let now = stats.in_flight.fetch_add(1, Relaxed) + 1;
        stats.in_flight_max.fetch_max(now, Relaxed);
        InFlight { stats: stats.clone(), over: false }
    }

    pub fn sent(&self) {
        self.stats.pieces.fetch_add(1, Relaxed);
    }

    pub fn complete(&mut self) {
        if !self.over {
            self.over = true;
            self.stats.completed.fetch_add(1, Relaxed);
            self.stats.in_flight.fetch_sub(1, Relaxed);
        }
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        if !self.over {
            self.stats.cancelled_at.store(now_ns(), Relaxed);
            self.stats.cancelled.fetch_add(1, Release);
            self.stats.in_flight.fetch_sub(1, Relaxed);
        }
    }
}
