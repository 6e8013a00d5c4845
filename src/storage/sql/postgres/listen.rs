//! Notifications: a hint that an organization's configuration changed.
//!
//! Owns one connection that listens. Nothing depends on it: a hint that is lost costs the next request one retry, and streams
//! are looked after by the job that asks for versions. A lost connection is an error that the caller answers by listening
//! anew.

use sqlx::postgres::PgListener;

use super::{Postgres, StorageError};
use crate::{domain::ids::OrgId, storage::sql::Sql};

/// What changes are announced on.
const CHANNEL: &str = "tappass_config";

/// A connection that listens.
pub struct Listener(PgListener);

impl Postgres {
    async fn listen(&self) -> Result<Listener, StorageError> {
        let pool = sqlx::postgres::PgPoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .acquire_timeout(super::CONNECT)
            .connect_lazy_with(self.options.clone());
        let mut listener = PgListener::connect_with(&pool).await?;
        listener.listen(CHANNEL).await?;
        Ok(Listener(listener))
    }
}

impl Sql {
    /// Listens for changes; `None` where one process owns the database and hears of its own changes anyway.
    pub async fn listen(&self) -> Result<Option<Listener>, StorageError> {
        match self.postgres() {
            Some(postgres) => postgres.listen().await.map(Some),
            None => Ok(None),
        }
    }
}

impl Listener {
    /// The next organization that changed; `None`: the connection was lost, so any may have.
    pub async fn changed(&mut self) -> Result<Option<OrgId>, StorageError> {
        loop {
            let Some(hint) = self.0.try_recv().await? else { return Ok(None) };
            if let Ok(org) = OrgId::parse(hint.payload()) {
                return Ok(Some(org));
            }
        }
    }
}
