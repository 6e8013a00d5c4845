//! Running a job once per cluster.
//!
//! Owns the order: the lease row decides who may and when (by the database's clock, with a token that fences whoever is too
//! slow); then, on Postgres, a session's advisory lock on a connection of its own; then the job, under a deadline. The lock is
//! never taken twice and fences nothing. A run is dropped at once when its lock's session stops answering, its lease is
//! another's, this instance may no longer admit, or its time is over; what it writes late is refused by its token. Losers
//! skip the turn.

use std::{error::Error, sync::Arc, time::Duration};

use crate::{
    admission::Lease,
    storage::{
        Sql, StorageError,
        sql::{JobLease, JobState, Lock, TryLock},
    },
    telemetry::{JobEnd, Metrics},
};

/// How often a run asks whether it may go on.
const BEAT: Duration = Duration::from_secs(5);

/// How long the answer may take.
const ANSWER: Duration = Duration::from_secs(2);

/// A job of the whole cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Job {
    /// Its lease row, its lock and its label.
    pub(super) name: &'static str,
    /// Between the beginnings of two runs.
    pub(super) every: Duration,
    /// The longest that a run may take; less than `every`.
    pub(super) hold: Duration,
}

/// Where jobs of the cluster run.
#[derive(Clone)]
pub(super) struct Cluster {
    pub(super) sql: Sql,
    pub(super) lease: Lease,
    pub(super) metrics: Arc<Metrics>,
    /// For people who look at the lease row.
    pub(super) holder: String,
}

/// What became of a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// Not due yet, or this instance may not.
    Rests,
    /// How it ended.
    Ended(JobEnd),
}

impl Job {
    /// How often to look whether it is due.
    pub(super) fn look(&self) -> Duration {
        (self.every / 10).clamp(Duration::from_secs(1), Duration::from_mins(1)).min(self.every)
    }

    /// So often a run asks whether it may go on.
    fn beat(&self) -> Duration {
        BEAT.min(self.hold / 4)
    }

    /// So long the lease row is held from each beat: a crash delays the next run by this and not by a whole `hold`.
    fn holds(&self) -> Duration {
        (self.beat() * 3).min(self.hold)
    }

    /// After a run that came to no end: nobody tries again at once.
    fn pause(&self) -> Duration {
        self.every / 10
    }
}

impl Cluster {
    /// Runs a job if it is due and nobody else does.
    pub(super) async fn try_run<E: Error + 'static>(
        &self,
        job: Job,
        work: impl AsyncFnOnce(JobLease) -> Result<(), E>,
    ) -> Tried {
        if !self.lease.is_live() {
            return Tried::Rests;
        }
        let tried = match self.turn(job, work).await {
            Ok(tried) => tried,
            Err(error) => {
                tracing::warn!(job = job.name, error = &error as &dyn Error, "a job's lease is not known");
                Tried::Ended(JobEnd::Failed)
            }
        };
        if let Tried::Ended(end) = tried {
            self.metrics.count_job(job.name, end);
        }
        tried
    }

    async fn turn<E: Error + 'static>(
        &self,
        job: Job,
        work: impl AsyncFnOnce(JobLease) -> Result<(), E>,
    ) -> Result<Tried, StorageError> {
        let (state, age) = self.sql.job_state(job.name, job.every).await?;
        if let Some(age) = age {
            self.metrics.set_job_age(job.name, age);
        }
        match state {
            JobState::Resting => return Ok(Tried::Rests),
            JobState::Held => return Ok(Tried::Ended(JobEnd::Skipped)),
            JobState::Due => {}
        }
        // From before the lease is taken: this side's deadline comes before the database's.
        let deadline = tokio::time::Instant::now() + job.hold;
        let Some(lease) = self.sql.take_job(job.name, &self.holder, job.every, job.holds()).await? else {
            return Ok(Tried::Ended(JobEnd::Skipped));
        };
        let mut lock = match self.sql.try_lock(&format!("job/{}", job.name)).await {
            Ok(TryLock::Held(lock)) => Some(lock),
            Ok(TryLock::Free) => None,
            // Whoever lost its lease and hangs may hold it still.
            Ok(TryLock::Taken) => {
                self.rest(job, lease).await;
                return Ok(Tried::Ended(JobEnd::Skipped));
            }
            Err(error) => {
                self.rest(job, lease).await;
                return Err(error);
            }
        };
        let end = self.work(job, lease, lock.as_mut(), deadline, work).await;
        let end = self.conclude(job, lease, end).await;
        match (lock, end) {
            // Its session may be gone: closing the connection is all that is certain.
            (Some(lock), JobEnd::Lost) => drop(lock),
            (Some(lock), _) => lock.release().await,
            (None, _) => {}
        }
        Ok(Tried::Ended(end))
    }

    async fn work<E: Error + 'static>(
        &self,
        job: Job,
        lease: JobLease,
        lock: Option<&mut Lock>,
        deadline: tokio::time::Instant,
        work: impl AsyncFnOnce(JobLease) -> Result<(), E>,
    ) -> JobEnd {
        tokio::select! {
            done = work(lease) => match done {
                Ok(()) => JobEnd::Ran,
                Err(error) => {
                    tracing::warn!(job = job.name, error = &error as &dyn Error, "a job failed");
                    JobEnd::Failed
                }
            },
            () = tokio::time::sleep_until(deadline) => {
                tracing::error!(job = job.name, hold_ms = job.hold.as_millis(), "a job took too long and was ended");
                JobEnd::Overran
            }
            () = self.lost(job, lease, lock) => {
                tracing::warn!(job = job.name, "a job was ended: its lease or its lock is lost");
                JobEnd::Lost
            }
            () = self.lease.lost() => {
                tracing::warn!(job = job.name, "a job was ended: this instance has no lease any more");
                JobEnd::Lost
            }
        }
    }

    /// Comes back when the run may not go on. Asks the lock's own session, and never locks again: locks stack.
    async fn lost(&self, job: Job, lease: JobLease, mut lock: Option<&mut Lock>) {
        let limit = ANSWER.min(job.beat());
        loop {
            tokio::time::sleep(job.beat()).await;
            if let Some(lock) = &mut lock
                && !matches!(tokio::time::timeout(limit, lock.is_held()).await, Ok(true))
            {
                return;
            }
            let renewed = self.sql.renew_job(job.name, lease.token, job.holds(), job.hold);
            if !matches!(tokio::time::timeout(limit, renewed).await, Ok(Ok(true))) {
                return;
            }
        }
    }

    /// Says in the lease row what became of it; a run whose lease is another's by now does not count.
    async fn conclude(&self, job: Job, lease: JobLease, end: JobEnd) -> JobEnd {
        if end != JobEnd::Ran {
            self.rest(job, lease).await;
            return end;
        }
        match self.sql.finish_job(job.name, lease.token).await {
            Ok(true) => JobEnd::Ran,
            Ok(false) => JobEnd::Lost,
            Err(error) => {
                tracing::warn!(job = job.name, error = &error as &dyn Error, "the end of a job was not noted");
                JobEnd::Failed
            }
        }
    }

    async fn rest(&self, job: Job, lease: JobLease) {
        if let Err(error) = self.sql.rest_job(job.name, lease.token, job.pause()).await {
            // It runs out by itself.
            tracing::debug!(job = job.name, error = &error as &dyn Error, "a job's lease was not given back");
        }
    }
}
