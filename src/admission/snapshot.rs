//! A snapshot: one organization's configuration at one version, ready to decide.
//!
//! Owns the look-ups of the request path: key to agent, agent to plan and policy. Fixed; what depends on one agent
//! only is compiled at its first request and kept. Never does I/O. A configuration that does not compile refuses the
//! requests of that agent, never another's.

use std::{collections::HashMap, sync::Arc};

use arc_swap::ArcSwapOption;
use tokio_util::sync::CancellationToken;

use super::snapshots::Compiler;
use crate::{
    domain::{
        clock::Micros,
        detection::Action,
        digest::Digest,
        ids::{AgentId, KeyId, OrgId},
        plan::{self, PipelineSpec, Plan, PlanLayers, PolicySwitch, flags::BudgetBounds},
        rows::ConfigRows,
        stamp::ConfigStamp,
    },
    policy::{AgentPolicy, AssignedPolicy, Level, LevelPolicies, merge, parse_rules},
    storage::{StorageError, sql::Window},
    tenants::{Agent, AgentKey, Budget, OrgConfig, Scope, ScopeKind, TenantsError},
};

/// Memory per byte of configuration text, compiled policies included; measured as an order, used for the cache's bound.
const BYTES_PER_BYTE: usize = 8;

/// Why an organization cannot be decided for.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The database does not answer.
    #[error("the database does not answer")]
    Storage(#[from] StorageError),
    /// Its rows do not hash to the digest on its head.
    #[error(
        "the configuration of `{org}` at version {version} does not match its digest: a row was edited outside of tappass"
    )]
    Tampered {
        /// Whose.
        org: OrgId,
        /// At which version.
        version: u64,
    },
    /// Its rows do not make sense.
    #[error("the stored configuration does not make sense")]
    Tenants(#[from] TenantsError),
    /// It does not exist.
    #[error("there is no such organization")]
    Missing,
    /// An agent's policy or pipeline does not compile.
    #[error("the configuration of an agent does not compile: {0}")]
    Compile(String),
}

/// One organization at one version.
pub struct Snapshot {
    /// Which organization.
    pub org: OrgId,
    /// Which version.
    pub stamp: ConfigStamp,
    /// Its records.
    pub config: OrgConfig,
    /// Cancelled when this is no longer what decides here: whoever follows it looks at the next one.
    pub superseded: CancellationToken,
    keys: HashMap<Digest, KeyId>,
    views: HashMap<AgentId, ArcSwapOption<AgentView>>,
    compiler: Arc<Compiler>,
    bytes: usize,
}

/// What decides for one agent.
pub struct AgentView {
    /// Its merged policy.
    pub policy: AgentPolicy,
    /// Its plan.
    pub plan: Plan,
    /// When an assignment ends and this has to be compiled again.
    valid_until: Micros,
}

impl Snapshot {
    /// Reads the rows; agents are compiled when they are first asked for.
    pub(super) fn compile(
        org: OrgId,
        stamp: ConfigStamp,
        rows: &ConfigRows,
        compiler: Arc<Compiler>,
    ) -> Result<Self, SnapshotError> {
        let config = OrgConfig::read(rows)?;
        let keys = config.keys.values().map(|key| (key.hash, key.key_id.clone())).collect();
        let views = config.agents.keys().map(|agent| (agent.clone(), ArcSwapOption::empty())).collect();
        let (superseded, bytes) = (CancellationToken::new(), rows.bytes() * BYTES_PER_BYTE);
        Ok(Self { org, stamp, config, superseded, keys, views, compiler, bytes })
    }

    /// Memory, roughly.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The key with this hash and its agent, if the key has not expired.
    pub fn key(&self, hash: &Digest, now: Micros) -> Option<(&AgentKey, &Agent)> {
        let key = self.config.keys.get(self.keys.get(hash)?)?;
        let lives = key.expires_at.is_none_or(|until| until > now);
        let agent = self.config.agents.get(&key.agent_id)?;
        lives.then_some((key, agent))
    }

    /// The organization's budget; without one nothing is limited.
    pub fn budget(&self) -> Budget {
        self.config.budget.clone().unwrap_or_default()
    }

