//! Table `job_lease`: who may run a job that runs once per cluster, and when it last ran.
//!
//! Owns taking, renewing and giving back, all by the database's clock, and the tokens that fence a holder who was too slow.
//! A run counts from its beginning, so that a slow one does not push the next ones back. Never waits for a holder.

use std::time::Duration;

use super::{Sql, StorageError, args, by_clock, micros};
use crate::domain::clock::Micros;

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JobState {
    /// It is due and nobody runs it.
    Due,
    /// Somebody runs it, or ran it and did not come to its end; the lease has not run out.
    Held,
    /// It ran a short while ago.
    Resting,
}

/// The right to run a job once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JobLease {
    /// Greater than that of every earlier run of any job.
    pub token: u64,
    /// When it was taken.
    pub started_at: Micros,
}

impl Sql {
    /// How a job stands, and how long ago the last run began that came to its end. Reads only: asking costs no write.
    pub async fn job_state(&self, name: &str, every: Duration) -> Result<(JobState, Option<Duration>), StorageError> {
        let text = by_clock!(self, "SELECT ", " - ran_at, ran_at, lease_until - ", " FROM job_lease WHERE name = $1");
        let rows = self.read(text, args![name]).await?;
        let Some(row) = rows.first() else { return Ok((JobState::Due, None)) };
        let age = Duration::from_micros(u64::try_from(row.int(0)?).unwrap_or(0));
        let ran = (row.int(1)? > 0).then_some(age);
        let state = match (row.int(2)? > 0, ran.is_some_and(|age| age < every)) {
            (true, _) => JobState::Held,
            (false, true) => JobState::Resting,
            (false, false) => JobState::Due,
        };
        Ok((state, ran))
    }

    /// Takes a job's lease for `holds` if it is due and nobody has it.
    pub async fn take_job(
        &self,
        name: &str,
        holder: &str,
        every: Duration,
        holds: Duration,
    ) -> Result<Option<JobLease>, StorageError> {
        let text = if self.is_shared() {
            "INSERT INTO job_lease AS j (name, token, holder, lease_until, started_at, ran_at) \
             VALUES ($1, nextval('job_token'), $2, tappass_now() + $3, tappass_now(), 0) \
             ON CONFLICT (name) DO UPDATE SET token = greatest(excluded.token, j.token + 1), \
             holder = excluded.holder, lease_until = tappass_now() + $3, started_at = tappass_now() \
             WHERE j.lease_until <= tappass_now() AND j.ran_at + $4 <= tappass_now() RETURNING token, started_at"
        } else {
            "INSERT INTO job_lease AS j (name, token, holder, lease_until, started_at, ran_at) \
             SELECT $1, coalesce(max(token), 0) + 1, $2, CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $3, \
             CAST(unixepoch('subsec') * 1000000 AS INTEGER), 0 FROM job_lease WHERE true \
             ON CONFLICT (name) DO UPDATE SET token = excluded.token, holder = excluded.holder, \
             lease_until = excluded.lease_until, started_at = excluded.started_at \
             WHERE j.lease_until <= excluded.started_at AND j.ran_at + $4 <= excluded.started_at \
             RETURNING token, started_at"
        };
        let rows = self.write(text, args![name, holder, micros(holds), micros(every)]).await?;
        let lease = |row: &super::Row| Ok(JobLease { token: row.count("job_lease", 0)?, started_at: row.int(1)? });
        rows.first().map(lease).transpose()
    }

    /// Holds on for so long from now, at most until `cap` after the beginning. False: it is somebody else's by now, or over.
    pub async fn renew_job(
        &self,
        name: &str,
        token: u64,
        holds: Duration,
        cap: Duration,
    ) -> Result<bool, StorageError> {
        let text = if self.is_shared() {
            "UPDATE job_lease SET lease_until = least(tappass_now() + $3, started_at + $4) \
             WHERE name = $1 AND token = $2 AND lease_until > tappass_now() RETURNING 1"
        } else {
            "UPDATE job_lease SET lease_until = \
             min(CAST(unixepoch('subsec') * 1000000 AS INTEGER) + $3, started_at + $4) \
             WHERE name = $1 AND token = $2 \
             AND lease_until > CAST(unixepoch('subsec') * 1000000 AS INTEGER) RETURNING 1"
        };
        Ok(!self.write(text, args![name, token, micros(holds), micros(cap)]).await?.is_empty())
    }

    /// The run came to its end. False: the lease is somebody else's by now, and the run does not count.
    pub async fn finish_job(&self, name: &str, token: u64) -> Result<bool, StorageError> {
        let text =
            "UPDATE job_lease SET ran_at = started_at, lease_until = 0 WHERE name = $1 AND token = $2 RETURNING 1";
        Ok(!self.write(text, args![name, token]).await?.is_empty())
    }

    /// The run did not come to its end; nobody tries again for a while.
    pub async fn rest_job(&self, name: &str, token: u64, pause: Duration) -> Result<(), StorageError> {
        let text = by_clock!(self, "UPDATE job_lease SET lease_until = ", " + $3 WHERE name = $1 AND token = $2");
        self.write(text, args![name, token, micros(pause)]).await?;
        Ok(())
    }

    /// Whether a token is still the one.
    pub async fn is_my_job(&self, name: &str, token: u64) -> Result<bool, StorageError> {
        let text = by_clock!(self, "SELECT 1 FROM job_lease WHERE name = $1 AND token = $2 AND lease_until > ", "");
        Ok(!self.read(text, args![name, token]).await?.is_empty())
    }
}
