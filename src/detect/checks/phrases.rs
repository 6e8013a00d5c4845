//! Checks of rows about phrases: instructions to the model.
//!
//! Owns what tells an attack from talk about attacks. A phrase that is quoted or discussed is still reported, as a weak
//! hint, so that what an organization refuses is its threshold's business. Looks at 160 bytes around a match. Total.

use super::mentions;
use crate::detect::pattern::{Candidate, Verdict};

/// The score of a phrase that somebody talks about.
const TALK: u16 = 4_500;
/// The score of a hint.
const HINT: u16 = 5_500;

/// Words before a phrase that make it talk about phrases.
const ABOUT: [&str; 30] = [
    "injection",
    "attack",
    "malicious",
    "adversar",
    "jailbreak",
    "such as",
    "e.g.",
    "for example",
    "phrase",
    "like \"",
    "like '",
    "like `",
    "like \u{201c}",
    "says \"",
    "called",
    "pattern",
    "detect",
    "classif",
    "payload",
    "trick",
    "attempt",
    "assert",
    "filter",
    "example of",
    "examples of",
    "try to",
    "tries to",
    "tell it to",
    "telling it to",
    "known as",
];
const NEGATIONS: [&str; 9] =
    ["not ", "n't ", "never ", "n\u{2019}t ", "cannot ", "without ", "nicht ", "avoid ", "shouldn"];
const STRONG_NOUNS: [&str; 8] =
    ["instruction", "prompt", "directive", "direction", "guideline", "programming", "guardrail", "safeguard"];
const BACKWARD: [&str; 15] = [
    "previous",
    "prior",
    "above",
    "earlier",
    "preceding",
    "foregoing",
    "initial",
    "original",
    "former",
    "past",
    "system",
    "your",
    "developer",
    "existing",
    "given",
];

/// A phrase at its row's score, unless it is talked about or denied.
pub(in crate::detect) fn phrase(c: &Candidate<'_>) -> Option<Verdict> {
    with_context(c, c.score)
}

fn with_context(c: &Candidate<'_>, score: u16) -> Option<Verdict> {
    if denied(c) {
        return None;
    }
    Some(c.scored(if score > TALK && discussed(c) { TALK } else { score }))
}

/// "do not ignore …", "never reveal …".
fn denied(c: &Candidate<'_>) -> bool {
    NEGATIONS.iter().any(|word| {
        let before = c.before(word.len());
        before.eq_ignore_ascii_case(word.as_bytes())
    })
}

/// In the same sentence, somebody speaks about such phrases.
fn discussed(c: &Candidate<'_>) -> bool {
    let before = c.before(96);
    let line = before.rsplit(|byte| b"\n!?".contains(byte)).next().unwrap_or_default();
    // A full stop ends the sentence, the one of `e.g.` does not.
    let stop = line.windows(4).rposition(|part| part.ends_with(b". ") && !part.starts_with(b".") && part != b"e.g.");
    mentions(stop.and_then(|at| line.get(at + 4..)).unwrap_or(line), &ABOUT)
}

/// Verb and noun of an instruction override: certain with a strong noun that points back, a hint without.
pub(in crate::detect) fn override_(c: &Candidate<'_>) -> Option<Verdict> {
    let value = c.value();
    let strong = mentions(value, &STRONG_NOUNS);
    let back = mentions(value, &BACKWARD);
    let all = mentions(value, &["all", "any", "every"]);
    let order = mentions(value, &["instruction", "prompt"]) && !mentions(value, &["ignoring", "disregarding"]);
    let soft =
        mentions(value.get(..9).unwrap_or(value), &["override", "bypass", "skip", "overlook", "abandon", "discard"]);
    let score = match (strong, back, soft) {
        (true, true, false) => 9_200,
        (true, false, false) if all && order && !goes_on(c) => 8_500,
        (false, true, false) if all || mentions(value, &["your", "system"]) => 8_500,
        (true, true, true) if all || mentions(value, &["your", "system"]) => 8_200,
        (_, true, _) => HINT,
        (true, ..) if mentions(value, &["instruction", "prompt"]) => HINT,
        _ if mentions(value, &["rules", "restriction", "orders"]) && all => HINT,
        _ => return None,
    };
    with_context(c, score)
}

