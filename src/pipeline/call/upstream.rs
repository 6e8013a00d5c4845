//! The body that goes to the provider.
//!
//! Owns which edits a decision makes to the caller's bytes: the provider's own model name, tools taken away, texts redacted,
//! a bound where a budget needs one. Where nothing changes, the bytes are the caller's own.

use std::{borrow::Cow, collections::BTreeMap};

use bytes::Bytes;

use crate::{
    detect::redact,
    domain::detection::Finding,
    pipeline::{
        Services,
        budget::Limits,
        exchange::{Exchange, Judgement},
    },
    providers::openai::Upstream,
};

/// The body for this call.
pub(super) fn body(services: &Services, exchange: &Exchange, judgement: &Judgement, model: &str) -> Bytes {
    let request = &exchange.request;
    let bound = services.settings.default_max_tokens;
    let limited = Limits::of(judgement).are_any();
    let max_tokens = (limited && request.max_tokens.is_none()).then_some(bound);
    let dropped = request.tools.iter().enumerate().filter(|(place, _)| judgement.dropped_tools.contains(place));
    let mut texts: BTreeMap<usize, Vec<Finding>> = BTreeMap::new();
    for (value, findings) in &judgement.redactions {
        texts.entry(*value).or_default().extend(findings.iter().cloned());
    }
    let texts = texts.iter().filter_map(|(value, findings)| {
        let text = request.value(*value)?.as_str()?.into_owned();
        Some((*value, redact(&text, findings, |finding| Cow::Owned(placeholder(finding.category)))))
    });
    let change = Upstream {
        model: Some(model),
        max_tokens,
        without: dropped.map(|(_, tool)| tool).collect(),
        texts: texts.collect(),
    };
    request.upstream(&change)
}

/// What stands where something was: `[REDACTED]` for secrets, `[MASKED_EMAIL]` and the like for personal data.
pub(in crate::pipeline) fn placeholder(category: &str) -> String {
    match category.split_once('.') {
        Some(("pii", kind)) => format!("[MASKED_{}]", kind.to_ascii_uppercase()),
        _ => "[REDACTED]".to_owned(),
    }
}
