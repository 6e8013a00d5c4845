//! What each event of a stream does: forwarded, held, or the end.
//!
//! Owns the reading of events and the inspection of what came. Never releases what was not inspected where a step may still
//! change it.

use std::borrow::Cow;

use bytes::Bytes;

use super::{
    GovernedStream, MOST_TEXT, Stop, Unpaid,
    frames::{is_plain, with_data},
    texts::{Text, place, tool_calls},
};
use crate::{
    domain::json::{Edits, Value, escape_into, line_safe},
    pipeline::{
        after::output,
        refusal::{Failure, Refusal},
    },
    providers::{
        openai::{ChatChunk, DeltaChannel},
        sse::Event,
    },
};

impl GovernedStream {
    pub(super) fn events(&mut self) -> Result<(), Stop> {
        while !self.purse.is_asking()
            && let Some(event) = self.splitter.next_event()
        {
            let event = event.map_err(|error| {
                Stop::cut("provider_cut", Failure::new(502, "provider_event_too_long", error.to_string()))
            })?;
            self.event(event)?;
        }
        Ok(())
    }

    /// One event of the provider.
    pub(super) fn event(&mut self, event: Event) -> Result<(), Stop> {
        if self.saw_done {
            // Whatever follows the end is not part of the answer.
            return Ok(());
        }
        if event.is_comment_only {
            // Its line ends may be of a kind that some clients do not know.
            let raw = if is_plain(&event.raw) { event.raw } else { Bytes::from_static(b": comment\n\n") };
            self.release(raw);
            return Ok(());
        }
        if event.data.as_ref() == b"[DONE]" {
            self.saw_done = true;
            return self.finish(event);
        }
        let chunk = ChatChunk::read(event.data.clone()).map_err(|error| {
            tracing::warn!(error = &error as &dyn std::error::Error, "an event of a stream is not JSON");
            Stop::cut("provider_cut", Failure::new(502, "provider_malformed", "the provider sent a malformed event"))
        })?;
        if let Some(error) = chunk.error() {
            let message = error.get("message").and_then(Value::as_str).unwrap_or(Cow::Borrowed("unknown"));
            tracing::warn!(bytes = message.len(), "the provider sent an error inside its stream");
            let words = "the provider reported an error inside its stream";
            return Err(Stop::cut("provider_error", Failure::new(502, "provider_error", words)));
        }
        let tools = self.collect(&chunk);
        let Some(live) = &mut self.live else { return Ok(()) };
        if let Some(usage) = chunk.usage() {
            live.used(usage);
            self.purse.counts_anew(live);
        }
        if chunk.is_usage_only() && !self.include_usage {
            return Ok(());
        }
        if !self.purse.covers(live.answer_bytes) {
            self.unpaid = Some(Box::new(Unpaid { event, chunk, tools }));
            self.purse.ask(live)?;
            // Where nothing is limited, it may not even be worth waiting.
            return if self.purse.is_asking() { Ok(()) } else { self.pass_on() };
        }
        self.forward(&chunk, event, tools)
    }

    /// More is held: the event that waited goes on, and those that came with it.
    pub(super) fn paid(&mut self) -> Result<(), Stop> {
        self.pass_on()?;
        self.events()
    }

    fn pass_on(&mut self) -> Result<(), Stop> {
        let Some(unpaid) = self.unpaid.take() else { return Ok(()) };
        let Unpaid { event, chunk, tools } = *unpaid;
        self.forward(&chunk, event, tools)
    }

    /// Releases or holds an event whose texts have been collected.
    fn forward(&mut self, chunk: &ChatChunk, event: Event, tools: bool) -> Result<(), Stop> {
        if self.holding && self.unseen_bytes > 0 {
            let words = "the answer is longer than can be inspected before it is released";
            return Err(Stop::cut("refused", Failure::new(502, "answer_too_large", words)));
        }
        if tools && !self.holding && output::judges_tools(&self.rules) {
            self.holding = true;
        }
        if self.holding {
            return self.hold(event);
        }
        let raw = self.dressed(&event, chunk, Edits::default());
        self.release(raw);
        Ok(())
    }

    /// Gathers the chunk's texts; answers whether a tool call speaks in it.
    fn collect(&mut self, chunk: &ChatChunk) -> bool {
        let keep = self.inspects;
        let (texts, total, unseen) = (&mut self.texts, &mut self.text_bytes, &mut self.unseen_bytes);
        let mut tools = false;
        let mut came = 0;
        chunk.deltas(|delta| {
            tools |= matches!(delta.channel, DeltaChannel::ToolName(_) | DeltaChannel::ToolArguments(_));
            came += delta.text.len() as u64;
            if !keep {
                return;
            }
            if *total + delta.text.len() > MOST_TEXT {
                *unseen += delta.text.len() as u64;
                return;
            }
            *total += delta.text.len();
            let known = texts.iter_mut().find(|t| t.choice == delta.choice && t.channel == delta.channel);
            match known {
                Some(known) => known.fragments.push_str(&delta.text),
                None => {
                    texts.push(Text {
                        choice: delta.choice,
                        channel: delta.channel,
                        fragments: delta.text.into_owned(),
                    });
                }
            }
        });
        if let Some(live) = &mut self.live {
            live.answer_bytes += came;
        }
        tools
    }

