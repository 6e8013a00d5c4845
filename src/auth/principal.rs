//! Who a request is from, once it is known.
//!
//! Owns roles and the bootstrap administrator's key. Never decides what a role may do: that is `tappass.authz`.

use secrecy::{ExposeSecret, SecretString};
use subtle::ConstantTimeEq;

use super::keys::hash_key;
use crate::domain::{
    digest::Digest,
    ids::{AgentId, KeyId, OrgId},
};

/// What a principal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Runs the platform.
    SuperAdmin,
    /// Calls models.
    Agent,
}

impl Role {
    /// The word that `tappass.authz` knows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SuperAdmin => "super_admin",
            Self::Agent => "agent",
        }
    }
}

/// Who is calling, and for whom.
#[derive(Clone, Debug)]
pub enum Principal {
    /// The bootstrap administrator, acting in one organization.
    Admin {
        /// Which one.
        org: OrgId,
    },
    /// An agent by one of its keys.
    Agent {
        /// Its organization.
        org: OrgId,
        /// Which agent.
        agent: AgentId,
        /// By which key.
        key: KeyId,
    },
}

impl Principal {
    /// The organization the principal acts in.
    pub fn org(&self) -> &OrgId {
        match self {
            Self::Admin { org } | Self::Agent { org, .. } => org,
        }
    }

    /// Its role.
    pub fn role(&self) -> Role {
        match self {
            Self::Admin { .. } => Role::SuperAdmin,
            Self::Agent { .. } => Role::Agent,
        }
    }

    /// How records name it.
    pub fn name(&self) -> String {
        match self {
            Self::Admin { .. } => "bootstrap-admin".to_owned(),
            Self::Agent { agent, .. } => format!("agent:{agent}"),
        }
    }
}

/// The bootstrap administrator's key, kept as its hash.
#[derive(Clone)]
pub struct AdminKey(Option<Digest>);

impl AdminKey {
    /// The fewest characters an administrator's key may have.
    pub const MIN_CHARS: usize = 20;

    /// Without a key nobody is the administrator.
    pub fn new(key: Option<&SecretString>) -> Self {
        Self(key.map(|key| hash_key(key.expose_secret())))
    }

    /// Compares in constant time.
    pub fn matches(&self, hash: &Digest) -> bool {
        self.0.is_some_and(|own| own.0.ct_eq(&hash.0).into())
    }
}
