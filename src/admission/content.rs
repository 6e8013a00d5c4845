//! What entries say: the content of admissions, refusals and completions.
//!
//! Owns field names; fields stand in sorted order, which makes them canonical. Never holds a prompt, an answer or a key:
//! digests, counts and places only.

use std::borrow::Cow;

use serde::Serialize;

use crate::{
    audit::EntryRef,
    domain::{
        detection::{Classification, Detection, Severity},
        digest::Digest,
        money::NanoUsd,
    },
};

/// Content of an `admission`.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the documentation; see README, audit")]
pub struct AdmissionContent<'a> {
    pub agent: &'a str,
    pub body_bytes: u64,
    pub body_digest: Digest,
    pub classification: Classification,
    pub coverage: CoverageRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub credential_unverified: bool,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub detections: &'a [DetectionRecord],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub flags_ignored: &'a [&'static str],
    pub key: &'a str,
    pub missing: &'a [&'static str],
    pub mode: &'a str,
    pub model: &'a str,
    pub policy: PolicyRecord<'a>,
    pub project: &'a str,
    pub provider: &'a str,
    pub request: &'a str,
    pub reserved_nano: NanoUsd,
    pub session: &'a str,
    pub stream: bool,
    pub task: &'a str,
}

/// Content of a `refusal`.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the documentation; see README, audit")]
pub struct RefusalContent<'a> {
    pub agent: &'a str,
    pub blocked_by: &'a str,
    pub body_bytes: u64,
    pub body_digest: Digest,
    pub classification: Classification,
    pub coverage: CoverageRecord,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub detections: &'a [DetectionRecord],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub flags_ignored: &'a [&'static str],
    pub key: &'a str,
    pub missing: &'a [&'static str],
    pub model: &'a str,
    pub policy: PolicyRecord<'a>,
    pub project: &'a str,
    pub reason: &'a str,
    pub request: &'a str,
    pub session: &'a str,
    pub status: u16,
    pub task: &'a str,
}

/// Content of a `completion`.
#[derive(Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the documentation; see README, audit")]
pub struct CompletionContent<'a> {
    pub admission: EntryRef,
    pub bytes_released: u64,
    pub cost_nano: NanoUsd,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coverage: Option<CoverageRecord>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub detections: &'a [DetectionRecord],
    pub duration_us: u64,
    pub outcome: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_request: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<&'a str>,
    pub settled_nano: NanoUsd,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub step_errors: &'a [Cow<'static, str>],
    pub usage: UsageRecord,
}

impl<'a> CompletionContent<'a> {
    /// The same end, for an entry without particulars.
    pub(super) fn brief(&self) -> CompletionContent<'a> {
        CompletionContent {
            admission: self.admission.clone(),
            provider_request: None,
            outcome: self.outcome,
            detections: self.detections,
            reason: self.reason,
            step_errors: self.step_errors,
            ..*self
        }
    }
}

/// Longest place that an entry names, in bytes: keys of the caller's own make it, so it is bounded.
const MOST_PLACE: usize = 512;

/// Tokens, as recorded.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[expect(missing_docs, reason = "the names are the documentation; see README, audit")]
pub struct UsageRecord {
    pub completion_tokens: u64,
    pub estimated: bool,
    pub prompt_tokens: u64,
}

/// Which rule of which policy decided.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the documentation; see README, audit")]
pub struct PolicyRecord<'a> {
    pub outcome: &'a str,
    pub rule: &'a str,
}

/// Bytes of text that detectors saw, and that they did not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the names are the documentation; see README, audit")]
pub struct CoverageRecord {
    pub seen: u64,
    pub uncovered: u64,
}

/// A detection, as recorded.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "the names are the documentation; see README, audit")]
pub struct DetectionRecord {
    pub action: &'static str,
    pub category: &'static str,
    pub length: u64,
    pub offset: u64,
    pub place: String,
    pub score: u16,
    pub severity: Severity,
    pub step: &'static str,
}

impl DetectionRecord {
    /// A detection with what was done about it.
    pub fn new(detection: &Detection, action: &'static str) -> Self {
        Self {
            action,
            category: detection.category,
            length: detection.length as u64,
            offset: detection.offset as u64,
            place: detection.place.chars().take(MOST_PLACE / 4).collect(),
            score: detection.score,
            severity: detection.severity,
            step: detection.step,
        }
    }
}