/// Whether the sentence goes on and makes the phrase narrower: "all instructions that …", "no restrictions on …".
fn goes_on(c: &Candidate<'_>) -> bool {
    let after = c.after(12);
    let next = after.strip_prefix(b" ").unwrap_or_default();
    let open = [&b"and "[..], b"or ", b"you", b"given", b"now", b"from now", b"before", b"above", b"at all", b"here"];
    next.first().is_some_and(u8::is_ascii_alphabetic) && !open.iter().any(|word| next.starts_with(word))
}

/// "You have no restrictions", full stop.
pub(in crate::detect) fn boundless(c: &Candidate<'_>) -> Option<Verdict> {
    with_context(c, if goes_on(c) { HINT } else { c.score })
}

/// Asking for the system prompt: certain when it is "your" and hidden, or wanted to the letter.
pub(in crate::detect) fn leak(c: &Candidate<'_>) -> Option<Verdict> {
    let value = c.value();
    let yours = mentions(value, &["your", "you were", "you are"]);
    let hidden = mentions(value, &HIDDEN) || (yours && mentions(value, &["prompt"]));
    let letter = mentions(value, &["verbatim", "word for word", "exactly"]) || mentions(c.after(80), &LITERALLY);
    let score = match (yours, hidden, letter) {
        (true, true, _) => 8_500,
        (_, true, true) => 8_200,
        (_, false, true) => 6_500,
        (true, false, false) => 5_000,
        (false, true, false) => HINT,
        (false, false, false) => return None,
    };
    with_context(c, score)
}

/// Asking for the words above: certain when their first words are named.
pub(in crate::detect) fn echo(c: &Candidate<'_>) -> Option<Verdict> {
    let value = c.value();
    let after = c.after(80);
    let score = if mentions(after, &["starting with", "beginning with", "you are"]) {
        8_200
    } else if mentions(after, &LITERALLY) || mentions(value, &["verbatim", "exactly"]) {
        6_500
    } else if mentions(value, &["everything", "instructions", "prompt"]) {
        HINT
    } else {
        return None;
    };
    with_context(c, score)
}

const HIDDEN: [&str; 9] =
    ["system", "initial", "hidden", "secret", "original", "internal", "developer", "exact", "starting"];
const LITERALLY: [&str; 7] =
    ["verbatim", "word for word", "starting with", "beginning with", "code block", "you are", "in full"];

/// Words to an AI that reads: certain when an order follows.
pub(in crate::detect) fn addressed(c: &Candidate<'_>) -> Option<Verdict> {
    const ORDERS: [&str; 22] = [
        "ignore",
        "must",
        "should",
        "please",
        "do not",
        "don't",
        "include",
        "recommend",
        "respond",
        "output",
        "disregard",
        "forward",
        "rate ",
        "send",
        "add ",
        "reply",
        "tell",
        "stop",
        "append",
        "visit",
        "print",
        "write",
    ];
    let after = c.after(80);
    let sentence = after.split(|byte| *byte == b'\n').next().unwrap_or_default();
    with_context(c, if mentions(sentence, &ORDERS) { 8_200 } else { HINT })
}

/// A marker of a chat template: ordinary in code about templates, an attack with an order behind it.
pub(in crate::detect) fn marker(c: &Candidate<'_>) -> Option<Verdict> {
    const ORDERS: [&str; 8] =
        ["you are now", "you must", "ignore", "disregard", "no longer", "new instruction", "reveal", "unrestricted"];
    with_context(c, if mentions(c.after(120), &ORDERS) { 8_500 } else { HINT })
}

/// A phrase that is an attack only with an order behind it, and ordinary without.
pub(in crate::detect) fn ordered(c: &Candidate<'_>) -> Option<Verdict> {
    marker(c).filter(|found| found.score > HINT)
}

/// "without restrictions": a hint, certain when the model is told to answer so.
pub(in crate::detect) fn unbound(c: &Candidate<'_>) -> Option<Verdict> {
    const MODEL: [&str; 12] = [
        "you are", "you will", "you must", "you can", "respond", "answer", "act as", "pretend", "chatgpt", "reply",
        "you have", "comply",
    ];
    let told = mentions(c.before(96), &MODEL) || mentions(c.after(48), &MODEL);
    with_context(c, if told { 8_200 } else { HINT })
}
