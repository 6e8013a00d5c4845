//! A change: any write that can alter a decision.
//!
//! Owns its transaction: read the configuration in one moment, let a pure function say what to write, then, under the lock,
//! find that the configuration is still the one that was read, write the rows, move the version, append the entry and
//! commit. If it is another by now the change is computed again. Never acknowledged before it is known. A
//! configuration whose rows do not hash to the head's digest is refused as tampered. A commit of unknown outcome is asked
//! again under the same id with the same bytes; if nobody answers it is withdrawn, so that it cannot appear later.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::Value;
use tokio_util::task::TaskTracker;

use super::{append::is_same_chain, outbox::Outbox, question::Question, run::Run};
use crate::{
    audit::{Entry, Head as ChainHead, Header, chain},
    crypto::SigningKey,
    domain::{
        digest::Digest,
        ids::{EntryId, OrgId},
        rows::{ConfigRows, RowError, Write},
        stamp::ConfigStamp,
    },
    storage::{
        Sql, StorageError,
        sql::{Appending, ChangeRow, Changed, Head, NewEntry, Seen},
    },
    tenants::{OrgConfig, TenantsError},
};

/// How often a change is computed again because another one came first.
const TRIES: u32 = 50;
/// How often a commit of unknown outcome is asked again at once.
const ASKS: u32 = 3;
/// How long a receipt waits for instances that have just been told, and how often it looks.
const SPREAD: Duration = Duration::from_millis(25);
const SPREAD_LOOK: Duration = Duration::from_millis(4);
/// Between two such.
const PAUSE: Duration = Duration::from_millis(100);

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
    /// The configuration changed each time before this change could be written.
    #[error("the configuration is changed too often at the same time; ask again")]
    Contended,
    /// The database lost what it had acknowledged: nothing may be built on it.
    #[error("history_lost: the database does not hold what it acknowledged earlier")]
    HistoryLost,
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
    /// How many instances live, and on how many of them it has been loaded; those that have not find out at their next
    /// admission.
    pub live: (u64, u64),
    /// Calls that were admitted before it and still run; `None`: the database did not say.
    pub older_calls: Option<u64>,
}

/// The pure function of a change. It is given the configuration as it is; `None`: a new organization. It may be asked again,
/// about a newer one.
type MakeChange = Box<dyn Fn(Option<&OrgConfig>) -> Result<ChangeSet, ChangeRefused> + Send + Sync>;

/// Makes changes, one at a time per organization and process.
pub struct Changes {
    sql: Sql,
    outbox: Outbox,
    key: Arc<SigningKey>,
    tasks: TaskTracker,
    turns: Mutex<HashMap<OrgId, Arc<tokio::sync::Mutex<()>>>>,
}

impl Changes {
    /// Over a database. Changes under way are awaited through `tasks`.
    pub fn new(sql: Sql, outbox: Outbox, key: Arc<SigningKey>, tasks: TaskTracker) -> Self {
        Self { sql, outbox, key, tasks, turns: Mutex::default() }
    }

    /// Commits a change; answers when it is known. Whoever asked may leave: the change goes on.
    pub(super) async fn make(
        self: &Arc<Self>,
        org: &OrgId,
        make: impl FnOnce(Option<&OrgConfig>) -> Result<ChangeSet, ChangeRefused> + Clone + Send + Sync + 'static,
    ) -> Result<Receipt, ChangeError> {
        let again = move |config: Option<&OrgConfig>| make.clone()(config);
        let (this, org, make): (_, _, MakeChange) = (Arc::clone(self), org.clone(), Box::new(again));
        let task = self.tasks.spawn(async move {
            let turn = this.turn(&org);
            let _one = turn.lock().await;
            this.one(&org, &make).await
        });
        task.await.unwrap_or(Err(ChangeError::Stopped))
    }

    /// How many instances live, and on how many of them a version is loaded; waits a moment for those that have just been
    /// told.
    pub(super) async fn spread(&self, org: &OrgId, version: u64) -> Result<(u64, u64), StorageError> {
        let until = tokio::time::Instant::now() + SPREAD;
        loop {
            let (live, loaded) = self.sql.live_on(org, version).await?;
            if loaded >= live || tokio::time::Instant::now() >= until {
                return Ok((live, loaded));
            }
            tokio::time::sleep(SPREAD_LOOK).await;
        }
    }

    /// How many calls of older versions still run.
    pub(super) async fn older_calls(&self, org: &OrgId, version: u64) -> Result<u64, StorageError> {
        Ok(self.sql.open_holds(org, version).await?.1)
    }

    fn turn(&self, org: &OrgId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(turns.entry(org.clone()).or_default())
    }

