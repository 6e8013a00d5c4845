//! One round trip of one caller: what it asked, what was found in it, what was decided.
//!
//! Owns the request's state through the phases. `Exchange` is what does not change when a decision is made again;
//! `Judgement` is one decision, under one snapshot.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    refusal::Refusal,
    scan::{PromptScan, ScannedText},
    step::StepReport,
};
use crate::{
    admission::{AgentView, CoverageRecord, DetectionRecord, Snapshot},
    domain::{
        clock::Running,
        detection::{Action, Classification, Detection, Finding},
        digest::Digest,
        ids::{AgentId, KeyId, OrgId, ProjectId},
        plan::{
            PlannedStep,
            flags::{Applied, Flags},
        },
    },
    limits::{Hold, Verdict},
    policy::Decision,
    providers::openai::ChatRequest,
};

/// Who asks, as the door found out.
#[derive(Clone, Debug)]
pub struct Caller {
    /// Its organization.
    pub org: OrgId,
    /// Its agent.
    pub agent: AgentId,
    /// Its project.
    pub project: ProjectId,
    /// By which key.
    pub key: KeyId,
    /// The key's hash: looked up again under every newer snapshot.
    pub key_hash: Digest,
}

/// The names of a round trip.
#[derive(Clone, Debug)]
pub struct Names {
    /// Ours, never the client's.
    pub request: String,
    /// The caller's, or one of our own.
    pub session: String,
    /// Whether the caller named it.
    pub named: bool,
    /// Ours.
    pub task: String,
}

/// A round trip.
pub struct Exchange {
    /// Who asks.
    pub caller: Caller,
    /// Its names.
    pub names: Names,
    /// What the caller's developers asked for.
    pub flags: Flags,
    /// The request.
    pub request: ChatRequest,
    /// SHA-256 over its body.
    pub body_digest: Digest,
    /// When it came.
    pub started: Running,
    /// Whatever has to live as long as the request's bytes do.
    _held: Box<dyn std::any::Any + Send + Sync>,
    /// What the scan found; once per exchange.
    pub(super) scan: Option<PromptScan>,
    /// What the limits said; counted once per exchange.
    pub(super) quota: Option<Verdict>,
    /// The tokens that are charged for it, until a call under way takes them over.
    pub(super) hold: Option<Hold>,
}

/// One decision.
pub(super) struct Judgement {
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) view: Arc<AgentView>,
    pub(super) flags: Applied,
    pub(super) classification: Classification,
    pub(super) reports: Vec<StepReport>,
    pub(super) detections: Vec<DetectionRecord>,
    /// Every category that was found and how many findings there were, also beyond what is recorded.
    pub(super) categories: BTreeSet<&'static str>,
    pub(super) found: u64,
    pub(super) redactions: Vec<(usize, Vec<Finding>)>,
    pub(super) decision: Option<Decision>,
    pub(super) dropped_tools: BTreeSet<usize>,
    pub(super) refusal: Option<Refusal>,
    /// The strongest action of the step that runs now.
    pub(super) strongest: Option<Action>,
}

impl Exchange {
    /// A round trip that begins.
    pub fn new(
        caller: Caller,
        names: Names,
        flags: Flags,
        request: ChatRequest,
        started: Running,
        held: Box<dyn std::any::Any + Send + Sync>,
    ) -> Self {
        let body_digest = crate::crypto::sha256(&[&request.body]);
        Self { caller, names, flags, request, body_digest, started, _held: held, scan: None, quota: None, hold: None }
    }

    pub(super) fn coverage(&self) -> CoverageRecord {
        self.scan.as_ref().map(|scan| scan.coverage).unwrap_or_default()
    }
}

impl Judgement {
    pub(super) fn new(snapshot: Arc<Snapshot>, view: Arc<AgentView>, flags: Applied) -> Self {
        Self {
            snapshot,
            view,
            flags,
            classification: Classification::Public,
            reports: Vec::with_capacity(16),
            detections: Vec::new(),
            categories: BTreeSet::new(),
            found: 0,
            redactions: Vec::new(),
            decision: None,
            dropped_tools: BTreeSet::new(),
            refusal: None,
            strongest: None,
        }
    }

    /// Notes that the running step asks for an action.
    pub(super) fn raise(&mut self, action: Action) {
        self.strongest = self.strongest.max(Some(action));
    }

    /// What is done about a finding by a step: the plan's action, or that of a rule about such findings if it is
    /// stronger, under the mode of the call.
    pub(super) fn action(&self, step: &PlannedStep, finding: &Finding, answer: bool) -> Action {
        let planned = if answer {
            self.flags.effective.answer_action(step, finding.family).unwrap_or(Action::Log)
        } else {
            self.flags.effective.action(step)
        };
        let by_rule = self.view.policy.switches().iter().filter(|switch| {
            let kind = finding.category.split_once('.').map_or(finding.category, |(_, kind)| kind);
            let entity =
                switch.entities.is_empty() || switch.entities.iter().any(|e| &**e == kind || &**e == finding.category);
            let family = finding.category.split('.').next();
            switch.step == step.spec.id && switch.category.is_some() && switch.category == family && entity
        });
        let strongest = by_rule.map(|switch| switch.action).max();
        match strongest {
            Some(action) if action > planned => self.flags.effective.action(&PlannedStep { action, ..step.clone() }),
            _ => planned,
        }
    }

    /// Records a finding of a step in a text. Rules see all of them; the entry lists the first hundred.
    pub(super) fn record(
        &mut self,
        step: &PlannedStep,
        text: &ScannedText,
        place: impl FnOnce() -> String,
        finding: &Finding,
        action: Action,
    ) {
        self.categories.insert(finding.category);
        self.found += 1;
        if self.detections.len() >= MOST_DETECTIONS {
            return;
        }
        let detection = Detection {
            category: finding.category,
            severity: finding.severity,
            label: finding.label,
            score: finding.score,
            step: step.spec.id,
            place: place().into(),
            offset: finding.start,
            length: finding.end.saturating_sub(finding.start),
            replacement: None,
        };
        debug_assert!(finding.end <= text.bytes, "an offset lies inside its text");
        self.detections.push(DetectionRecord::new(&detection, action.as_str()));
    }
}

/// Most detections that one entry lists; their number is bounded so that the entry is.
pub(super) const MOST_DETECTIONS: usize = 100;
