//! What flags do to a plan.
//!
//! Owns the one rule: a flag may always tighten; it loosens only what the organization has unlocked for the agent, and
//! locked is the default. A flag that is locked is left out and named. Never touches authentication, structure, limits
//! or approvals: modes act on detections only.

use std::collections::BTreeSet;

use super::{BudgetFlag, DbFlag, EmailFlag, FilesFlag, Flags, Mode, PiiAnswer, SecretsAnswer, ToolsFlag};
use crate::domain::{
    detection::{Action, Family},
    money::NanoUsd,
    plan::{Plan, PlannedStep},
    steps::{Kind, Phase, Span},
};

const DOLLAR: NanoUsd = NanoUsd(1_000_000_000);

/// What holds for one call, and what was asked for in vain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What holds.
    pub effective: FlagEffects,
    /// Flags that would loosen and are locked; for the record and the `tappass` object.
    pub ignored: Vec<&'static str>,
}

/// What holds for one call besides the plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlagEffects {
    /// What is done about detections.
    pub mode: Mode,
    /// Personal data in the answer; `None` as `scan_output` says.
    pub pii: Option<PiiAnswer>,
    /// Secrets in the answer; `None` as `scan_output` says.
    pub secrets: Option<SecretsAnswer>,
    /// The bounds of plan and flag together; read these, not the plan's.
    pub budget: BudgetBounds,
    /// Which tools may be used, besides what the plan says.
    pub tools: Option<ToolsEffect>,
    /// Files.
    pub files: Option<FilesFlag>,
    /// Databases.
    pub db: Option<DbFlag>,
    /// Mail.
    pub email: Option<EmailFlag>,
}

/// Most that may be spent; `None` is no bound of this kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BudgetBounds {
    /// In one call.
    pub per_call: Option<NanoUsd>,
    /// In one session.
    pub per_session: Option<NanoUsd>,
    /// In one day.
    pub per_day: Option<NanoUsd>,
    /// In one month.
    pub per_month: Option<NanoUsd>,
}

/// A `tools` flag that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolsEffect {
    /// What it says.
    pub rule: ToolsFlag,
    /// Whether it stands in the place of the plan's allow list (unlocked) or beside it (locked). The plan's deny list
    /// always holds, except under [`ToolsFlag::Log`].
    pub replaces: bool,
}

impl Flags {
    /// What these flags do under this plan; `unlocked` holds names of [`super::FLAGS`].
    pub fn apply(&self, plan: &Plan, unlocked: &BTreeSet<String>) -> Applied {
        let mut applied = Applied::default();
        let is_unlocked = |flag: &str| unlocked.contains(flag);
        let Applied { effective, ignored } = &mut applied;
        let on_answers = plan.step("scan_output").map(|step| step.action);

        // Each line: the flag, and whether it only tightens.
        let mut admit = |flag: &'static str, tightens: bool| {
            let holds = tightens || is_unlocked(flag);
            if !holds {
                ignored.push(flag);
            }
            holds
        };
        if let Some(mode) = self.mode.filter(|mode| admit("mode", *mode >= Mode::Enforce)) {
            effective.mode = mode;
        }
        effective.pii = self.pii.filter(|pii| admit("pii", pii.action() >= on_answers));
        effective.secrets = self.secrets.filter(|secrets| admit("secrets", Some(secrets.action()) >= on_answers));
        let budget = self.budget.filter(|budget| admit("budget", *budget != BudgetFlag::Unlimited));
        let tools = self.tools.as_ref().filter(|tools| admit("tools", **tools != ToolsFlag::Log));
        effective.files = self.files.filter(|files| admit("files", *files != FilesFlag::Allow));
        effective.db = self.db;
        effective.email = self.email.clone().filter(|email| admit("email", is_tight(email)));

