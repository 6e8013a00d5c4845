//! A checkpoint: a signed statement of what a chain was, in the text form of C2SP (`tlog-checkpoint`, `signed-note`).
//!
//! Owns that text. Kept outside of the database it is what makes a shortened chain visible. Never computes a root (that
//! is `merkle`) and never says when. A text of another form is a `CheckpointError`; signatures of unknown keys are
//! passed over, as the form asks, but at least one must verify.
//!
//! ```text
//! <deployment>/audit/<organization>
//! <size>
//! <base64 of the root over the first `size` digests>
//! head <seq> <link in hexadecimal>
//!
//! — <name> <base64 of key hash (4 bytes) and signature (64 bytes)>
//! ```

use std::fmt::Write as _;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use super::chain::Head;
use crate::{
    crypto::{Jwks, SigningKey, VerifyingKey, sha256},
    domain::{digest::Digest, ids::OrgId},
};

/// Longest note that is read, in bytes.
pub const MAX_NOTE_BYTES: usize = 16 * 1024;
/// The signed-note form's number of Ed25519.
const ED25519: u8 = 1;

/// Why a text is not a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The text does not have the documented form.
    #[error("not a checkpoint: {0}")]
    Form(&'static str),
    /// It speaks about another chain.
    #[error("a checkpoint of `{0}`, not of this chain")]
    Origin(String),
    /// No signature of a known key verifies.
    #[error("no signature of a known key verifies")]
    Signature,
}

/// What a checkpoint says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose chain: see `origin`.
    pub origin: String,
    /// Root over the digests of the entries 1 to `head.seq`.
    pub root: Digest,
    /// The last entry that it covers. Its sequence number is the size of the tree.
    pub head: Head,
}

/// The first line of the checkpoints of a chain. The deployment's name comes from the configuration.
pub fn origin(deployment: &str, org: &OrgId) -> String {
    format!("{deployment}/audit/{org}")
}

impl Checkpoint {
    /// The note: text, blank line, signature. The origin must be a name as `Checkpoint::parse` takes it.
    pub fn sign(&self, key: &SigningKey) -> String {
        let mut note = self.text();
        let signature = key.sign(note.as_bytes());
        let hash = key_hash(&self.origin, key.public());
        let signed = STANDARD.encode([&hash[..], &signature[..]].concat());
        let _infallible = writeln!(note, "\n— {} {signed}", self.origin);
        note
    }

    /// Reads a note of this origin and requires a signature by one of the keys.
    pub fn verify(note: &str, origin: &str, keys: &Jwks) -> Result<Self, CheckpointError> {
        let (checkpoint, text, signatures) = split(note)?;
        if checkpoint.origin != origin {
            return Err(CheckpointError::Origin(checkpoint.origin.escape_debug().to_string()));
        }
        let mut signed = false;
        for line in signatures.lines() {
            signed |= is_signature(line, text, keys)?;
        }
        if signed { Ok(checkpoint) } else { Err(CheckpointError::Signature) }
    }

    /// Reads what a note says, without asking who signed it.
    pub fn parse(note: &str) -> Result<Self, CheckpointError> {
        Ok(split(note)?.0)
    }

    fn text(&self) -> String {
        let Self { origin, root, head } = self;
        format!("{origin}\n{}\n{}\nhead {} {}\n", head.seq, STANDARD.encode(root.0), head.seq, head.link)
    }
}

/// Checkpoint, signed text (with its last line feed) and signature lines.
fn split(note: &str) -> Result<(Checkpoint, &str, &str), CheckpointError> {
    const FORM: CheckpointError = CheckpointError::Form("text, blank line and signatures are expected");
    if note.len() > MAX_NOTE_BYTES {
        return Err(CheckpointError::Form("too long"));
    }
    let blank = note.find("\n\n").ok_or(FORM)?;
    let text = note.get(..=blank).ok_or(FORM)?;
    let signatures = note.get(blank + 2..).ok_or(FORM)?;
    if !signatures.ends_with('\n') {
        return Err(FORM);
    }
    Ok((read(text)?, text, signatures))
}

fn read(text: &str) -> Result<Checkpoint, CheckpointError> {
    const FORM: CheckpointError = CheckpointError::Form("origin, size, root and head are expected");
    let mut lines = text.lines();
    let (Some(origin), Some(size), Some(root), Some(head), None) =
        (lines.next(), lines.next(), lines.next(), lines.next(), lines.next())
    else {
        return Err(FORM);
    };
    let seq = size.parse().map_err(|_| FORM)?;
    let root = STANDARD.decode(root).ok().and_then(|bytes| Digest::from_slice(&bytes)).ok_or(FORM)?;
    let link = head.rsplit(' ').next().and_then(Digest::from_hex).ok_or(FORM)?;
    let checkpoint = Checkpoint { origin: origin.to_owned(), root, head: Head { seq, link } };
    // One statement has one spelling: leading zeros, signs, capitals and carriage returns all differ here.
    let named = !origin.is_empty() && !origin.contains(|c: char| c.is_whitespace() || c.is_control() || c == '+');
    if named && checkpoint.text() == text { Ok(checkpoint) } else { Err(FORM) }
}

