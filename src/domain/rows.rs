//! Configuration as rows: what the database holds and what the digest covers.
//!
//! Owns the tables' names, their order and the digest over them. The digest is over the stored text, byte for byte, so
//! that a row that was edited behind the product's back is found when it is loaded.

use std::collections::BTreeMap;

use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::digest::Digest;

/// A table that holds configuration. The order is that of the digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[expect(missing_docs, reason = "each is named like its record")]
pub enum Table {
    Agent,
    AgentKey,
    Budget,
    Organization,
    Pipeline,
    Policy,
    PolicyAssignment,
    PolicyVersion,
    Project,
    ProviderCredential,
}

impl Table {
    /// All of them, in order.
    pub const ALL: [Self; 10] = [
        Self::Agent,
        Self::AgentKey,
        Self::Budget,
        Self::Organization,
        Self::Pipeline,
        Self::Policy,
        Self::PolicyAssignment,
        Self::PolicyVersion,
        Self::Project,
        Self::ProviderCredential,
    ];

    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::AgentKey => "agent_key",
            Self::Budget => "budget",
            Self::Organization => "organization",
            Self::Pipeline => "pipeline",
            Self::Policy => "policy",
            Self::PolicyAssignment => "policy_assignment",
            Self::PolicyVersion => "policy_version",
            Self::Project => "project",
            Self::ProviderCredential => "provider_credential",
        }
    }

    /// The table of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.name() == name)
    }
}

/// A record that cannot be written as JSON.
#[derive(Debug, thiserror::Error)]
#[error("row `{id}` of table `{table}` cannot be written")]
pub struct RowError {
    table: &'static str,
    id: String,
    source: serde_json::Error,
}

/// One row to put or to take away.
#[derive(Clone, Debug)]
pub struct Write {
    /// Where.
    pub table: Table,
    /// Which row.
    pub id: String,
    /// The new body; `None` takes the row away.
    pub body: Option<String>,
}

impl Write {
    /// Puts a record.
    pub fn put(table: Table, id: impl Into<String>, record: &impl Serialize) -> Result<Self, RowError> {
        let id = id.into();
        match serde_json::to_string(record) {
            Ok(body) => Ok(Self { table, id, body: Some(body) }),
            Err(source) => Err(RowError { table: table.name(), id, source }),
        }
    }

    /// Takes a row away.
    pub fn delete(table: Table, id: impl Into<String>) -> Self {
        Self { table, id: id.into(), body: None }
    }
}

/// All configuration rows of one organization, as stored.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigRows {
    rows: BTreeMap<(Table, String), String>,
}

impl ConfigRows {
    /// Adds a row that was read.
    pub fn insert(&mut self, table: Table, id: String, body: String) {
        self.rows.insert((table, id), body);
    }

    /// These rows after `writes`.
    #[must_use]
    pub fn after(&self, writes: &[Write]) -> Self {
        let mut next = self.clone();
        for write in writes {
            let key = (write.table, write.id.clone());
            match &write.body {
                Some(body) => next.rows.insert(key, body.clone()),
                None => next.rows.remove(&key),
            };
        }
        next
    }

    /// The rows of one table.
    pub fn of(&self, table: Table) -> impl Iterator<Item = (&str, &str)> {
        let rows = self.rows.iter().filter(move |((t, _), _)| *t == table);
        rows.map(|((_, id), body)| (id.as_str(), body.as_str()))
    }

    /// `config_digest`: SHA-256 over a domain line and, per row in order, the length-prefixed table, id and body.
    pub fn digest(&self) -> Digest {
        let mut hash = Sha256::new();
        hash.update(b"tappass/config/v1\n");
        for ((table, id), body) in &self.rows {
            for part in [table.name(), id, body] {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part.as_bytes());
            }
        }
        Digest(hash.finalize().into())
    }

    /// Bytes of text, as a measure of memory.
    pub fn bytes(&self) -> usize {
        self.rows.iter().map(|((_, id), body)| id.len() + body.len() + 64).sum()
    }

    /// Whether there is no row at all.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_edit_of_a_row_changes_the_digest() {
        let mut rows = ConfigRows::default();
        rows.insert(Table::Policy, "p".into(), "{\"a\":1}".into());
        let before = rows.digest();
        let edited = rows.after(&[Write { table: Table::Policy, id: "p".into(), body: Some("{\"a\":2}".into()) }]);
        assert_ne!(before, edited.digest());
        let moved = rows.after(&[
            Write::delete(Table::Policy, "p"),
            Write { table: Table::PolicyVersion, id: "p".into(), body: Some("{\"a\":1}".into()) },
        ]);
        assert_ne!(before, moved.digest());
    }

    #[test]
    fn every_table_is_found_by_its_name() {
        for table in Table::ALL {
            assert_eq!(Table::named(table.name()), Some(table));
        }
    }
}