        effective.budget = BudgetBounds::of(plan).with(budget, is_unlocked("budget"));
        effective.tools = tools.map(|rule| {
            let can_loosen = matches!(rule, ToolsFlag::Allow(_) | ToolsFlag::Log);
            ToolsEffect { rule: rule.clone(), replaces: can_loosen && is_unlocked("tools") }
        });
        applied
    }
}

/// A mirror sends mail to an address that policy has not named, so it is not surely tighter.
fn is_tight(email: &EmailFlag) -> bool {
    matches!(email, EmailFlag::Internal(_) | EmailFlag::Block)
}

impl FlagEffects {
    /// What is done about a detection (or breach) of this step: the plan's action under the mode of the call. `observe`
    /// and `warn` only record what would have been done.
    pub fn action(&self, step: &PlannedStep) -> Action {
        if step.spec.kind == Kind::Detector { self.under_mode(step.action) } else { step.action }
    }

    /// What `scan_output` does about a finding of this family in the answer; `None`: nobody looks.
    pub fn answer_action(&self, scan_output: &PlannedStep, family: Family) -> Option<Action> {
        let planned = Some(scan_output.action);
        let action = match family {
            Family::PersonalData => self.pii.map_or(planned, PiiAnswer::action),
            Family::Secrets => self.secrets.map_or(planned, |secrets| Some(secrets.action())),
            Family::Unicode | Family::Injection | Family::Classification => planned,
        };
        action.map(|action| self.under_mode(action))
    }

    /// Whether the answer of this call must be held: [`Plan::holds_stream`] with the flags in mind.
    pub fn holds_stream(&self, plan: &Plan) -> bool {
        let in_time = |step: &&PlannedStep| step.spec.span.is_some_and(|span| span != Span::AfterTheFact);
        plan.phase(Phase::After).iter().filter(in_time).any(|step| {
            let of_flags = [Family::PersonalData, Family::Secrets].map(|family| self.answer_action(step, family));
            let acts = |action: &Option<Action>| *action >= Some(Action::Redact);
            self.action(step) >= Action::Redact || (step.spec.id == "scan_output" && of_flags.iter().any(acts))
        })
    }

    fn under_mode(&self, action: Action) -> Action {
        match self.mode {
            Mode::Observe | Mode::Warn if action >= Action::Redact => Action::Log,
            Mode::Observe | Mode::Warn | Mode::Enforce => action,
            Mode::Lockdown => Action::Block,
        }
    }
}

impl BudgetBounds {
    /// Whether anything is bounded.
    pub fn is_limited(&self) -> bool {
        [self.per_call, self.per_session, self.per_day, self.per_month].iter().any(Option::is_some)
    }

    /// The plan's own.
    pub fn of(plan: &Plan) -> Self {
        let amount = |id| plan.step(id).and_then(|step| step.options.money("max_cost_usd"));
        let is_monthly = plan.step("budget").is_some_and(|step| step.options.word("window") == Some("monthly"));
        let (per_day, per_month) = if is_monthly { (None, amount("budget")) } else { (amount("budget"), None) };
        Self { per_call: None, per_session: amount("session_budget"), per_day, per_month }
    }

    /// A cap holds beside the plan's, and in its place where the organization has unlocked it.
    fn with(self, flag: Option<BudgetFlag>, replaces: bool) -> Self {
        let cap = |held: Option<NanoUsd>, asked: NanoUsd| match held {
            Some(held) if !replaces => Some(held.min(asked)),
            _ => Some(asked),
        };
        let daily = |session, day| Self {
            per_session: cap(self.per_session, DOLLAR.times(session)),
            per_day: cap(self.per_day, DOLLAR.times(day)),
            ..self
        };
        match flag {
            None => self,
            Some(BudgetFlag::Dev) => daily(1, 5),
            Some(BudgetFlag::Standard) => daily(10, 50),
            Some(BudgetFlag::Custom { per_call, per_session }) => {
                Self { per_call: cap(self.per_call, per_call), per_session: cap(self.per_session, per_session), ..self }
            }
            Some(BudgetFlag::Unlimited) => Self::default(),
        }
    }
}
