//! The table itself, in the order and with the columns of the reference.
//!
//! Owns the 49 rows and the words they are written in. Never holds logic. Cannot fail: it is data.

use super::{Category, Cell, Kind, Lit, OptionKind, OptionSpec, Phase, Span, StepSpec, Tighter};
use crate::domain::{detection::Action, money::NanoUsd};

// The words of the table. `MAY_*` is what `on_detection` may say; the short ones are cells.
const MAY_RUN: &[Action] = &[];
const MAY_LOG: &[Action] = &[Action::Log];
const MAY_REDACT: &[Action] = &[Action::Redact];
const MUST_BLOCK: &[Action] = &[Action::Block];
const MAY_BLOCK: &[Action] = &[Action::Log, Action::Notify, Action::Block];
const MAY_ALL: &[Action] = &[Action::Log, Action::Notify, Action::Redact, Action::Block];
const ABSENT: Cell = Cell::Absent;
const RUNS: Cell = Cell::Runs;
const LOG: Cell = with(Action::Log, &[]);
const REDACT: Cell = with(Action::Redact, &[]);
const BLOCK: Cell = with(Action::Block, &[]);
const HOUR: i64 = 3600;
const SEVERITIES: &[&str] = &["low", "medium", "high", "critical"];
const CLASSES: &[&str] = &["PUBLIC", "INTERNAL", "CONFIDENTIAL", "RESTRICTED", "TOP_SECRET"];

const fn with(action: Action, options: &'static [(&'static str, Lit)]) -> Cell {
    Cell::Acts { action, threshold: None, options }
}

const fn block_at(basis_points: u16) -> Cell {
    Cell::Acts { action: Action::Block, threshold: Some(basis_points), options: &[] }
}

const fn option(name: &'static str, kind: OptionKind, tighter: Tighter, help: &'static str) -> OptionSpec {
    OptionSpec { name, kind, tighter, default: None, help }
}

const fn number(name: &'static str, min: i64, max: i64, help: &'static str) -> OptionSpec {
    option(name, OptionKind::Integer { min, max }, Tighter::Lower, help)
}

const fn list(name: &'static str, tighter: Tighter, help: &'static str) -> OptionSpec {
    option(name, OptionKind::Strings, tighter, help)
}

const fn patterns(levels: &'static [&'static str]) -> OptionSpec {
    option("custom_patterns", OptionKind::Patterns(levels), Tighter::United, "further patterns to look for")
}

const fn money(name: &'static str, help: &'static str) -> OptionSpec {
    option(name, OptionKind::Money, Tighter::Lower, help)
}

impl OptionSpec {
    const fn or(self, default: Lit) -> Self {
        Self { default: Some(default), ..self }
    }

    const fn longer(self) -> Self {
        Self { tighter: Tighter::Higher, ..self }
    }
}

/// Writes rows in the order of the reference's columns, so that the two can be compared line by line.
macro_rules! table {
    ($($number:literal $id:ident $([$($alias:ident)+])? $position:literal $published:literal
        $phase:ident $(/ $span:ident)? $category:ident $kind:ident $actions:ident $(scored $scored:literal)?
        ($starter:expr, $standard:expr, $regulated:expr)
        $description:literal [$($option:expr),*];)*) => {
        [$(StepSpec {
            number: $number,
            id: stringify!($id),
            aliases: &[$($(stringify!($alias)),+)?],
            position: $position,
            published: $published,
            phase: Phase::$phase,
            category: Category::$category,
            kind: Kind::$kind,
            span: table!(@or None $(, Some(Span::$span))?),
            actions: $actions,
            scored: table!(@or false $(, $scored)?),
            options: &[$($option),*],
            cells: [$starter, $standard, $regulated],
            description: $description,
        }),*]
    };
    (@or $default:expr) => { $default };
    (@or $default:expr, $given:expr) => { $given };
}

