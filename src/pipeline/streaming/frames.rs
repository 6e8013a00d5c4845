//! The bytes of events: what a first chunk gains, and how an event with other data is framed.
//!
//! Owns framing only; pure. Never looks into a text.

use bytes::Bytes;
use serde_json::json;

use crate::{domain::json::escape_into, pipeline::Links, providers::sse::Event};

/// The ids that clients read from the top level of the first chunk.
pub(super) fn first_members(links: &Links, holding: bool) -> Vec<(&'static str, Vec<u8>)> {
    let quoted = |text: &str| {
        let mut out = Vec::with_capacity(text.len() + 2);
        escape_into(&mut out, text);
        out
    };
    let object = json!({ "held": holding, "blocked": false });
    vec![
        ("session_id", quoted(&links.session_id)),
        ("task_id", quoted(&links.task_id)),
        ("agent_uuid", quoted(&links.agent_uuid)),
        ("pipeline_uuid", quoted(&links.pipeline_uuid)),
        ("audit_url", quoted(&links.audit_url)),
        ("tappass", object.to_string().into_bytes()),
    ]
}

/// Whether an event is framed as every client expects: it ends in a blank line, and no line ends in a lone CR or begins
/// with a byte order mark. Others are framed anew.
pub(super) fn is_plain(raw: &[u8]) -> bool {
    let ended = raw.ends_with(b"\n\n") || raw.ends_with(b"\r\n\r\n");
    let lone = memchr::memchr_iter(b'\r', raw).any(|at| raw.get(at + 1) != Some(&b'\n'));
    ended && !lone && !raw.starts_with(b"\n") && !raw.starts_with("\u{feff}".as_bytes())
}

/// The event with other data: its other lines stay.
pub(super) fn with_data(event: &Event, data: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(data.len() + event.raw.len().saturating_sub(event.data.len()) + 8);
    let raw = event.raw.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&event.raw);
    for line in raw.split(|b| *b == b'\n' || *b == b'\r') {
        let is_data = line == b"data" || line.starts_with(b"data:");
        if !line.is_empty() && !is_data {
            out.extend_from_slice(line);
            out.push(b'\n');
        }
    }
    out.extend_from_slice(b"data: ");
    // Line ends inside of JSON are white space; here they would be the end of the line.
    out.extend(data.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    out.extend_from_slice(b"\n\n");
    Bytes::from(out)
}