    fn hold(&mut self, event: Event) -> Result<(), Stop> {
        self.held_bytes += event.raw.len();
        if self.held_bytes > self.services.settings.max_answer_bytes {
            let words = "the answer is larger than can be held for inspection";
            return Err(Stop::cut("refused", Failure::new(502, "answer_too_large", words)));
        }
        self.held.push(event);
        Ok(())
    }

    /// The event's bytes: as they came, or with edits, the first chunk's ids, and line separators escaped.
    fn dressed(&mut self, event: &Event, chunk: &ChatChunk, mut edits: Edits) -> Bytes {
        if let Some(members) = self.first.take() {
            for (key, raw) in members {
                edits.insert_member(chunk.root(), key, &raw);
            }
        }
        if edits.is_empty() && is_plain(&event.raw) && line_safe(&event.data).is_none() {
            return event.raw.clone();
        }
        let data = if edits.is_empty() { event.data.to_vec() } else { edits.apply(&event.data) };
        let data = line_safe(&data).unwrap_or(data);
        with_data(event, &data)
    }

    /// The provider said that it is done: the answer's steps speak, what was held is released, the call is complete.
    fn finish(&mut self, done: Event) -> Result<(), Stop> {
        let replaced = self.inspect()?;
        let held = std::mem::take(&mut self.held);
        let mut given: Vec<bool> = vec![false; self.texts.len()];
        for event in held {
            let Ok(chunk) = ChatChunk::read(event.data.clone()) else { continue };
            let edits = self.redacted(&chunk, &replaced, &mut given);
            let raw = self.dressed(&event, &chunk, edits);
            self.release(raw);
        }
        let raw = if is_plain(&done.raw) { done.raw } else { Bytes::from_static(b"data: [DONE]\n\n") };
        self.release(raw);
        self.complete("completed", true);
        Ok(())
    }

    /// Runs the answer's steps over everything that came; answers the texts that are to be given differently.
    fn inspect(&mut self) -> Result<Vec<(usize, String)>, Stop> {
        let Some(live) = &mut self.live else { return Ok(Vec::new()) };
        let texts: Vec<(usize, Cow<'_, str>)> =
            self.texts.iter().enumerate().map(|(i, t)| (i, Cow::Borrowed(t.fragments.as_str()))).collect();
        let places: Vec<String> = self.texts.iter().map(place).collect();
        let name = |i: usize| places.get(i).cloned().unwrap_or_default();
        let mut found = output::scan(&self.services, &mut self.rules, live, &texts, name);
        if let Some(coverage) = &mut live.coverage {
            coverage.uncovered += self.unseen_bytes;
        }
        if found.refusal.is_none() {
            let calls = tool_calls(&self.texts);
            found.refusal = output::refused_tool(&self.services, &mut self.rules, &calls);
        }
        output::track_cost(&self.services, &mut self.rules, live);
        let is_other = |(i, _): &(usize, String)| self.texts.get(*i).is_some_and(|t| t.channel == DeltaChannel::Other);
        if found.refusal.is_none() && found.replaced.iter().any(is_other) {
            // Texts of any place are gathered there, so a redacted one has no place to be put back.
            let words = "something that has to be redacted stands where it cannot be";
            found.refusal = Some(Refusal::by_step("scan_output", words));
        }
        match found.refusal {
            // What was released before may not have been held back: then the record says so, and nothing more follows.
            Some(refusal) => Err(Stop::Refused(refusal)),
            None => Ok(found.replaced),
        }
    }

    /// Edits that put a redacted text into the first fragment of its channel and empty the others.
    fn redacted(&self, chunk: &ChatChunk, replaced: &[(usize, String)], given: &mut [bool]) -> Edits {
        let mut edits = Edits::default();
        if replaced.is_empty() {
            return edits;
        }
        chunk.deltas(|delta| {
            let at = self.texts.iter().position(|t| t.choice == delta.choice && t.channel == delta.channel);
            let Some((at, (_, text))) = at.and_then(|at| Some((at, replaced.iter().find(|(i, _)| *i == at)?))) else {
                return;
            };
            let first = given.get_mut(at).is_some_and(|given| !std::mem::replace(given, true));
            let mut quoted = Vec::new();
            escape_into(&mut quoted, if first { text } else { "" });
            edits.replace(delta.span, quoted);
        });
        for choice in chunk.root().get("choices").into_iter().flat_map(Value::items) {
            edits.remove_member(choice, "logprobs");
        }
        edits
    }
}
