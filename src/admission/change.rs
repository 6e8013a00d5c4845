//! A change: any write that can alter a decision.
//!
//! Owns its transaction: read the configuration under the lock, let a pure function say what to write, move the version,
//! append the entry, commit in the same flight. Never acknowledged before it is known. A configuration whose rows do not
//! hash to the head's digest is refused as tampered. An unknown commit is looked up under the same id; if it is not
//! there it is withdrawn, so that it cannot appear later.

use serde_json::Value;
use tokio::sync::oneshot;

use super::{outbox::Outbox, question::Question, writer::ChainState};
use crate::{
    audit::{Entry, Head as ChainHead, Header},
    crypto::SigningKey,
    domain::{
        ids::{EntryId, OrgId},
        rows::{ConfigRows, RowError, Write},
        stamp::ConfigStamp,
    },
    storage::{
        Sql, StorageError, WriteTx,
        sql::{Head, NewEntry},
    },
    tenants::{OrgConfig, TenantsError},
};

/// What a change writes and how it is recorded.
#[derive(Debug)]
pub struct ChangeSet {
    /// The entry's kind, e.g. `policy.published`.
    pub kind: &'static str,
    /// The entry's content, without secrets; an object. `produced` is added.
    pub content: Value,
    /// The rows.
    pub writes: Vec<Write>,
}

/// Why the pure function of a change refuses; nothing is written.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ChangeRefused {
    /// What is to be changed does not exist.
    #[error("{0}")]
    NotFound(String),
    /// It collides with what exists.
    #[error("{message}")]
    Conflict {
        /// A word for programs.
        code: &'static str,
        /// A sentence for people.
        message: String,
    },
    /// It is not valid.
    #[error("{message}")]
    Invalid {
        /// A sentence for people.
        message: String,
        /// Findings, for programs.
        details: Value,
    },
    /// A defect of ours.
    #[error("the change cannot be written")]
    Internal,
}

impl From<RowError> for ChangeRefused {
    fn from(error: RowError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "a record cannot be written");
        Self::Internal
    }
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// Its function refused.
    #[error("the change was refused")]
    Refused(#[source] ChangeRefused),
    /// The stored configuration was edited behind the product's back.
    #[error("the stored configuration does not match its digest: it was edited outside of tappass")]
    Tampered,
    /// The stored configuration does not make sense.
    #[error("the stored configuration does not make sense")]
    Tenants(#[source] TenantsError),
    /// The database does not answer.
    #[error("the database does not answer")]
    Storage(#[source] StorageError),
    /// The gateway is shutting down.
    #[error("the gateway is shutting down")]
    Stopped,
    /// Nobody knows yet: the database went away during the commit. The chain will say, under this id.
    #[error("the outcome of the change `{0}` is not known yet: the database went away during the commit")]
    Unknown(EntryId),
    /// The commit failed, and this id can no longer be committed.
    #[error("the change was not committed")]
    Withdrawn,
}

/// The acknowledgement of a change.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The entry that records it.
    pub entry: EntryId,
    /// Its place in the chain.
    pub seq: u64,
    /// The configuration that decides from now on.
    pub stamp: ConfigStamp,
}

/// The pure function of a change. It is given the configuration as it is under the lock; `None`: a new organization.
pub(super) type MakeChange = Box<dyn FnOnce(Option<&OrgConfig>) -> Result<ChangeSet, ChangeRefused> + Send>;

/// A change on its way.
pub(super) struct ChangeJob {
    pub(super) org: OrgId,
    pub(super) make: MakeChange,
    pub(super) reply: oneshot::Sender<Result<Receipt, ChangeError>>,
}

/// What the writer needs to make a change.
pub(super) struct Maker<'a> {
    pub(super) sql: &'a Sql,
    pub(super) outbox: &'a Outbox,
    pub(super) key: &'a SigningKey,
}

