//! What a text looks like, rather than what it is: the normalised twin.
//!
//! Owns the folding (compatibility forms, invisible characters, marks, look-alike letters) and the way back: every offset
//! of the twin names the bytes of the original that it came from. Never changes a word of one script, so that a Russian
//! text is its own twin. Total and linear; a character folds to four at most, so the twin is bounded.

use unicode_normalization::char::{decompose_canonical, decompose_compatible};

use super::chars::{folded, is_combining, is_invisible, is_letter};

/// Most characters that one character folds to; what would be longer (a ligature of eighteen) stays as it is.
const MOST: usize = 4;

/// A normalised text and the way back to the original.
pub(super) struct Twin {
    text: String,
    steps: Vec<Step>,
    /// Bytes of the original.
    length: usize,
}

/// From `twin` on, until the next step: bytes that came from `original` on. Copied byte by byte, or the image of one
/// character as a whole.
struct Step {
    twin: usize,
    original: usize,
    copied: bool,
}

impl Twin {
    /// The twin of `text`, if it differs.
    pub(super) fn of(text: &str) -> Option<Self> {
        let mut twin = Self { text: String::new(), steps: Vec::new(), length: text.len() };
        let mut copied = 0;
        let (mut word_end, mut mixed) = (0, false);
        let mut ascii_before = false;
        for (at, c) in text.char_indices() {
            if c.is_ascii() {
                ascii_before = c.is_ascii_alphabetic();
                continue;
            }
            if at >= word_end {
                (word_end, mixed) = word(text, at, ascii_before);
            }
            if let Some(image) = image(c, mixed) {
                twin.copy(text, copied, at);
                twin.steps.push(Step { twin: twin.text.len(), original: at, copied: false });
                twin.text.extend(image.into_iter().flatten());
                copied = at + c.len_utf8();
            }
        }
        if twin.steps.is_empty() {
            return None;
        }
        twin.copy(text, copied, text.len());
        Some(twin)
    }

    /// The normalised text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The bytes of the original behind `start..end` of the twin (not empty).
    pub(super) fn original(&self, start: usize, end: usize) -> (usize, usize) {
        let last = end.saturating_sub(1).max(start);
        let (first, _) = self.behind(start);
        let (_, end) = self.behind(last);
        (first, end.max(first))
    }

    /// First and one past the last byte of the original behind one byte of the twin.
    fn behind(&self, offset: usize) -> (usize, usize) {
        let next = self.steps.partition_point(|step| step.twin <= offset);
        let Some(step) = next.checked_sub(1).and_then(|at| self.steps.get(at)) else { return (offset, offset + 1) };
        let limit = self.steps.get(next).map_or(self.length, |step| step.original);
        if step.copied {
            let at = (step.original + offset - step.twin).min(limit);
            (at, (at + 1).min(limit))
        } else {
            (step.original, limit)
        }
    }

    fn copy(&mut self, text: &str, from: usize, to: usize) {
        if let Some(part) = text.get(from..to).filter(|part| !part.is_empty()) {
            self.steps.push(Step { twin: self.text.len(), original: from, copied: true });
            self.text.push_str(part);
        }
    }
}

/// Where the word around `at` ends, and whether it has an ASCII letter (so that look-alikes in it are folded).
fn word(text: &str, at: usize, ascii_before: bool) -> (usize, bool) {
    let mut mixed = ascii_before;
    for (offset, c) in text.get(at..).unwrap_or_default().char_indices() {
        mixed |= c.is_ascii_alphabetic();
        if !is_letter(c) && !is_invisible(c) && !is_combining(c) {
            return (at + offset, mixed);
        }
    }
    (text.len(), mixed)
}

