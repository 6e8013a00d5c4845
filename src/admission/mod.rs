//! The moment that counts: what makes a request count, and what ends it.
//!
//! A request is decided from a fixed **snapshot** of its organization, with no I/O. Before the provider is called, its
//! **admission** is appended to the organization's chain: one transaction locks the head, compares its configuration
//! with the snapshot's, reserves money and appends. Equal: the request holds a **permit**. Different: nothing of this
//! entry is written and the decision is made again under a newer snapshot. Its **completion** settles the money. A
//! **change** is any write that can alter a decision; it moves the configuration in the same kind of transaction. So the
//! order of the chain proves that nothing was decided under an older configuration than the last acknowledged one.
//!
//! Owns every transaction on a chain head; one writer task makes them, in groups. Never does a caller's waiting under a
//! lock. An outcome that is unknown is asked again under the same id until the database has answered; what it stored
//! wins. While the database cannot be written, admissions are refused at once and completions wait in bounded memory.
//!
//! An id that was given out always ends as an entry, whoever drops what: see `question`.

mod aggregates;
mod answer;
mod append;
mod attempt;
mod change;
mod checks;
mod content;
mod credentials;
mod founding;
mod lease;
mod open_calls;
mod outbox;
mod permit;
mod question;
mod queue;
mod records;
mod recover;
#[cfg(test)]
pub(crate) mod rig;
mod run;
mod snapshot;
mod snapshots;
mod writer;

use std::{sync::Arc, time::Duration};

pub use aggregates::Aggregates;
pub use change::{ChangeError, ChangeRefused, ChangeSet, Changes, Receipt};
pub use checks::{CredentialChecks, CredentialStatus};
pub use content::{
    AdmissionContent, CompletionContent, CoverageRecord, DetectionRecord, PolicyRecord, RefusalContent, UsageRecord,
};
pub use credentials::{CredentialError, Credentials};
pub use founding::{check_agents, found_organization};
pub use lease::Lease;
pub use open_calls::{OpenCall, OpenCalls};
pub use outbox::{Extended, Outbox, Refused, Reserve};
pub use permit::{Permit, PermitExpired};
pub use question::{Answer, OpenAdmission, Question};
pub use records::{Records, Spent};
pub use recover::{DeadBoots, close_dead_boots, recover};
pub use snapshot::{AgentView, Snapshot, SnapshotError};
pub use snapshots::{Compiler, Snapshots};
pub use writer::{Reborn, Writer, WriterConfig};

use crate::{domain::ids::OrgId, tenants::OrgConfig};

/// The chain of what belongs to no organization.
pub const SYSTEM: &str = "system";

/// The id of the system's chain.
pub fn system_org() -> OrgId {
    // A constant that fits the syntax; the fallback cannot be reached and would only misname a chain.
    OrgId::parse(SYSTEM).unwrap_or_else(|_| system_org())
}

/// What the floors above use: questions, changes, snapshots.
#[derive(Clone)]
pub struct Admission {
    /// Sends to the writer.
    pub outbox: Outbox,
    /// Makes changes.
    pub changes: Arc<Changes>,
    /// This instance's right to admit.
    pub lease: Lease,
    /// Which organizations have calls under way.
    pub open_calls: OpenCalls,
    /// Compiled configuration.
    pub snapshots: Arc<Snapshots>,
    /// Sealing and opening provider keys.
    pub credentials: Arc<Credentials>,
    /// What the validation of provider keys found out.
    pub checks: Arc<CredentialChecks>,
    /// Refusals that are counted instead of recorded one by one.
    pub aggregates: Arc<Aggregates>,
    /// How long a decision may be made again.
    pub deadline: Duration,
    /// How long a permit holds.
    pub permit: Duration,
}

impl Admission {
    /// Opens a question, if this instance may admit: its id will end as an entry.
    pub fn question(&self, org: &OrgId) -> Result<Question, Refused> {
        if !self.lease.is_live() {
            return Err(Refused::Lease);
        }
        self.outbox.question(org)
    }

    /// Whether anything can be admitted, as far as this instance knows.
    pub fn is_writable(&self) -> bool {
        self.lease.is_live() && self.outbox.is_writable()
    }

    /// Commits a change and installs what it made before it is acknowledged.
    pub async fn change(
        &self,
        org: &OrgId,
        make: impl FnOnce(Option<&OrgConfig>) -> Result<ChangeSet, ChangeRefused> + Clone + Send + Sync + 'static,
    ) -> Result<Receipt, ChangeError> {
        let mut receipt = self.changes.make(org, make).await?;
        // A snapshot that cannot be compiled is found again, and refused, by the next request; the change stands.
        if let Err(error) = self.snapshots.refresh(org, Some(receipt.stamp)).await {
            tracing::error!(org.id = %org, error = &error as &dyn std::error::Error, "a change was committed but not loaded");
        }
        // Who else has it, and who runs without it, is a courtesy: the change stands, and validates itself at every
        // instance's next admission.
        match self.changes.spread(org, receipt.stamp.version).await {
            Ok(live) => receipt.live = live,
            Err(error) => {
                tracing::warn!(org.id = %org, error = &error as &dyn std::error::Error, "who has loaded a change is not known");
            }
        }
        receipt.older_calls = self.older_calls(org, &receipt).await;
        Ok(receipt)
    }

    /// How many calls still run that were admitted before a change; `None`: the database does not say.
    pub async fn older_calls(&self, org: &OrgId, receipt: &Receipt) -> Option<u64> {
        let counted = self.changes.older_calls(org, receipt.stamp.version).await;
        counted
            .inspect_err(|error| {
                tracing::debug!(org.id = %org, error = error as &dyn std::error::Error, "older calls are not counted");
            })
            .ok()
    }
}

#[cfg(test)]
mod tests;