/// Whether the line is a signature over the text by one of the keys. A malformed line is an error.
fn is_signature(line: &str, text: &str, keys: &Jwks) -> Result<bool, CheckpointError> {
    const FORM: CheckpointError = CheckpointError::Form("a signature line is malformed");
    let (name, signed) = line.strip_prefix("— ").and_then(|rest| rest.split_once(' ')).ok_or(FORM)?;
    let signed = STANDARD.decode(signed).map_err(|_| FORM)?;
    let (hash, signature) = signed.split_first_chunk::<4>().ok_or(FORM)?;
    Ok(keys.keys().iter().any(|key| key_hash(name, key) == *hash && key.verify(text.as_bytes(), signature)))
}

/// Names key and signer in four bytes: SHA-256 over name, line feed, algorithm and public key.
fn key_hash(name: &str, key: &VerifyingKey) -> [u8; 4] {
    let Digest([a, b, c, d, ..]) = sha256(&[name.as_bytes(), b"\n", &[ED25519], key.as_bytes()]);
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::Seed;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Seed::new([seed; 32])).unwrap()
    }

    fn keys() -> Jwks {
        Jwks::new([key(1).public().clone()])
    }

    fn checkpoint() -> Checkpoint {
        let origin = origin("gateway.example", &OrgId::parse("org_a").unwrap());
        Checkpoint { origin, root: Digest([1; 32]), head: Head { seq: 42, link: Digest([2; 32]) } }
    }

    #[test]
    fn a_note_has_the_documented_lines_and_is_read_back() {
        let note = checkpoint().sign(&key(1));
        let lines: Vec<&str> = note.lines().collect();
        assert_eq!(lines[0], "gateway.example/audit/org_a");
        assert_eq!(lines[1], "42");
        assert_eq!(lines[2], "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=");
        assert_eq!(lines[3], format!("head 42 {}", "02".repeat(32)));
        assert_eq!(lines[4], "");
        assert!(lines[5].starts_with("— gateway.example/audit/org_a "));
        assert_eq!(lines.len(), 6);
        assert_eq!(Checkpoint::parse(&note), Ok(checkpoint()));
        assert_eq!(Checkpoint::verify(&note, &checkpoint().origin, &keys()), Ok(checkpoint()));
    }

    #[test]
    fn the_key_hash_is_that_of_the_signed_note_form() {
        // The public key of Go's checksum database, as its clients carry it: name, key hash, algorithm and key.
        let (name, hash, key) = ("sum.golang.org", "033de0ae", "Ac4zctda0e5eza+HJyk9SxEdh+s3Ux18htTTAD8OuAn8");
        let public = VerifyingKey::from_slice(&STANDARD.decode(key).unwrap()[1..]).unwrap();
        assert_eq!(hex::encode(key_hash(name, &public)), hash);
    }

    #[test]
    fn a_foreign_signature_is_passed_over_but_does_not_count() {
        let note = checkpoint().sign(&key(2));
        let origin = checkpoint().origin;
        assert_eq!(Checkpoint::verify(&note, &origin, &keys()), Err(CheckpointError::Signature));
        let ours = checkpoint().sign(&key(1));
        let both = format!("{ours}{}\n", note.lines().last().unwrap());
        assert_eq!(Checkpoint::verify(&both, &origin, &keys()), Ok(checkpoint()));
    }

    #[test]
    fn the_checkpoint_of_another_chain_is_refused() {
        let note = checkpoint().sign(&key(1));
        let other = Checkpoint::verify(&note, "gateway.example/audit/org_b", &keys());
        assert_eq!(other, Err(CheckpointError::Origin("gateway.example/audit/org_a".to_owned())));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_note_with_any_byte_changed_is_refused(at in 0_usize..300, byte in 0_u8..128) {
            let note = checkpoint().sign(&key(1));
            let mut bytes = note.clone().into_bytes();
            let at = at % bytes.len();
            prop_assume!(bytes[at] != byte);
            bytes[at] = byte;
            let Ok(altered) = String::from_utf8(bytes) else { return Ok(()) };
            prop_assert!(Checkpoint::verify(&altered, &checkpoint().origin, &keys()).is_err());
        }

        #[test]
        fn no_text_upsets_the_reader(text in "(\\PC|\n){0,200}") {
            prop_assert!(Checkpoint::parse(&text).is_err());
        }
    }
}
