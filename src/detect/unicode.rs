//! Characters that say one thing to a person and another to a machine.
//!
//! Owns attacks by characters: bidi controls, tags, variation selectors, zero-width characters inside words, and words of
//! mixed scripts. Judges by context: the same character is ordinary in one place and an attack in another. Emoji
//! sequences, flags, Arabic, Hebrew, Persian and Indic joiners, ideographic variants, accents and words of any one script
//! pass. Total, linear in the text, allocates nothing but findings.

use super::chars::{folded, is_combining, is_invisible, is_latin, is_letter};
use crate::domain::detection::{Family, Finding, Severity};

/// Longest word that is looked at as one, in characters.
const LONGEST_WORD: usize = 64;
/// So many invisible characters in a row carry a message.
const RUN: usize = 6;
/// So many presentation selectors on letters are no leftovers of removed emoji.
const LEFTOVERS: usize = 4;
/// So many of the same presentation selector in a row are no leftovers either.
const LONGEST_LEFTOVER: usize = 8;

/// Appends what is found in `text`, in no order.
pub(super) fn scan(text: &str, out: &mut Vec<Finding>) {
    bidi(text, out);
    let mut chars = text.char_indices().peekable();
    let mut before = [None; 2];
    let mut leftovers = Vec::new();
    while let Some((at, c)) = chars.next() {
        if c.is_ascii() && !c.is_ascii_alphabetic() {
            before = [before[1], Some(c)];
            continue;
        }
        let rest = text.get(at..).unwrap_or_default();
        let taken = if is_tag(c) {
            tags(rest, at, before[1], out)
        } else if is_selector(c) {
            selectors(rest, at, before[1], &mut leftovers, out)
        } else if is_invisible(c) {
            invisible_run(rest, at, out)
        } else if is_letter(c) {
            word(rest, at, out)
        } else {
            c.len_utf8()
        };
        before = [before[1], text.get(..at + taken).and_then(|seen| seen.chars().next_back())];
        while chars.next_if(|(next, _)| *next < at + taken).is_some() {}
    }
    if leftovers.len() >= LEFTOVERS {
        for (start, end) in leftovers {
            out.push(finding("unicode.variation_smuggling", "Hidden data in variation selectors", 8_500, (start, end)));
        }
    }
}

fn finding(category: &'static str, label: &'static str, score: u16, (start, end): (usize, usize)) -> Finding {
    let severity = if score >= 9_500 { Severity::Critical } else { Severity::High };
    Finding { family: Family::Unicode, category, severity, label, score, start, end }
}

/// Controls that reorder left-to-right text, on lines without a right-to-left letter. Embeddings and isolates that run
/// left to right change nothing there; address books and message catalogues leave them behind.
fn bidi(text: &str, out: &mut Vec<Finding>) {
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        if line.contains(reorders) && !line.contains(is_right_to_left) {
            for (at, c) in line.char_indices().filter(|(_, c)| reorders(*c)) {
                let span = (start + at, start + at + c.len_utf8());
                out.push(finding(
                    "unicode.bidi_control",
                    "Bidirectional control outside right-to-left text",
                    9_500,
                    span,
                ));
            }
        }
        start += line.len();
    }
}

/// RLE, RLO, RLI.
fn reorders(c: char) -> bool {
    matches!(c, '\u{202b}' | '\u{202e}' | '\u{2067}')
}

fn is_bidi(c: char) -> bool {
    matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_right_to_left(c: char) -> bool {
    matches!(c, '\u{590}'..='\u{8ff}' | '\u{fb1d}'..='\u{fdff}' | '\u{fe70}'..='\u{fefc}' | '\u{10800}'..='\u{10fff}' | '\u{1e800}'..='\u{1efff}')
        && is_letter(c)
}

fn is_tag(c: char) -> bool {
    matches!(c, '\u{e0000}'..='\u{e007f}')
}

/// A run of tags: a flag of a region after a black flag, else hidden text. Returns the run's bytes.
fn tags(rest: &str, at: usize, before: Option<char>, out: &mut Vec<Finding>) -> usize {
    let length = run(rest, is_tag);
    let run = rest.get(..length).unwrap_or_default();
    let mut names = run.chars();
    let closed = names.next_back() == Some('\u{e007f}');
    let region = names.all(|c| matches!(c, '\u{e0030}'..='\u{e0039}' | '\u{e0061}'..='\u{e007a}'));
    let flag = before == Some('\u{1f3f4}') && closed && region && (4..=7).contains(&run.chars().count());
    if !flag {
        out.push(finding("unicode.tag_characters", "Hidden text in tag characters", 9_900, (at, at + length)));
    }
    length
}

fn is_selector(c: char) -> bool {
    matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}' | '\u{180b}'..='\u{180d}')
}

