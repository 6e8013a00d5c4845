//! Steps on the answer: `tool_permissions`, `scan_output`, `cost_tracking`.
//!
//! Owns reading a whole answer, what its findings do, and the `tappass` object. A step that may refuse an answer does so
//! before a byte of it is released. Settlement is no step: `live` settles whatever happens.

mod object;
pub(super) mod output;

use std::{borrow::Cow, sync::Arc};

use bytes::Bytes;

use super::{
    AnswerHead, Outcome, Services, WholeAnswer,
    live::{Live, Rules},
    refusal::{Failure, Refusal, Refused},
};
use crate::{
    domain::json::{Edits, Kind, Value, line_safe},
    providers::openai::ChatAnswer,
};
use object::answer_object;
use output::Found;

/// Reads a whole answer, runs the steps over it and completes the call.
pub(super) fn finish_whole(
    services: &Arc<Services>,
    body: Bytes,
    mut live: Live,
    mut rules: Rules,
    head: AnswerHead,
) -> Outcome {
    let answer = match ChatAnswer::read(body) {
        Ok(answer) if answer.root().kind() == Kind::Object => answer,
        read => {
            live.fails("provider_error", "the answer is not a JSON object");
            tracing::warn!(error = read.err().map(tracing::field::display), "a provider's answer is not a JSON object");
            return Outcome::Failed(
                Failure::new(502, "provider_malformed", "the provider's answer is not a JSON object"),
                head,
            );
        }
    };
    live.usage = answer.usage();
    live.answer_bytes = answer.text_bytes();
    let strings = answer.root().strings();
    let texts: Vec<(usize, Cow<'_, str>)> = strings.filter_map(|value| Some((value.id(), value.as_str()?))).collect();
    let place = |id| answer.value(id).map_or_else(String::new, Value::path);
    let mut found = output::scan(services, &mut rules, &mut live, &texts, place);
    if found.refusal.is_none() {
        found.refusal = output::refused_tool(services, &mut rules, &answer.tool_calls());
    }
    if let Some(refusal) = found.refusal {
        return refuse(live, &rules, refusal, head);
    }
    output::track_cost(services, &mut rules, &live);
    let body = render(&answer, &found, &rules, &live, &head);
    live.bytes_released = body.len() as u64;
    live.ends("completed");
    drop(live);
    Outcome::Whole(WholeAnswer { status: 200, body, head })
}

/// The answer is not given; the admission stands, and its completion says why.
fn refuse(mut live: Live, rules: &Rules, refusal: Refusal, head: AnswerHead) -> Outcome {
    live.fails("refused", refusal.reason.clone());
    live.count_refusal(&refusal.blocked_by);
    drop(live);
    let classification = rules.judgement.classification;
    Outcome::Refused(Box::new(Refused { refusal, classification }), head)
}

/// The provider's bytes with our object added; where nothing else changes, nothing else changes.
fn render(answer: &ChatAnswer, found: &Found, rules: &Rules, live: &Live, head: &AnswerHead) -> Bytes {
    let mut edits = Edits::default();
    for (key, text) in &found.replaced {
        if let Some(value) = answer.value(*key) {
            let mut quoted = Vec::with_capacity(text.len() + 2);
            crate::domain::json::escape_into(&mut quoted, text);
            edits.replace(value.span(), quoted);
        }
    }
    if !found.replaced.is_empty() {
        // They repeat the text token by token.
        for choice in answer.root().get("choices").into_iter().flat_map(Value::items) {
            edits.remove_member(choice, "logprobs");
        }
    }
    let object = answer_object(rules, live, &head.links);
    edits.insert_member(answer.root(), "tappass", &object);
    let body = edits.apply(&answer.body);
    Bytes::from(line_safe(&body).unwrap_or(body))
}

/// A provider's error body without anything that looks like a secret.
pub(super) fn clean_error(services: &Services, body: &[u8]) -> Bytes {
    output::clean_error(services, body)
}