    /// Where a call of an agent reserves its money: the windows of the organization, then the agent's own. `plan`: what
    /// the agent's plan limits; `holds`: what limits this call, its flag included. `{day}` and `{month}` are the
    /// database's to fill in, under the lock. A reset of the organization's budget opens new windows of every kind.
    pub fn windows(&self, agent: &AgentId, session: &str, plan: BudgetBounds, holds: BudgetBounds) -> Vec<Window> {
        let budget = self.budget();
        let number = budget.window;
        // What is spent is counted also where nothing limits it.
        let mut windows = vec![Window { name: format!("total:{number}"), limit: budget.limit_nano }];
        if let Some(limit) = budget.day_nano {
            windows.push(Window { name: format!("day:{number}:{{day}}"), limit: Some(limit) });
        }
        if let Some(limit) = budget.month_nano {
            windows.push(Window { name: format!("month:{number}:{{month}}"), limit: Some(limit) });
        }
        // A flag that lifts the plan's limit from one call does not take that call out of the count for the others.
        if plan.per_day.or(holds.per_day).is_some() {
            windows.push(Window { name: format!("agent:{agent}:day:{number}:{{day}}"), limit: holds.per_day });
        }
        if plan.per_month.or(holds.per_month).is_some() {
            windows.push(Window { name: format!("agent:{agent}:month:{number}:{{month}}"), limit: holds.per_month });
        }
        let by_session = plan.per_session.or(holds.per_session).is_some();
        if by_session || budget.session_nano.is_some() {
            // A session's name is its caller's own text; its hash is a name that fits anywhere.
            let hash = crate::crypto::sha256(&[session.as_bytes()]).to_string();
            let session = hash.split_at(32).0;
            if let Some(limit) = budget.session_nano {
                windows.push(Window { name: format!("session:{number}:{agent}:{session}"), limit: Some(limit) });
            }
            if by_session {
                let name = format!("agent-session:{number}:{agent}:{session}");
                windows.push(Window { name, limit: holds.per_session });
            }
        }
        windows
    }

    /// What decides for an agent.
    pub fn view(&self, agent: &Agent) -> Result<Arc<AgentView>, SnapshotError> {
        let slot = self.views.get(&agent.agent_id).ok_or(SnapshotError::Missing)?;
        let now = self.compiler.clock.now();
        if let Some(view) = slot.load_full().filter(|view| now < view.valid_until) {
            return Ok(view);
        }
        let view = Arc::new(self.compile_agent(agent, now)?);
        slot.store(Some(Arc::clone(&view)));
        Ok(view)
    }

    fn compile_agent(&self, agent: &Agent, now: Micros) -> Result<AgentView, SnapshotError> {
        view_of(&self.config, agent, now, &self.compiler)
    }
}

/// Compiles one agent under a configuration; also how a change is tried before it is written.
pub(super) fn view_of(
    config: &OrgConfig,
    agent: &Agent,
    now: Micros,
    compiler: &Compiler,
) -> Result<AgentView, SnapshotError> {
    let scopes = config.scopes_of(agent);
    let levels = scopes.iter().map(|scope| level(config, scope, now)).collect::<Result<Vec<_>, _>>()?;
    let policy = AgentPolicy::compile(&compiler.programs, &merge(&levels))
        .map_err(|error| SnapshotError::Compile(error.to_string()))?;
    let switches: Vec<PolicySwitch> = policy
        .switches()
        .iter()
        .map(|s| {
            // A switch that is about some findings only makes the step run; the pipeline applies it finding by finding.
            let action = if s.category.is_some() { Action::Log } else { s.action };
            PolicySwitch { step: s.step.to_owned(), action, rule: Arc::clone(&s.rule) }
        })
        .collect();
    let [org_scope, _, agent_scope] = &scopes;
    let own = stored(config, org_scope)?;
    let org = own.as_ref().unwrap_or(&compiler.default_pipeline);
    let agents = stored(config, agent_scope)?;
    let layers = PlanLayers { org, agent: agents.as_ref(), switches: &switches };
    let plan = plan::compile(&layers, &|id| (compiler.has_step)(id)).map_err(|errors| {
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        SnapshotError::Compile(words.join("; "))
    })?;
    let ends = config.assignments.iter().filter_map(|a| a.effective_until).filter(|until| *until > now);
    Ok(AgentView { policy, plan, valid_until: ends.min().unwrap_or(Micros::MAX) })
}

/// The policies that hold at one scope.
pub(super) fn level(config: &OrgConfig, scope: &Scope, now: Micros) -> Result<LevelPolicies, SnapshotError> {
    let mut policies = Vec::new();
    for policy in config.assigned(scope, now) {
        let Some(version) = config.active_version(&policy.policy_id) else { continue };
        let rules = parse_rules(&version.rules).map_err(|findings| {
            let first = findings.first().map_or_else(String::new, |f| f.message.clone());
            SnapshotError::Compile(format!("policy `{}` version {}: {first}", policy.name, version.version_no))
        })?;
        policies.push(AssignedPolicy {
            policy_id: policy.policy_id.clone(),
            name: policy.name.as_str().into(),
            version_no: version.version_no,
            owner: policy.owner.as_str().into(),
            rules: rules.into(),
        });
    }
    let level = match scope.scope_type {
        ScopeKind::Org => Level::Org,
        ScopeKind::Project => Level::Project,
        ScopeKind::Agent => Level::Agent,
    };
    Ok(LevelPolicies { level, policies })
}

fn stored(config: &OrgConfig, scope: &Scope) -> Result<Option<PipelineSpec>, SnapshotError> {
    let Some(stored) = config.pipeline(scope) else { return Ok(None) };
    plan::import(&stored.spec).map(Some).map_err(|errors| {
        let words: Vec<String> = errors.iter().map(ToString::to_string).collect();
        SnapshotError::Compile(words.join("; "))
    })
}
