//! What is known about provider keys while calls are made: a table in memory.
//!
//! Owns the table and which credentials were used since it was last asked. Never asks a database or a provider on a call's
//! way: a job refreshes the table and takes the used ones along. A result that is too old says nothing, and neither does one
//! of another credential: a key that is stored anew has a new id.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use arc_swap::ArcSwap;

use crate::{
    domain::{
        clock::{Clock, Micros, Running},
        ids::{CredentialId, OrgId},
    },
    storage::{Sql, StorageError},
};

/// What a call may go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialStatus {
    /// The provider took it.
    Valid,
    /// The provider refused it.
    Invalid,
    /// Nobody knows: never checked, too long ago, or the provider said neither.
    Unverified,
}

impl CredentialStatus {
    /// A word for people and programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Invalid => "invalid",
            Self::Unverified => "unverified",
        }
    }
}

type Name = (OrgId, CredentialId);

struct Found {
    status: CredentialStatus,
    checked_at: Micros,
    /// When it is too old, by this machine's running time.
    until: Running,
}

/// Results by credential.
pub struct CredentialChecks {
    clock: Arc<dyn Clock>,
    trust: Duration,
    found: ArcSwap<HashMap<Name, Found>>,
    used: Mutex<HashSet<Name>>,
}

impl CredentialChecks {
    /// Nothing is known yet. Results are trusted for so long.
    pub fn new(clock: Arc<dyn Clock>, trust: Duration) -> Self {
        Self { clock, trust, found: ArcSwap::default(), used: Mutex::default() }
    }

    /// What a call may go by.
    pub fn status(&self, org: &OrgId, credential: &CredentialId) -> CredentialStatus {
        let found = self.found.load();
        let young = found.get(&(org.clone(), credential.clone())).filter(|found| self.clock.running() < found.until);
        young.map_or(CredentialStatus::Unverified, |found| found.status)
    }

    /// When it was last checked, as far as this instance has heard.
    pub fn checked_at(&self, org: &OrgId, credential: &CredentialId) -> Option<Micros> {
        self.found.load().get(&(org.clone(), credential.clone())).map(|found| found.checked_at)
    }

    /// A call uses it.
    pub fn uses(&self, org: &OrgId, credential: &CredentialId) {
        let name = (org.clone(), credential.clone());
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(name);
    }

    /// Tells the database what was used since the last time, and reads what was found out.
    pub async fn refresh(&self, sql: &Sql) -> Result<(), StorageError> {
        let used = std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner));
        for (org, credential) in &used {
            if let Err(error) = sql.note_credential_used(org, credential).await {
                self.used.lock().unwrap_or_else(PoisonError::into_inner).extend(used);
                return Err(error);
            }
        }
        // From before the question: what it answers is at least this old.
        let now = self.clock.running();
        let checks = sql.credential_checks().await?;
        let found = checks.into_iter().map(|check| {
            let status = match check.outcome.as_str() {
                "valid" => CredentialStatus::Valid,
                "invalid" => CredentialStatus::Invalid,
                _ => CredentialStatus::Unverified,
            };
            let until = now.after(self.trust.saturating_sub(check.age));
            ((check.org, check.credential), Found { status, checked_at: check.checked_at, until })
        });
        self.found.store(Arc::new(found.collect()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{admission::rig::Rig, domain::clock::ManualClock};

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test]
    async fn a_result_is_trusted_for_a_while_and_only_for_its_own_credential() {
        Rig::run(async |rig| {
            let clock = Arc::new(ManualClock::at(0));
            let checks = CredentialChecks::new(clock.clone(), 35 * MINUTE);
            let org = OrgId::parse("org_a").unwrap();
            let id = |name| CredentialId::parse(name).unwrap();
            for (name, outcome) in [("good", "valid"), ("bad", "invalid"), ("odd", "unknown")] {
                assert!(rig.sql.put_credential_check(&org, &id(name), outcome, 7).await.unwrap());
            }
            assert_eq!(checks.status(&org, &id("bad")), CredentialStatus::Unverified, "not heard of yet");
            checks.uses(&org, &id("new"));
            checks.refresh(&rig.sql).await.unwrap();
            let status = |name| checks.status(&org, &id(name)).as_str();
            assert_eq!(["good", "bad", "odd", "new"].map(status), ["valid", "invalid", "unverified", "unverified"]);
            assert!(checks.checked_at(&org, &id("good")).is_some() && checks.checked_at(&org, &id("new")).is_none());
            clock.advance(34 * MINUTE);
            assert_eq!(["good", "bad"].map(status), ["valid", "invalid"]);
            clock.advance(MINUTE);
            assert_eq!(["good", "bad"].map(status), ["unverified", "unverified"]);
        })
        .await;
    }
}