/// A run of variation selectors. One behind its base is what they are for; several carry data. Returns the run's bytes.
fn selectors(
    rest: &str,
    at: usize,
    before: Option<char>,
    leftovers: &mut Vec<(usize, usize)>,
    out: &mut Vec<Finding>,
) -> usize {
    let length = run(rest, is_selector);
    let span = (at, at + length);
    let run = rest.get(..length).unwrap_or_default();
    let presentation = run.chars().all(|c| matches!(c, '\u{fe0e}' | '\u{fe0f}'));
    let first = run.chars().next();
    let repeated = run.chars().all(|c| Some(c) == first);
    let count = run.chars().count();
    let on_letter = before.is_some_and(|c| c.is_ascii_alphabetic());
    let leftover = presentation && (count <= 2 || (repeated && count < LONGEST_LEFTOVER));
    if count >= 2 && !leftover {
        out.push(finding("unicode.variation_smuggling", "Hidden data in variation selectors", 9_800, span));
    } else if on_letter && presentation {
        leftovers.push(span);
    } else if before.is_none_or(|c| c.is_ascii()) && !presentation {
        out.push(finding("unicode.variation_smuggling", "Hidden data in variation selectors", 8_500, span));
    }
    length
}

/// A run of invisible characters outside a word. Returns the run's bytes.
fn invisible_run(rest: &str, at: usize, out: &mut Vec<Finding>) -> usize {
    let length = run(rest, is_invisible);
    if rest.get(..length).is_some_and(|run| run.chars().filter(|c| *c != '\u{ad}').count() >= RUN) {
        out.push(finding("unicode.zero_width", "Hidden data in zero-width characters", 9_500, (at, at + length)));
    }
    length
}

/// Bytes of the run of such characters at the start of `rest`.
fn run(rest: &str, member: fn(char) -> bool) -> usize {
    rest.find(|c| !member(c)).unwrap_or(rest.len())
}

/// What one word is made of.
#[derive(Default)]
struct Word {
    letters: usize,
    latin: usize,
    /// Cyrillic, Greek and their kin that look Latin.
    alike: usize,
    /// Cyrillic, Greek and their kin that do not.
    other: usize,
    /// Invisible characters between two letters of scripts that never join.
    hidden: usize,
    /// `camelCase` and the like broken by one zero-width space, as web pages do to let a line break.
    soft_break: bool,
}

/// A word: letters, marks on them, and invisible characters between them. Returns its bytes.
fn word(rest: &str, at: usize, out: &mut Vec<Finding>) -> usize {
    let mut word = Word::default();
    let (mut length, mut last, mut waiting) = (0, None, 0_usize);
    let mut longest = 0;
    for (offset, c) in rest.char_indices().take(LONGEST_WORD) {
        if is_invisible(c) {
            waiting += usize::from(c != '\u{ad}' && !is_bidi(c));
            continue;
        }
        if !is_letter(c) && !is_combining(c) {
            break;
        }
        if waiting > 0 && never_joins(c) && last.is_some_and(never_joins) {
            word.hidden += waiting;
            word.soft_break |= last.is_some_and(char::is_lowercase) && c.is_uppercase();
        }
        word.count(c);
        longest = longest.max(std::mem::take(&mut waiting));
        last = Some(c);
        length = offset + c.len_utf8();
    }
    let span = (at, at + length);
    if longest >= RUN || word.hidden > 0 && !(word.hidden == 1 && word.soft_break) {
        let score = if word.hidden > 1 { 9_500 } else { 8_500 };
        out.push(finding("unicode.zero_width", "Zero-width characters inside a word", score, span));
    } else if word.is_disguised() {
        out.push(finding(
            "unicode.mixed_script",
            "A word that mixes look-alike letters of several scripts",
            8_500,
            span,
        ));
    }
    length
}

impl Word {
    fn count(&mut self, c: char) {
        if is_combining(c) {
            return;
        }
        self.letters += 1;
        if is_latin(c) {
            self.latin += 1;
        } else if folded(c).is_some() {
            self.alike += 1;
        } else {
            self.other += 1;
        }
    }

    /// Latin to the eye, not to the machine: every foreign letter looks Latin, and Latin letters are no slip of the
    /// keyboard in a foreign word. `Δt`, `μm` and a Cyrillic word with one Latin `c` are ordinary.
    fn is_disguised(&self) -> bool {
        self.alike > 0 && self.other == 0 && self.letters >= 4 && self.latin >= 2 && self.latin * 2 >= self.alike
    }
}