    async fn one(&self, org: &OrgId, make: &MakeChange) -> Result<Receipt, ChangeError> {
        // Until it is on record, dropping the question withdraws its id.
        let mut question: Option<(Arc<Run>, Question)> = None;
        for _ in 0..TRIES {
            let (head, rows) = self.configuration(org).await?;
            let config =
                if rows.is_empty() { None } else { Some(OrgConfig::read(&rows).map_err(ChangeError::Tenants)?) };
            // A defect in one change must not take the others with it.
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| make(config.as_ref())));
            let set = outcome.unwrap_or(Err(ChangeRefused::Internal)).map_err(ChangeError::Refused)?;
            let (run, asking) = question.get_or_insert_with(|| {
                let run = self.outbox.run();
                let id = run.next_id(org);
                (run, Question::new(id, self.outbox.clone()))
            });
            let id = asking.id().clone();
            let step = self.step(&id, &set, &rows, head.as_ref())?;
            match self.commit(run, &id, &set, &step).await? {
                Changed::Stored(seq, link) => {
                    run.sees(org, ChainHead { seq, link });
                    if let Some((_, question)) = question.take() {
                        question.concluded();
                    }
                    let stamp = ConfigStamp { tag: link, ..step.stamp };
                    return Ok(Receipt { entry: id, seq, stamp, live: (0, 0), older_calls: None });
                }
                Changed::Stale => {}
                Changed::Fenced => {
                    // The next attempt is another boot's, with an id of its own.
                    self.outbox.was_closed(run.boot().clone());
                    question = None;
                    tokio::time::sleep(PAUSE).await;
                }
                Changed::HistoryLost => return Err(ChangeError::HistoryLost),
            }
        }
        Err(ChangeError::Contended)
    }

    /// Head and rows of one moment; rows that were edited behind our back are refused.
    async fn configuration(&self, org: &OrgId) -> Result<(Option<Head>, ConfigRows), ChangeError> {
        let mut tx = self.sql.begin_read().await.map_err(ChangeError::Storage)?;
        let head = tx.head(org).await.map_err(ChangeError::Storage)?;
        let rows = tx.config_rows(org).await.map_err(ChangeError::Storage)?;
        tx.end().await;
        let stamp = head.as_ref().map_or(ConfigStamp::NONE, |head| head.stamp);
        if stamp.version > 0 && rows.digest() != stamp.digest {
            return Err(ChangeError::Tampered);
        }
        Ok((head, rows))
    }

    fn step(&self, id: &EntryId, set: &ChangeSet, rows: &ConfigRows, head: Option<&Head>) -> Result<Step, ChangeError> {
        let from = head.map_or(ConfigStamp::NONE, |head| head.stamp);
        let digest = rows.after(&set.writes).digest();
        let mut content = set.content.clone();
        let produced = serde_json::json!({ "digest": digest, "version": from.version + 1 });
        let Some(fields) = content.as_object_mut() else { return Err(ChangeError::Refused(ChangeRefused::Internal)) };
        fields.insert("produced".to_owned(), produced);
        let time = self.outbox.clock().now();
        let kind = set.kind;
        let header = Header { org: &id.org, boot: &id.boot, counter: id.counter, config: from, kind, time };
        let entry = Entry::build(&header, &content).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, kind, "a change's entry cannot be written");
            ChangeError::Refused(ChangeRefused::Internal)
        })?;
        // Its own tag is its entry's link, which only the lock can tell.
        Ok(Step { entry, from, stamp: ConfigStamp { version: from.version + 1, tag: Digest::ZERO, digest } })
    }

    /// Writes it. An unknown outcome is asked again under the same id: what is stored wins.
    async fn commit(&self, run: &Run, id: &EntryId, set: &ChangeSet, step: &Step) -> Result<Changed, ChangeError> {
        let pairs = vec![(id.counter, step.entry.digest)];
        let (batch, seen) = run.sign(&id.org, pairs, &self.key).map_err(ChangeError::Storage)?;
        let Entry { body, digest } = &step.entry;
        let entry = NewEntry { seq: 0, id, kind: set.kind, body, digest: *digest, link: Digest::ZERO };
        let change = ChangeRow {
            entry: &entry,
            batch: &batch,
            seen: Seen { seq: seen.seq, link: seen.link },
            from: step.from,
            produced: step.stamp.digest,
            writes: &set.writes,
        };
        let mut unknown = 0;
        loop {
            let error = match write(&self.sql, &change).await {
                Ok(changed) => return Ok(changed),
                Err(error) => error,
            };
            let busy = error.is_lock_timeout();
            unknown += u32::from(matches!(error, StorageError::Unknown(_)));
            tracing::warn!(error = &error as &dyn std::error::Error, entry.id = %id, "a change was not written yet");
            if unknown > ASKS {
                return Err(ChangeError::Unknown(id.clone()));
            }
            // A refusal speaks for its own attempt only: after an unknown one it has to be asked again.
            if unknown == 0 && !busy {
                return Err(ChangeError::Storage(error));
            }
            unknown += u32::from(unknown > 0 && !matches!(error, StorageError::Unknown(_)));
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// One attempt, under the lock.
pub(super) async fn write(sql: &Sql, change: &ChangeRow<'_>) -> Result<Changed, StorageError> {
    let Some(mut tx) = sql.begin().await? else { return sql.change(change).await };
    let ChangeRow { entry, batch, seen, from, produced, writes } = change;
    let org = &entry.id.org;
    if let Some((_, seq, link)) = tx.find_entry(entry.id).await? {
        return Ok(Changed::Stored(seq, link));
    }
    let locked = tx.locked(org, &entry.id.boot, "").await?;
    if !locked.boot_is_open {
        return Ok(Changed::Fenced);
    }
    if !is_same_chain(&mut tx, org, *seen, locked.head.as_ref()).await? {
        return Ok(Changed::HistoryLost);
    }
    let (seq, link, stamp) =
        locked.head.map_or((0, Digest::ZERO, ConfigStamp::NONE), |head| (head.seq, head.link, head.stamp));
    if stamp != *from {
        return Ok(Changed::Stale);
    }
    let seq = seq + 1;
    let link = chain::link(&link, seq, &entry.digest);
    tx.apply(org, writes).await?;
    let placed = NewEntry { seq, link, id: entry.id, kind: entry.kind, body: entry.body, digest: entry.digest };
    let stamp = ConfigStamp { version: from.version + 1, tag: link, digest: *produced };
    let head = Head { seq, link, stamp, kid: batch.kid.clone() };
    tx.append(&Appending { org, batch, entries: &[placed], head: &head, holds: &[], windows: &[] }).await?;
    tx.commit().await?;
    Ok(Changed::Stored(seq, link))
}

/// The entry that a change makes, and what it goes from and to.
struct Step {
    entry: Entry,
    from: ConfigStamp,
    stamp: ConfigStamp,
}
