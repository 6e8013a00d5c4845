//! What a decision leaves in its caller's session.
//!
//! Owns what one call shows: families and severities that were found, the tools that it offers. Only for sessions that
//! the caller named: one of our own names is never heard again. Never waits, and never decides; the steps that read
//! sessions are still to come.

use super::{
    Services,
    exchange::{Exchange, Judgement},
    refusal::RefusalKind,
};
use crate::{
    crypto::sha256,
    domain::digest::Digest,
    sessions::{Glance, Labels, SessionKey},
};

/// Notes a decision.
pub(super) fn note(services: &Services, exchange: &Exchange, judgement: &Judgement) {
    // Whoever is too fast shows nothing new, and must not cost the store anything.
    let limited = judgement.refusal.as_ref().is_some_and(|r| matches!(r.kind, RefusalKind::RateLimited { .. }));
    if !exchange.names.named || limited {
        return;
    }
    let caller = &exchange.caller;
    let labels = judgement.categories.iter().fold(Labels::default(), |labels, found| labels.with_category(found));
    let mut glance = Glance { labels, risk: 0, tools: tools(exchange) };
    for detection in &judgement.detections {
        glance.add(detection.severity);
    }
    services.sessions.note(SessionKey::new(&caller.org, &caller.agent, &exchange.names.session), glance);
}

/// Digest over the definitions as they came. A client writes the same ones in the same way; one that does not has changed
/// something.
fn tools(exchange: &Exchange) -> Option<Digest> {
    let root = exchange.request.root();
    let bytes = |name| root.get(name).and_then(|value| exchange.request.body.get(value.span())).unwrap_or_default();
    (!exchange.request.tools.is_empty()).then(|| sha256(&[bytes("tools"), b"\0", bytes("functions")]))
}