impl Maker<'_> {
    /// Makes the change; on success the chain's state is that of the new head.
    pub(super) async fn make(
        &self,
        org: &OrgId,
        make: MakeChange,
        chain: &mut ChainState,
    ) -> Result<Receipt, ChangeError> {
        let mut tx = self.sql.begin().await.map_err(ChangeError::Storage)?;
        let head = tx.head(org).await.map_err(ChangeError::Storage)?;
        let rows = tx.config_rows(org).await.map_err(ChangeError::Storage)?;
        let stamp = head.as_ref().map_or(ConfigStamp::NONE, |head| head.stamp);
        if stamp.version > 0 && rows.digest() != stamp.digest {
            return Err(ChangeError::Tampered);
        }
        let config = if rows.is_empty() { None } else { Some(OrgConfig::read(&rows).map_err(ChangeError::Tenants)?) };
        // A defect in one change must not take the writer with it.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| make(config.as_ref())));
        let set = outcome.unwrap_or(Err(ChangeRefused::Internal)).map_err(ChangeError::Refused)?;
        // From here on the id ends as an entry: if anything below fails, dropping the question withdraws it.
        let question = Question::new(self.outbox.next_id(org), self.outbox.clone());
        let step = self.step(question.id(), &set, &rows, head.as_ref())?;
        self.write(&mut tx, question.id(), &set, &step, chain).await.map_err(ChangeError::Storage)?;
        if let Err(error) = tx.commit().await {
            tracing::error!(error = &error as &dyn std::error::Error, "the outcome of a change is unknown");
            return self.known(question, step, chain).await;
        }
        chain.seen = ChainHead { seq: step.head.seq, link: step.head.link };
        let (entry, _) = question.concluded();
        Ok(Receipt { entry, seq: step.head.seq, stamp: step.head.stamp })
    }

    fn step(&self, id: &EntryId, set: &ChangeSet, rows: &ConfigRows, head: Option<&Head>) -> Result<Step, ChangeError> {
        let stamp = head.map_or(ConfigStamp::NONE, |head| head.stamp);
        let digest = rows.after(&set.writes).digest();
        let mut content = set.content.clone();
        let produced = serde_json::json!({ "digest": digest, "version": stamp.version + 1 });
        let Some(fields) = content.as_object_mut() else { return Err(ChangeError::Refused(ChangeRefused::Internal)) };
        fields.insert("produced".to_owned(), produced);
        let entry = self.entry(id, set.kind, stamp, &content)?;
        let before = head.map_or(ChainHead::START, |head| ChainHead { seq: head.seq, link: head.link });
        let after = before.next(&entry.digest);
        let stamp = ConfigStamp { version: stamp.version + 1, tag: after.link, digest };
        let kid = self.key.public().kid().to_owned();
        Ok(Step { entry, head: Head { seq: after.seq, link: after.link, stamp, kid } })
    }

    fn entry(&self, id: &EntryId, kind: &str, config: ConfigStamp, content: &Value) -> Result<Entry, ChangeError> {
        let time = self.outbox.clock().now();
        let header = Header { org: &id.org, boot: &id.boot, counter: id.counter, config, kind, time };
        Entry::build(&header, content).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, kind, "a change's entry cannot be written");
            ChangeError::Refused(ChangeRefused::Internal)
        })
    }

    /// Writes rows, entry, batch and head into the transaction.
    async fn write(
        &self,
        tx: &mut WriteTx,
        id: &EntryId,
        set: &ChangeSet,
        step: &Step,
        chain: &mut ChainState,
    ) -> Result<(), StorageError> {
        let Head { seq, link, .. } = step.head;
        let Entry { body, digest } = &step.entry;
        let batch = chain.sign(&id.org, &id.boot, vec![(id.counter, *digest)], self.key)?;
        tx.apply(&id.org, &set.writes).await?;
        let entry = NewEntry { seq, id, kind: set.kind, body, digest: *digest, link };
        tx.append(&id.org, &batch, &[entry], &step.head).await
    }

    /// Asks what became of an unknown commit.
    async fn known(&self, question: Question, step: Step, chain: &mut ChainState) -> Result<Receipt, ChangeError> {
        let unknown = |_| ChangeError::Unknown(question.id().clone());
        let mut tx = self.sql.begin().await.map_err(unknown)?;
        let found = tx.find_entry(question.id()).await.map_err(unknown)?;
        drop(tx);
        if found.is_none() {
            // Dropping the question withdraws the id, so that the lost attempt cannot appear later.
            return Err(ChangeError::Withdrawn);
        }
        chain.seen = ChainHead { seq: step.head.seq, link: step.head.link };
        let (entry, _) = question.concluded();
        Ok(Receipt { entry, seq: step.head.seq, stamp: step.head.stamp })
    }
}

/// The entry and the head that a change makes.
struct Step {
    entry: Entry,
    head: Head,
}