/// What `c` becomes; `None` if it stays.
fn image(c: char, mixed: bool) -> Option<[Option<char>; MOST]> {
    if !mixed && is_stable(c) {
        return None;
    }
    let one = |c| Some([Some(c), None, None, None]);
    if is_invisible(c) || is_combining(c) || matches!(c, '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}') {
        return Some([None; MOST]);
    }
    if let Some(tag) = (0xe0020..=0xe007e).contains(&u32::from(c)).then(|| u32::from(c) - 0xe0000) {
        return char::from_u32(tag).and_then(one);
    }
    match c {
        '\u{2018}' | '\u{2019}' | '\u{2032}' => return one('\''),
        '\u{201c}' | '\u{201d}' => return one('"'),
        '\u{2010}'..='\u{2015}' | '\u{2212}' => return one('-'),
        _ => {}
    }
    if mixed && let Some(latin) = folded(c) {
        return one(latin);
    }
    if matches!(c, '\u{250}'..='\u{2af}' | '\u{1d00}'..='\u{1d2b}' | '\u{a730}'..='\u{a7ff}') {
        return folded(c).and_then(one);
    }
    if is_stable(c) { None } else { compatible(c) }
}

/// Blocks that have no compatibility forms, marks or invisible characters, and are most of what the world writes.
fn is_stable(c: char) -> bool {
    matches!(c, '\u{c0}'..='\u{12f}' | '\u{400}'..='\u{482}' | '\u{48a}'..='\u{586}'
        | '\u{5d0}'..='\u{61b}' | '\u{61d}'..='\u{670}' | '\u{900}'..='\u{d7f}'
        | '\u{3001}'..='\u{3002}' | '\u{3041}'..='\u{309a}' | '\u{30a0}'..='\u{30fe}' | '\u{3400}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}' | '\u{1f300}'..='\u{1faff}')
}

/// The compatibility form of `c`, where it is more than its accents taken apart.
fn compatible(c: char) -> Option<[Option<char>; MOST]> {
    let mut image = [None; MOST];
    let (mut count, mut canonical) = (0, 0);
    let mut first = None;
    decompose_compatible(c, |part| {
        if let Some(place) = image.get_mut(count) {
            *place = Some(part);
        }
        count += 1;
    });
    decompose_canonical(c, |part| {
        canonical += 1;
        first = first.or(Some(part));
    });
    (count <= MOST && (count != canonical || first != image[0])).then_some(image)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twin(text: &str) -> String {
        Twin::of(text).map_or_else(|| text.to_owned(), |twin| twin.text)
    }

    #[test]
    fn the_twin_is_what_a_reader_sees() {
        assert_eq!(twin("ig\u{200b}no\u{ad}re"), "ignore");
        assert_eq!(twin("ｉｇｎｏｒｅ 𝐚𝐥𝐥"), "ignore all");
        assert_eq!(twin("ignоrе prеviоus"), "ignore previous");
        assert_eq!(twin("i\u{336}g\u{336}n\u{336}"), "ign");
        assert_eq!(twin("ɪɢɴᴏʀᴇ"), "ignore");
        assert_eq!(twin("a\u{a0}b…"), "a b...");
        assert_eq!(twin("\u{e0041}\u{e0062}"), "Ab");
    }

    #[test]
    fn a_text_without_disguise_has_no_twin() {
        for text in ["plain", "Обычный текст", "中文文本。", "한국어", "naïve café", "हिन्दी", "👍🏽"]
        {
            assert!(Twin::of(text).is_none(), "{text}");
        }
    }

    #[test]
    fn offsets_lead_back_to_the_characters_they_came_from() {
        let text = "é ig\u{200b}nоre … x";
        let twin = Twin::of(text).unwrap();
        let at = twin.text().find("ignore").unwrap();
        let (start, end) = twin.original(at, at + 6);
        assert_eq!(text.get(start..end), Some("ig\u{200b}nоre"));
        let dots = twin.text().find("...").unwrap();
        let (start, end) = twin.original(dots + 1, dots + 2);
        assert_eq!(text.get(start..end), Some("…"));
        let x = twin.text().find('x').unwrap();
        assert_eq!(twin.original(x, x + 1), (text.len() - 1, text.len()));
    }
}
