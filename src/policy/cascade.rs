//! The cascade: the policies of an organization, a project and an agent as one.
//!
//! Owns merging (pure: no order of arrival matters) and the check for relaxations. Never loosens: every policy keeps its
//! own say and any block wins, so what a level adds can only refuse more. A relaxation that somebody wrote all the same is
//! refused with its rule, level and owner, since it would silently do nothing.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::Serialize;

use super::{
    glob,
    rules::{Mode, Rule, RuleBody, Then},
};
use crate::domain::{detection::Classification, ids::PolicyId};

/// Where a policy is assigned; upper levels first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The organization's floor.
    Org,
    /// The project's floor.
    Project,
    /// The agent's own.
    Agent,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Org => "organization",
            Self::Project => "project",
            Self::Agent => "agent",
        })
    }
}

/// One version of one policy as it is assigned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct AssignedPolicy {
    /// Which policy.
    pub policy_id: PolicyId,
    /// Its name, for people.
    pub name: Arc<str>,
    /// Which version.
    pub version_no: u32,
    /// Who answers for it.
    pub owner: Arc<str>,
    /// What it says, in order of `ordinal`.
    pub rules: Arc<[Rule]>,
}

impl AssignedPolicy {
    /// How records name a rule: `<policy_id>@<version>#<ordinal>`.
    pub fn rule_id(&self, rule: &Rule) -> String {
        format!("{}@{}#{}", self.policy_id, self.version_no, rule.ordinal)
    }
}

/// The policies assigned at one level.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LevelPolicies {
    /// Which level.
    pub level: Level,
    /// In any order.
    pub policies: Vec<AssignedPolicy>,
}

/// A list of models per classification, from one source; every source must agree.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ModelLists {
    /// Who says so, as records name it.
    pub source: Arc<str>,
    /// Patterns. The list of the highest classification at or below that of the request applies.
    pub allowed: BTreeMap<Classification, Vec<Arc<str>>>,
}

/// Everything that applies to one agent, in one fixed order: upper levels first, then by policy and version.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Merged {
    /// Every policy with the uppermost level that assigns it.
    pub policies: Vec<(Level, AssignedPolicy)>,
    /// Allowed models; none means that no model is refused.
    pub models: Vec<ModelLists>,
}

/// Merges the levels. The order of levels and of policies within them does not matter, nor does repetition.
pub fn merge(levels: &[LevelPolicies]) -> Merged {
    let all = levels.iter().flat_map(|level| level.policies.iter().map(|policy| (level.level, policy)));
    // The text of the rules joins the order, so that even two contents under one version merge the same way round.
    let mut keyed: Vec<_> = all.map(|(level, policy)| (sort_key(policy), level, policy)).collect();
    keyed.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    keyed.dedup_by(|later, first| later.0 == first.0);
    keyed.sort_by(|a, b| (a.1, &a.0).cmp(&(b.1, &b.0)));
    Merged {
        policies: keyed.into_iter().map(|(_, level, policy)| (level, policy.clone())).collect(),
        models: Vec::new(),
    }
}

fn sort_key(policy: &AssignedPolicy) -> (PolicyId, u32, String) {
    // Serializing plain data into a string cannot fail; an empty text would only make the order less fine.
    let text = serde_json::to_string(policy).unwrap_or_default();
    (policy.policy_id.clone(), policy.version_no, text)
}

/// A rule of a lower level that would allow what an upper level blocks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[error(
    "rule `{rule}` of the {level} (owner `{owner}`) allows {what}, which rule `{upper_rule}` of the {upper_level} \
     (owner `{upper_owner}`) blocks; a lower level can only tighten"
)]
pub struct Relaxation {
    /// The rule that may not stand.
    pub rule: String,
    /// Its level.
    pub level: Level,
    /// Who answers for it.
    pub owner: Arc<str>,
    /// The rule that blocks.
    pub upper_rule: String,
    /// Its level.
    pub upper_level: Level,
    /// Who answers for that.
    pub upper_owner: Arc<str>,
    /// What is allowed and blocked.
    pub what: String,
}

/// Finds every rule that tries to relax an upper level. Shadow rules neither relax nor block.
pub fn check_relaxation(levels: &[LevelPolicies]) -> Result<(), Vec<Relaxation>> {
    let mut found = Vec::new();
    for lower in levels {
        for upper in levels.iter().filter(|upper| upper.level < lower.level) {
            for policy in &lower.policies {
                for above in &upper.policies {
                    compare((lower.level, policy), (upper.level, above), &mut found);
                }
            }
        }
    }
    if found.is_empty() { Ok(()) } else { Err(found) }
}

fn compare(lower: (Level, &AssignedPolicy), upper: (Level, &AssignedPolicy), found: &mut Vec<Relaxation>) {
    for (i, allow) in lower.1.rules.iter().enumerate() {
        for (j, block) in upper.1.rules.iter().enumerate() {
            let Some(what) = relaxed(&lower.1.rules, i, &upper.1.rules, j) else { continue };
            found.push(Relaxation {
                rule: lower.1.rule_id(allow),
                level: lower.0,
                owner: Arc::clone(&lower.1.owner),
                upper_rule: upper.1.rule_id(block),
                upper_level: upper.0,
                upper_owner: Arc::clone(&upper.1.owner),
                what,
            });
        }
    }
}

/// What the lower rule `i` allows although the upper rule `j` blocks it.
fn relaxed(lower: &[Rule], i: usize, upper: &[Rule], j: usize) -> Option<String> {
    let (allow, block) = (lower.get(i)?, upper.get(j)?);
    if allow.mode == Mode::Shadow || block.mode == Mode::Shadow {
        return None;
    }
    match (&allow.body, &block.body) {
        (RuleBody::AllowTool { tools }, RuleBody::BlockTool { tools: blocked }) => {
            tools.iter().find_map(|allowed| {
                let pattern = blocked.iter().find(|blocked| {
                    // Named literally or by pattern, unless an earlier rule of either policy settles the matter.
                    let inside = glob::covers(blocked, allowed) && !settled(upper, j, allowed);
                    let around =
                        glob::covers(allowed, blocked) && !settled(lower, i, blocked) && !settled(upper, j, blocked);
                    inside || around
                })?;
                Some(if pattern == allowed { format!("`{allowed}`") } else { format!("`{allowed}` (`{pattern}`)") })
            })
        }
        (RuleBody::Conditional(allowed), RuleBody::Conditional(blocked)) => {
            let same = allowed.then == Then::Allow && blocked.then == Then::Block && allowed.when == blocked.when;
            same.then(|| "the same condition".to_owned())
        }
        _ => None,
    }
}

/// Does a rule before `position` already decide for everything that the pattern names?
fn settled(rules: &[Rule], position: usize, pattern: &str) -> bool {
    rules.iter().take(position).filter(|rule| rule.mode == Mode::Enforce).any(|rule| {
        let (RuleBody::AllowTool { tools } | RuleBody::BlockTool { tools }) = &rule.body else { return false };
        tools.iter().any(|outer| glob::covers(outer, pattern))
    })
}
