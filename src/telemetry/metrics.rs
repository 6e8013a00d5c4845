//! Numbers for Prometheus.
//!
//! Owns every metric's name. Labels are steps, outcomes and words out of closed lists, so their number is bounded.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::domain::steps;

/// How a request ended, as a label.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Outcome {
    /// `completed`, `refused`, `client_closed`, …
    pub outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabel {
    step: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct JobLabel {
    job: &'static str,
}

/// How a turn at a job of the whole cluster ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobEnd {
    /// It came to its end.
    Ran,
    /// Another instance was at it.
    Skipped,
    /// The lease or its lock was lost on the way.
    Lost,
    /// It took longer than it may.
    Overran,
    /// It failed.
    Failed,
}

/// Counters of jobs, in the order of `JobEnd`.
const JOB_ENDS: [(&str, &str); 5] = [
    ("job_runs", "Runs of a job that came to their end here"),
    ("job_skipped", "Turns at a job that another instance had"),
    ("job_lost", "Runs of a job that lost their lease"),
    ("job_overran", "Runs of a job that took too long"),
    ("job_failed", "Runs of a job that failed"),
];

/// Every metric.
pub struct Metrics {
    registry: Registry,
    exchanges: Family<Outcome, Counter>,
    refusals: Family<StepLabel, Counter>,
    steps: Vec<Histogram>,
    /// From the body read to the decision.
    pub decision: Histogram,
    /// From the decision to its durable record.
    pub admission: Histogram,
    /// Requests being answered.
    pub running: Gauge,
    /// 1 while Redis is configured and away.
    pub redis_degraded: Gauge,
    /// Unauthenticated answers.
    pub unauthenticated: Counter,
    /// Nano-dollars settled as `unknown` by recovery.
    pub recovered: Counter<u64, AtomicU64>,
    /// Chains in which the last self-verification here found something wrong.
    pub audit_findings: Gauge,
    jobs: [Family<JobLabel, Counter>; 5],
    job_age: Family<JobLabel, Gauge>,
}

/// From 5 µs to 10 s.
const BUCKETS: [f64; 18] =
    [5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 1.5e-3, 2e-3, 3e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.2, 1.0, 10.0];

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("tappass");
        let exchanges = Family::<Outcome, Counter>::default();
        registry.register("exchanges", "Governed calls by outcome", exchanges.clone());
        let refusals = Family::<StepLabel, Counter>::default();
        registry.register("refusals", "Refused calls by step", refusals.clone());
        let by_step = Family::<StepLabel, Histogram>::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register_with_unit("step", "Time in a step", Unit::Seconds, by_step.clone());
        let label = |spec: &steps::StepSpec| StepLabel { step: spec.id };
        let steps = steps::all().iter().map(|spec| by_step.get_or_create(&label(spec)).clone()).collect();
        let decision = Histogram::new(BUCKETS);
        registry.register_with_unit("decision", "Time to decide", Unit::Seconds, decision.clone());
        let admission = Histogram::new(BUCKETS);
        registry.register_with_unit("admission", "Time to the durable record", Unit::Seconds, admission.clone());
        let running: Gauge = Gauge::default();
        registry.register("requests_running", "Requests being answered", running.clone());
        let redis_degraded: Gauge = Gauge::default();
        registry.register("redis_degraded", "1 while Redis is configured and away", redis_degraded.clone());
        let unauthenticated = Counter::default();
        registry.register("unauthenticated", "Answers with 401", unauthenticated.clone());
        let recovered = Counter::default();
        registry.register("recovered_admissions", "Admissions closed as unknown", recovered.clone());
        let audit_findings: Gauge = Gauge::default();
        let chains = "Chains in which self-verification found something wrong";
        registry.register("audit_findings", chains, audit_findings.clone());
        let jobs = JOB_ENDS.map(|(name, help)| {
            let family = Family::<JobLabel, Counter>::default();
            registry.register(name, help, family.clone());
            family
        });
        let job_age = Family::<JobLabel, Gauge>::default();
        let age = "Seconds since the last run anywhere began that came to its end";
        registry.register_with_unit("job_last_success_age", age, Unit::Seconds, job_age.clone());
        Self {
            registry,
            exchanges,
            refusals,
            steps,
            decision,
            admission,
            running,
            redis_degraded,
            unauthenticated,
            recovered,
            audit_findings,
            jobs,
            job_age,
        }
    }
}

impl Metrics {
    /// Counts the end of a governed call.
    pub fn count_outcome(&self, outcome: &'static str) {
        self.exchanges.get_or_create(&Outcome { outcome }).inc();
    }

    /// Counts a refusal by the step that refused; other words are counted as `policy`.
    pub fn count_refusal(&self, step: &str) {
        let step = steps::get(step).map_or("policy", |spec| spec.id);
        self.refusals.get_or_create(&StepLabel { step }).inc();
    }

    /// Counts how a turn at a job ended.
    pub fn count_job(&self, job: &'static str, end: JobEnd) {
        let [ran, skipped, lost, overran, failed] = &self.jobs;
        let family = match end {
            JobEnd::Ran => ran,
            JobEnd::Skipped => skipped,
            JobEnd::Lost => lost,
            JobEnd::Overran => overran,
            JobEnd::Failed => failed,
        };
        family.get_or_create(&JobLabel { job }).inc();
    }

    /// How long ago a job ran, on whichever instance: one that others have for ever must not look like health.
    pub fn set_job_age(&self, job: &'static str, age: Duration) {
        let seconds = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
        self.job_age.get_or_create(&JobLabel { job }).set(seconds);
    }

    /// Records the time in a step.
    pub fn observe_step(&self, spec: &steps::StepSpec, took: Duration) {
        if let Some(histogram) = self.steps.get(usize::from(spec.number).wrapping_sub(1)) {
            histogram.observe(took.as_secs_f64());
        }
    }

    /// The text that Prometheus reads.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        if encode(&mut text, &self.registry).is_err() {
            text.clear();
        }
        text
    }
}