pub(super) static TABLE: [StepSpec; 49] = table! {
     1 validate_input 100 true Before AccessControl Gate MUST_BLOCK (BLOCK, BLOCK, BLOCK)
       "structure, schema, roles, sizes, duplicate JSON keys, depth"
       [number("max_messages", 1, 1_000_000, "most messages in a request"),
        number("max_bytes", 1, 1 << 30, "most bytes of a request's body")];
     2 rate_limit 110 true Before AccessControl Gate MUST_BLOCK
       (with(Action::Block, &[("max_calls", Lit::Integer(100))]),
        with(Action::Block, &[("max_calls", Lit::Integer(50))]),
        with(Action::Block, &[("max_calls", Lit::Integer(30))]))
       "calls and tokens per agent and organization"
       [number("max_calls", 1, 1_000_000_000, "most calls in a window"),
        number("window_seconds", 1, 744 * HOUR, "length of the window").longer().or(Lit::Integer(HOUR)),
        number("max_tokens", 1, 1_000_000_000_000, "most tokens in a window")];
     3 budget [budget_enforcement] 120 true Before AccessControl Gate MUST_BLOCK
       (ABSENT, with(Action::Block, &[("max_cost_usd", Lit::Money(NanoUsd(100_000_000_000)))]),
        with(Action::Block, &[("max_cost_usd", Lit::Money(NanoUsd(50_000_000_000)))]))
       "money per window, reserved before the call, settled after"
       [money("max_cost_usd", "most dollars in a window"),
        option("window", OptionKind::Enum(&["daily", "monthly"]), Tighter::Higher, "length of the window")
            .or(Lit::Word("daily"))];
     4 session_budget 130 false Before AccessControl Gate MUST_BLOCK (ABSENT, BLOCK, BLOCK)
       "money per session" [money("max_cost_usd", "most dollars in a session")];
     5 user_tool_scopes 140 false Before AccessControl Gate MUST_BLOCK (ABSENT, BLOCK, BLOCK)
       "tools limited to what the end user may use"
       [option("scopes", OptionKind::Scopes, Tighter::ByName, "the tools of each scope of end users")];
     6 detect_pii 200 true Before DataProtection Detector MAY_ALL scored true
       (LOG, BLOCK, with(Action::Block, &[("block_entities", Lit::Strings(&["credit_card", "national_id", "health"]))]))
       "personal data that `pii_tokenize` does not take: `block_entities` and types without a placeholder"
       [list("entities", Tighter::UnitedOfAll, "the types looked for; all where absent"),
        list("block_entities", Tighter::United, "types that are never tokenized but acted on"),
        patterns(SEVERITIES),
        list("allow_list", Tighter::Exceptions, "values that are not personal data here")];
     7 pii_tokenize 210 true Before DataProtection Transform MAY_REDACT (ABSENT, REDACT, REDACT)
       "replaces personal data by reversible placeholders"
       [list("entities", Tighter::UnitedOfAll, "the types replaced; all where absent")];
     8 detect_secrets 220 true Before DataProtection Detector MAY_ALL (BLOCK, BLOCK, BLOCK)
       "API keys, passwords, private keys, connection strings" [patterns(SEVERITIES)];
     9 detect_infra 230 true Before DataProtection Detector MAY_ALL (ABSENT, LOG, REDACT)
       "addresses, host names, ARNs, bucket names" [];
    10 detect_business 240 true Before DataProtection Detector MAY_ALL (ABSENT, LOG, BLOCK)
       "revenue, customer counts, deal terms, configured terms; `block` and `redact` act on configured terms, else log"
       [list("terms", Tighter::United, "the organization's own terms")];
    11 detect_unicode [unicode_attack] 250 true Before DataProtection Detector MAY_ALL (BLOCK, BLOCK, BLOCK)
       "confusables, bidi controls, tags, zero-width and variation smuggling" [];
    12 taint_track 255 false Before DataProtection Effect MAY_LOG (ABSENT, LOG, LOG)
       "labels PII / SECRET / EXTERNAL, restores the session's labels"
       [number("ttl_seconds", 60, 24 * HOUR, "how long a session keeps its labels").longer()
            .or(Lit::Integer(HOUR / 2))];
    13 classify_data 260 true Before ClassifyAndPrepare Detector MAY_BLOCK (LOG, LOG, LOG)
       "PUBLIC < INTERNAL < CONFIDENTIAL < RESTRICTED < TOP_SECRET"
       [patterns(CLASSES),
        option("use_llm_judge", OptionKind::Bool, Tighter::On, "ask a model too").or(Lit::Bool(false))];
    14 adaptive_thresholds 270 false Before ClassifyAndPrepare Effect MAY_LOG (ABSENT, LOG, LOG)
       "tightens scored thresholds of the later steps by session risk and classification; never loosens" [];
    15 inspect_image 280 false Before ClassifyAndPrepare Detector MAY_BLOCK (ABSENT, LOG, LOG)
       "image parts: type, size, metadata, text chunks; what cannot be read is uncovered"
       [option("on_uncovered", OptionKind::Enum(&["log", "notify", "block"]), Tighter::Higher,
            "what is done about a part that cannot be read").or(Lit::Word("log"))];
    16 detect_injection [detect_prompt_injection] 300 true Before ThreatDetection Detector MAY_BLOCK scored true
       (block_at(8_000), block_at(6_000), block_at(5_000))
       "direct, indirect, jailbreak, role hijack, context manipulation" [];
    17 detect_escalation 310 true Before ThreatDetection Detector MAY_BLOCK (ABSENT, BLOCK, BLOCK)
       "sudo, admin, system-prompt override" [];
    18 detect_tool_poison [detect_tool_poisoning] 320 true Before ThreatDetection Detector MAY_BLOCK
       (ABSENT, BLOCK, BLOCK)
       "instructions hidden in tool definitions; a definition that changed within the session" [];
    19 detect_code_exec 330 false Before ThreatDetection Detector MAY_BLOCK (ABSENT, BLOCK, BLOCK)
       "text meant to be executed, in tool results and documents" [];
    20 detect_multimodal 340 false Before ThreatDetection Detector MAY_BLOCK (ABSENT, BLOCK, BLOCK)
       "instructions hidden in non-text parts" [];
    21 detect_exfiltration 355 true Before ThreatDetection Detector MAY_BLOCK (ABSENT, BLOCK, BLOCK)
       "paste sites, DNS tunnels, webhooks, storage links, encoded blobs, image-link leaks" [];
    22 detect_memory_poison [detect_memory_poisoning] 360 true Before ThreatDetection Detector MAY_BLOCK
       (ABSENT, BLOCK, BLOCK)
       "writes to memory files, identity override, persistent or delayed instructions, MCP abuse" [];
    23 detect_insider_threat 365 true Before ThreatDetection Detector MAY_BLOCK (ABSENT, ABSENT, BLOCK)
       "self-preservation, blackmail, deception, unauthorised sharing, phishing; risk of the session"
       [number("block_at", 1, 1_000, "session risk that is acted on").or(Lit::Integer(80))];
    24 model_routing 400 false Before ClassifyAndPrepare Gate MAY_BLOCK (ABSENT, ABSENT, BLOCK)
       "allowed models for this classification, residency, fallback chain" [];
    25 call_llm 600 true Call RouteAndExecute Effect MAY_RUN (RUNS, RUNS, RUNS)
       "the provider call"
       [number("timeout_seconds", 1, 24 * HOUR, "longest call"), number("retries", 0, 10, "most further attempts")];
    26 call_tool 610 true Call RouteAndExecute Effect MAY_RUN (RUNS, RUNS, RUNS)
       "runs a server-side (MCP) tool, where tool servers are configured" [];
    27 tool_permissions 620 true Call RouteAndExecute Gate MAY_BLOCK (ABSENT, BLOCK, BLOCK)
       "allow and deny list per agent, globs"
       [list("allow", Tighter::Intersected, "the only tools allowed; all where absent"),
        list("deny", Tighter::United, "tools that are refused")];
    28 tool_constraints 625 true Call RouteAndExecute Gate MAY_BLOCK (ABSENT, BLOCK, BLOCK)
       "argument schema and value limits"
       [option("constraints", OptionKind::Constraints, Tighter::ByName, "the limits of each tool's arguments")];
    29 filter_tools [tool_filter] 630 true Call RouteAndExecute Transform MAY_RUN (ABSENT, RUNS, RUNS)
       "drops tool definitions that the agent may not see, before the provider sees them" [];
    30 scan_tool_calls 635 true Call RouteAndExecute Detector MAY_BLOCK (ABSENT, BLOCK, BLOCK)
       "tool arguments: traversal, injection, exfiltration" [];
    31 require_approval [human_approval] 640 true Call RouteAndExecute Gate MUST_BLOCK
       (ABSENT, ABSENT, with(Action::Block, &[("required_for", Lit::Needs(&[("classification", "RESTRICTED"),
            ("classification", "CONFIDENTIAL"), ("tool", "send_email"), ("tool", "delete_*")]))]))
       "a person must grant this exact action"
       [option("required_for", OptionKind::Needs, Tighter::United, "classifications and tools that need a person"),
        option("tier", OptionKind::Enum(&["authenticated", "elevated"]), Tighter::Higher, "who may grant")
            .or(Lit::Word("authenticated")),
        number("expires_seconds", 1, 744 * HOUR, "how long a grant holds")];
    32 verify_tool_governance 645 false Call RouteAndExecute Gate MAY_BLOCK (ABSENT, ABSENT, BLOCK)
       "a reported tool execution must carry a grant that we issued" [];
    33 forbidden_zones 650 false Call RouteAndExecute Gate MAY_BLOCK (ABSENT, ABSENT, BLOCK)
       "paths that no tool may touch" [list("paths", Tighter::United, "further paths")];
    34 mint_capability_token 660 false Call RouteAndExecute Effect MAY_RUN (ABSENT, RUNS, RUNS)
       "capability token naming tools, arguments, constraints"
       [number("ttl_seconds", 1, 90 * 24 * HOUR, "how long the token holds").or(Lit::Integer(60))];
    35 scan_output 700 false After/Match ResponseSafety Detector MAY_ALL (LOG, REDACT, BLOCK)
       "the answer through the same detectors" [];
    36 dlp 710 false After/Whole ResponseSafety Detector MAY_ALL (ABSENT, REDACT, BLOCK)
       "bulk or structured leakage: tables of records, key material, source" [];
    37 pii_restore 720 false After/Match ResponseSafety Transform MAY_RUN (ABSENT, RUNS, RUNS)
       "puts the caller's own personal data back for the caller" [];
    38 content_safety 730 false After/Window ResponseSafety Detector MAY_ALL scored true (ABSENT, REDACT, BLOCK)
       "harmful content" [list("categories", Tighter::UnitedOfAll, "the kinds looked for; all where absent")];
    39 output_constraints 740 false After/Whole ResponseSafety Gate MAY_BLOCK (ABSENT, ABSENT, BLOCK)
       "length, format, JSON schema, forbidden terms" [];
    40 output_dedup 750 false After/Window ResponseSafety Detector MAY_ALL (ABSENT, LOG, LOG)
       "repeated output; `redact` collapses it" [];
    41 verify_artifact 760 false After/Whole ResponseSafety Gate MAY_BLOCK (ABSENT, ABSENT, BLOCK)
       "files that the agent writes: protected patterns"
       [list("protected_patterns", Tighter::United, "further patterns of file names")];
    42 shell_bleed 770 false After/Match ResponseSafety Detector MAY_ALL (ABSENT, REDACT, BLOCK)
       "shell commands or environment values leaking into prose" [];
    43 taint_check 780 false After/Match ResponseSafety Gate MAY_ALL (ABSENT, REDACT, BLOCK)
       "a tainted value reaches a sink: EXTERNAL to shell, PII to network or e-mail, SECRET to output" [];
    44 session_escalation 790 false After/AfterTheFact ResponseSafety Gate MAY_BLOCK (ABSENT, LOG, BLOCK)
       "behaviour that escalates over a session" [];
    45 classify_response 800 false After/AfterTheFact ResponseSafety Detector MAY_BLOCK (ABSENT, ABSENT, LOG)
       "classification of the answer" [];
    46 cost_tracking 900 false After/AfterTheFact Tracking Effect MAY_LOG (LOG, LOG, LOG)
       "tokens and money, recorded" [];
    47 loop_guard 910 false After/AfterTheFact Tracking Gate MAY_BLOCK
       (ABSENT, with(Action::Block, &[("max_iterations", Lit::Integer(25))]),
        with(Action::Block, &[("max_iterations", Lit::Integer(15))]))
       "repeated near-identical calls: counted here, refused at the start of the next call"
       [number("max_iterations", 1, 1_000_000, "most near-identical calls")];
    48 session_loop_guard 920 false After/AfterTheFact Tracking Gate MAY_BLOCK (ABSENT, LOG, BLOCK)
       "the same across the session" [number("max_iterations", 1, 1_000_000, "most near-identical calls of a session")];
    49 debug_logging 930 false After/AfterTheFact Tracking Effect MAY_LOG (ABSENT, ABSENT, LOG)
       "prompts and answers, redacted, where an organization has asked for it"
       [option("include_prompts", OptionKind::Bool, Tighter::Off, "keep prompts too").or(Lit::Bool(false))];
};
