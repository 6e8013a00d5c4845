//! What becomes of a request, for the door to render.
//!
//! Owns the ways in which a request ends. Never a status line and never a body's shape, but for a provider's own bytes.

use bytes::Bytes;
use http::HeaderMap;

use super::{
    Services,
    exchange::Exchange,
    refusal::{Failure, Refused},
    streaming::GovernedStream,
};
use crate::limits::Quota;

/// What becomes of a request.
pub enum Outcome {
    /// A whole answer.
    Whole(WholeAnswer),
    /// An answer that is streamed.
    Stream(Box<GovernedStream>, AnswerHead),
    /// A decision against it, recorded.
    Refused(Box<Refused>, AnswerHead),
    /// No decision, or no answer.
    Failed(Failure, AnswerHead),
    /// The key is not valid any more.
    Unauthorized,
}

/// A whole answer.
pub struct WholeAnswer {
    /// The provider's status.
    pub status: u16,
    /// The body.
    pub body: Bytes,
    /// Headers and names.
    pub head: AnswerHead,
}

/// What stands beside any answer.
#[derive(Clone, Debug, Default)]
pub struct AnswerHead {
    /// Names and links for the body and headers.
    pub links: Links,
    /// Headers of the provider that a caller may see.
    pub headers: HeaderMap,
    /// The tightest limit on calls.
    pub quota: Option<Quota>,
    /// The tightest limit on tokens.
    pub tokens: Option<Quota>,
}

/// The ids that clients read from answers, chunks and refusals.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[expect(missing_docs, reason = "the names are those of the published client; see README, wire")]
pub struct Links {
    pub session_id: String,
    pub task_id: String,
    pub agent_uuid: String,
    pub pipeline_uuid: String,
    pub audit_url: String,
}

/// Names and links; `decision` is the record's id.
pub(super) fn head(services: &Services, exchange: &Exchange, decision: Option<&str>) -> AnswerHead {
    let links = Links {
        session_id: exchange.names.session.clone(),
        task_id: exchange.names.task.clone(),
        agent_uuid: exchange.caller.agent.as_str().to_owned(),
        pipeline_uuid: decision.unwrap_or_default().to_owned(),
        audit_url: decision
            .map(|id| format!("{}/api/audit/event/{id}", services.settings.public_url))
            .unwrap_or_default(),
    };
    let (quota, tokens) = exchange.quota.as_ref().map_or((None, None), |verdict| (verdict.calls, verdict.tokens));
    AnswerHead { links, headers: HeaderMap::new(), quota, tokens }
}