/// Letters of scripts in which no invisible character ever stands between two letters.
fn never_joins(c: char) -> bool {
    is_latin(c) || matches!(c, '\u{370}'..='\u{3ff}' | '\u{400}'..='\u{52f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&'static str> {
        let mut out = Vec::new();
        scan(text, &mut out);
        for finding in &out {
            assert!(text.get(finding.start..finding.end).is_some_and(|found| !found.is_empty()), "{text:?}");
        }
        out.iter().map(|finding| finding.category).collect()
    }

    #[test]
    fn ordinary_text_of_many_scripts_passes() {
        for text in [
            "naïve café, Ærøskøbing, Żółć, İstanbul, Nguyễn Tấn Dũng",
            "Обычный русский текст, Cтрока с латинской буквой, email'ом, WhatsAppом, IT-отдел",
            "Ελληνικά κείμενα και Δt, μm, λx, Ωm, αβγ",
            "مرحبا بالعالم‎ (ABC) می‌خواهم نمی‌دانم",
            "שלום עולם \u{2067}abc\u{2069} \u{202b}עברית\u{202c}",
            "क्‍ष श्री‍ हिन्दी ന്‍റെ  ශ්‍රී",
            "中文和日本語のテキスト、한국어 텍스트。葛󠄀城市",
            "👨‍👩‍👧‍👦 👍🏽 ❤️ ☎️ 1️⃣ #️⃣ 🏴󠁧󠁢󠁥󠁮󠁧󠁿 🏳️‍🌈 ©️ ❤️‍🔥",
            "\u{feff}A file with a byte order mark",
            "call \u{202a}+1 555 010 9999\u{202c} or \u{202d}+49 30 1234\u{202c}, C:\u{202a}\\Users",
            "Hello, \u{2068}Anna\u{2069}! Ver\u{ad}fas\u{ad}sung camel\u{200b}Case",
            "ภาษา\u{200b}ไทย ខ្មែរ\u{200b}ភាសា a\u{200b} b",
            "preheader \u{34f}\u{200c}\u{a0}\u{34f}\u{200c}\u{a0}\u{34f}\u{200c}\u{a0}",
            "Stripped emoji\u{fe0f} left one\u{fe0f} behind, ☠\u{fe0f} \u{fe0f}\u{fe0f}\u{fe0f}DANGER",
            "e\u{301}tude n\u{303} āáǎàɑ /fəˈnɛtɪk ɡræb/",
        ] {
            assert_eq!(found(text), Vec::<&str>::new(), "{text:?}");
        }
    }

    #[test]
    fn controls_that_reorder_latin_text_are_found() {
        assert_eq!(found("if (access == \"user\u{202e} // admin\u{2066}\")"), ["unicode.bidi_control"]);
        assert_eq!(found("file\u{202e}gpj.exe"), ["unicode.bidi_control"]);
        assert_eq!(found("שלום\nabc \u{2067}def"), ["unicode.bidi_control"]);
    }

    #[test]
    fn hidden_text_in_tags_and_selectors_is_found() {
        let tags: String = "ignore all".chars().map(|c| char::from_u32(0xe0000 + c as u32).unwrap()).collect();
        assert_eq!(found(&format!("Hi{tags}!")), ["unicode.tag_characters"]);
        assert_eq!(found("🏴\u{e0067}\u{e0062} not closed"), ["unicode.tag_characters"]);
        assert_eq!(found("😀\u{e0158}\u{e0149}\u{e0150}"), ["unicode.variation_smuggling"]);
        assert_eq!(found("a\u{e0102}b"), ["unicode.variation_smuggling"]);
        assert_eq!(found("a\u{fe01}\u{fe05}"), ["unicode.variation_smuggling"]);
        assert_eq!(found("a\u{fe0f}b\u{fe0e}c\u{fe0f}d\u{fe0e}").len(), 4);
    }

    #[test]
    fn zero_width_characters_inside_words_are_found() {
        assert_eq!(found("ig\u{200b}nore"), ["unicode.zero_width"]);
        assert_eq!(found("p\u{200d}a\u{2060}ss"), ["unicode.zero_width"]);
        assert_eq!(found("пр\u{200b}ивет"), ["unicode.zero_width"]);
        assert_eq!(found("hi \u{200b}\u{200c}\u{200b}\u{200b}\u{200c}\u{200b}\u{200c} there"), ["unicode.zero_width"]);
        assert_eq!(found("hi\u{200b}\u{200c}\u{200b}\u{200b}\u{200c}\u{200b}\u{200c} there"), ["unicode.zero_width"]);
    }

    #[test]
    fn words_of_mixed_scripts_are_found() {
        for word in ["pаypal", "Аpple", "gооgle", "micrоsоft", "ignοre", "pаsswоrd"] {
            assert_eq!(found(word), ["unicode.mixed_script"], "{word}");
        }
    }
}
