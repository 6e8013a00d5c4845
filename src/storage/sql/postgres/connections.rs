//! A small set of connections.
//!
//! Owns how many there are and giving them out. A pool of the driver would ping at every return, which is a round trip per
//! append; here a connection comes back only after a use that ended, and is closed otherwise (an error of the network, a time
//! limit, a caller who left), so there is nothing to ask it. Waiting for one has the same limit as using one.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{Connection as _, Executor as _, PgConnection, postgres::PgConnectOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{is_lost, timed_out};
use crate::storage::sql::StorageError;

/// A set of connections; a handle.
#[derive(Clone)]
pub(in crate::storage::sql) struct Connections(Arc<Set>);

struct Set {
    idle: Mutex<Vec<PgConnection>>,
    permits: Arc<Semaphore>,
    options: PgConnectOptions,
    limit: Duration,
}

impl Connections {
    pub(super) fn new(options: PgConnectOptions, most: usize, limit: Duration) -> Self {
        let permits = Arc::new(Semaphore::new(most.max(1)));
        Self(Arc::new(Set { idle: Mutex::default(), permits, options, limit }))
    }

    /// A connection that is free, or a new one.
    pub(in crate::storage::sql) async fn take(&self) -> Result<Line, StorageError> {
        let unavailable = || StorageError::Unavailable(timed_out());
        let permit = tokio::time::timeout(self.0.limit, Arc::clone(&self.0.permits).acquire_owned()).await;
        let permit = permit.map_err(|_| unavailable())?.map_err(|_| unavailable())?;
        let idle = self.0.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let (connection, used) = match idle {
            Some(connection) => (connection, true),
            None => (super::connect(&self.0.options).await?, false),
        };
        Ok(Line {
            connection: Some(connection),
            used,
            in_transaction: false,
            set: Arc::clone(&self.0),
            _permit: permit,
        })
    }

    /// Closes those that are idle; the others close when their use ends.
    pub(super) async fn close(&self) {
        self.0.permits.close();
        let idle = std::mem::take(&mut *self.0.idle.lock().unwrap_or_else(PoisonError::into_inner));
        for connection in idle {
            if let Err(error) = connection.close().await {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection did not close");
            }
        }
    }
}

/// A connection in use. Dropped while a use or a transaction has not ended, it is closed; else it is free again.
pub(in crate::storage::sql) struct Line {
    connection: Option<PgConnection>,
    used: bool,
    in_transaction: bool,
    set: Arc<Set>,
    _permit: OwnedSemaphorePermit,
}

impl Line {
    /// Whether it was used before, and may have gone stale since.
    pub(in crate::storage::sql) fn was_used(&self) -> bool {
        self.used
    }

    /// One use, within the limit. A connection that is lost, or whose use did not end in time, is closed.
    pub(in crate::storage::sql) async fn within<T>(
        &mut self,
        work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        // Taken out, so that a drop of this future closes it.
        let Some(mut connection) = self.connection.take() else { return Err(sqlx::Error::PoolClosed) };
        let result = tokio::time::timeout(self.set.limit, work(&mut connection)).await;
        let result = result.unwrap_or(Err(timed_out()));
        let keep = match &result {
            Ok(_) => true,
            Err(error) => !is_lost(error),
        };
        if keep {
            self.connection = Some(connection);
        } else {
            // Whatever took this one has most likely taken those that idle: none of them is to fail a use of its own.
            self.set.idle.lock().unwrap_or_else(PoisonError::into_inner).clear();
        }
        result
    }

    /// Opens a transaction in which everything read is of one moment.
    pub(in crate::storage::sql) async fn begin_reading(&mut self) -> Result<(), sqlx::Error> {
        self.in_transaction = true;
        // Whoever only reads locks nobody out, and may have to think about what it has read: a verifier does.
        let begin = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; \
                     SET LOCAL idle_in_transaction_session_timeout = '300s'";
        self.within(async |c| c.execute(begin).await.map(drop)).await
    }

    /// Ends it.
    pub(in crate::storage::sql) async fn end_reading(mut self) {
        match self.within(async |c| c.execute("COMMIT").await.map(drop)).await {
            Ok(()) => self.in_transaction = false,
            Err(error) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a read transaction did not end");
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && !self.in_transaction
            && !self.set.permits.is_closed()
        {
            self.set.idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
        }
    }
}
