//! A batch: what one boot appends to one chain in one commit, under one signature.
//!
//! Owns the signed bytes and the list of counters that the commit left out. It is signed before the lock, so it names
//! (counter, digest) pairs and the head that the boot saw last, not places in the chain. Never appends and never judges
//! an entry. Whatever bytes come in, reading them ends in a batch or in a `BatchError`.
//!
//! Signed bytes, numbers big endian: `DOMAIN` · u16 length and organization · u16 length and boot · u64 batch number ·
//! u64 first counter · u32 count · u64 seen sequence · 32 bytes seen link · count × (u64 counter, 32 bytes digest),
//! counters ascending.

use serde::{Deserialize, Serialize};

use super::chain::Head;
use crate::{
    crypto::{Jwks, SigningKey},
    domain::{
        digest::Digest,
        ids::{BootId, OrgId},
    },
};

/// First bytes of every signed message: no other signature of these keys starts so.
pub const DOMAIN: &[u8] = b"tappass-audit-batch/1\n";
/// Most entries in one batch. The writer takes at most 128.
pub const MAX_ITEMS: usize = 4096;

/// Why something is not a batch.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    /// No pair, or more than `MAX_ITEMS`.
    #[error("a batch has 1 to {MAX_ITEMS} entries")]
    Count,
    /// A counter stands twice, or not in ascending order.
    #[error("counters do not ascend")]
    Order,
    /// The message does not have the documented form.
    #[error("the signed message is malformed")]
    Message,
    /// The list of unwritten counters does not have the documented form or names a counter outside of the batch.
    #[error("the list of unwritten counters is malformed")]
    Unwritten,
    /// A column of the row says something else than the signed message.
    #[error("the row's {0} is not that of its signed message")]
    Row(&'static str),
    /// No public key of that name.
    #[error("no key is named `{0}`")]
    UnknownKey(String),
    /// The signature is not that key's over this message.
    #[error("the signature does not verify")]
    Signature,
}

/// What is signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// Whose chain.
    pub org: OrgId,
    /// Who appends.
    pub boot: BootId,
    /// Counts the batches of (organization, boot). A lost commit leaves a gap, so gaps mean nothing.
    pub number: u64,
    /// The head that this boot saw last.
    pub seen: Head,
    /// (counter, digest), counters ascending.
    items: Vec<(u64, Digest)>,
}

impl Batch {
    /// Sorts the pairs; refuses none, too many and a counter twice.
    pub fn new(
        org: OrgId,
        boot: BootId,
        number: u64,
        seen: Head,
        mut items: Vec<(u64, Digest)>,
    ) -> Result<Self, BatchError> {
        items.sort_unstable_by_key(|(counter, _)| *counter);
        check_items(&items)?;
        Ok(Self { org, boot, number, seen, items })
    }

    /// (counter, digest), counters ascending.
    pub fn items(&self) -> &[(u64, Digest)] {
        &self.items
    }

    /// The bytes that are signed.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(DOMAIN.len() + 2 * 98 + 60 + 40 * self.items.len());
        out.extend_from_slice(DOMAIN);
        for id in [self.org.as_str(), self.boot.as_str()] {
            // Identifiers have at most 96 bytes and a batch at most 4096 items: neither conversion can lose anything.
            out.extend_from_slice(&u16::try_from(id.len()).unwrap_or(u16::MAX).to_be_bytes());
            out.extend_from_slice(id.as_bytes());
        }
        let first = self.items.first().map_or(0, |(counter, _)| *counter);
        out.extend_from_slice(&self.number.to_be_bytes());
        out.extend_from_slice(&first.to_be_bytes());
        out.extend_from_slice(&u32::try_from(self.items.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(&self.seen.seq.to_be_bytes());
        out.extend_from_slice(&self.seen.link.0);
        for (counter, digest) in &self.items {
            out.extend_from_slice(&counter.to_be_bytes());
            out.extend_from_slice(&digest.0);
        }
        out
    }

    /// Reads signed bytes. Exactly what `encode` writes is accepted.
    pub fn parse(message: &[u8]) -> Result<Self, BatchError> {
        let mut rest = Bytes(message.strip_prefix(DOMAIN).ok_or(BatchError::Message)?);
        let org = OrgId::parse(rest.text()?).map_err(|_| BatchError::Message)?;
        let boot = BootId::parse(rest.text()?).map_err(|_| BatchError::Message)?;
        let number = rest.u64()?;
        let first = rest.u64()?;
        let count = u32::from_be_bytes(rest.take()?) as usize;
        let seen = Head { seq: rest.u64()?, link: Digest(rest.take()?) };
        if count > MAX_ITEMS {
            return Err(BatchError::Count);
        }
        if rest.0.len() != count * 40 {
            return Err(BatchError::Message);
        }
        let mut items = Vec::with_capacity(count);
        for _ in 0..count {
            items.push((rest.u64()?, Digest(rest.take()?)));
        }
        check_items(&items)?;
        if items.first().is_none_or(|(counter, _)| *counter != first) {
            return Err(BatchError::Message);
        }
        Ok(Self { org, boot, number, seen, items })
    }

    /// Signs it: the row to store in the same commit. Set `unwritten` when the commit left something out.
    pub fn sign(&self, key: &SigningKey) -> BatchRow {
        let message = self.encode();
        let signature = key.sign(&message);
        BatchRow {
            org: self.org.clone(),
            boot: self.boot.clone(),
            number: self.number,
            message,
            kid: key.public().kid().to_owned(),
            signature: signature.to_vec(),
            unwritten: "[]".to_owned(),
        }
    }
}

/// A batch as it is stored and exported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchRow {
    /// Whose chain.
    pub org: OrgId,
    /// Who appended.
    pub boot: BootId,
    /// The batch's number within (organization, boot).
    pub number: u64,
    /// The signed bytes.
    #[serde(with = "base64_text")]
    pub message: Vec<u8>,
    /// Which key signed.
    pub kid: String,
    /// 64 bytes.
    #[serde(with = "base64_text")]
    pub signature: Vec<u8>,
    /// Counters that were signed but not written by this commit (stale, short, taken before), ascending, as JSON
    /// without white space: `[3,7]`. It is made under the lock, so it is not signed. A false claim in it
    /// contradicts an entry, except that it can disown one that was taken out: that, links and checkpoints show.
    pub unwritten: String,
}

impl BatchRow {
    /// Checks the row against itself and the keys: the batch and the counters that its commit left out.
    pub fn verify(&self, keys: &Jwks) -> Result<(Batch, Vec<u64>), BatchError> {
        let batch = Batch::parse(&self.message)?;
        for (column, same) in [
            ("organization", batch.org == self.org),
            ("boot", batch.boot == self.boot),
            ("number", batch.number == self.number),
        ] {
            if !same {
                return Err(BatchError::Row(column));
            }
        }
        let key = keys.find(&self.kid).ok_or_else(|| BatchError::UnknownKey(self.kid.escape_debug().to_string()))?;
        if !key.verify(&self.message, &self.signature) {
            return Err(BatchError::Signature);
        }
        let unwritten = parse_counters(&self.unwritten)?;
        let signed = |counter: &u64| batch.items.binary_search_by_key(counter, |(c, _)| *c).is_ok();
        if unwritten.iter().all(signed) { Ok((batch, unwritten)) } else { Err(BatchError::Unwritten) }
    }
}

/// Counters as the text of `BatchRow::unwritten`. They must ascend.
pub fn render_counters(counters: &[u64]) -> String {
    let texts: Vec<String> = counters.iter().map(u64::to_string).collect();
    format!("[{}]", texts.join(","))
}

/// Reads the text of `BatchRow::unwritten`; one list has one spelling.
pub fn parse_counters(text: &str) -> Result<Vec<u64>, BatchError> {
    let counters: Vec<u64> = serde_json::from_str(text).map_err(|_| BatchError::Unwritten)?;
    let ascend = counters.is_sorted_by(|a, b| a < b);
    if ascend && render_counters(&counters) == text { Ok(counters) } else { Err(BatchError::Unwritten) }
}

fn check_items(items: &[(u64, Digest)]) -> Result<(), BatchError> {
    if items.is_empty() || items.len() > MAX_ITEMS {
        return Err(BatchError::Count);
    }
    if items.is_sorted_by(|(a, _), (b, _)| a < b) { Ok(()) } else { Err(BatchError::Order) }
}

/// What is left to read.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], BatchError> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(BatchError::Message)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u64(&mut self) -> Result<u64, BatchError> {
        Ok(u64::from_be_bytes(self.take()?))
    }

    fn text(&mut self) -> Result<&'a str, BatchError> {
        let length = usize::from(u16::from_be_bytes(self.take()?));
        let (head, rest) = self.0.split_at_checked(length).ok_or(BatchError::Message)?;
        self.0 = rest;
        std::str::from_utf8(head).map_err(|_| BatchError::Message)
    }
}

/// Bytes as base64 in JSON.
mod base64_text {
    use std::borrow::Cow;

    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_ref()).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::crypto::Seed;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Seed::new([seed; 32])).unwrap()
    }

    fn batch(items: Vec<(u64, Digest)>) -> Result<Batch, BatchError> {
        let seen = Head { seq: 4, link: Digest([9; 32]) };
        Batch::new(OrgId::parse("org_a").unwrap(), BootId::parse("boot_a").unwrap(), 2, seen, items)
    }

    #[test]
    fn the_signed_bytes_are_fixed() {
        let mut expected = b"tappass-audit-batch/1\n\0\x05org_a\0\x06boot_a".to_vec();
        expected.extend([0, 0, 0, 0, 0, 0, 0, 2]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 6]);
        expected.extend([0, 0, 0, 2]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 4]);
        expected.extend([9; 32]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 6]);
        expected.extend([1; 32]);
        expected.extend([0, 0, 0, 0, 0, 0, 0, 7]);
        expected.extend([2; 32]);
        let batch = batch(vec![(7, Digest([2; 32])), (6, Digest([1; 32]))]).unwrap();
        assert_eq!(batch.encode(), expected);
    }

    #[test]
    fn a_batch_is_neither_empty_nor_huge_nor_ambiguous() {
        assert_eq!(batch(vec![]), Err(BatchError::Count));
        assert_eq!(batch((0..5000).map(|n| (n, Digest::ZERO)).collect()), Err(BatchError::Count));
        assert_eq!(batch(vec![(1, Digest::ZERO), (1, Digest([1; 32]))]), Err(BatchError::Order));
    }

    #[test]
    fn a_row_that_differs_from_what_was_signed_is_refused() {
        let keys = Jwks::new([key(1).public().clone(), key(2).public().clone()]);
        let mut row = batch(vec![(6, Digest::ZERO), (7, Digest::ZERO)]).unwrap().sign(&key(1));
        row.unwritten = render_counters(&[7]);
        assert_eq!(row.verify(&keys).unwrap().1, [7]);
        let altered = |change: &dyn Fn(&mut BatchRow)| {
            let mut other = row.clone();
            change(&mut other);
            other.verify(&keys).unwrap_err()
        };
        assert_eq!(altered(&|row| row.org = OrgId::parse("org_b").unwrap()), BatchError::Row("organization"));
        assert_eq!(altered(&|row| row.boot = BootId::parse("boot_b").unwrap()), BatchError::Row("boot"));
        assert_eq!(altered(&|row| row.number = 3), BatchError::Row("number"));
        assert_eq!(altered(&|row| row.kid = key(2).public().kid().to_owned()), BatchError::Signature);
        assert_eq!(altered(&|row| row.kid = "x".to_owned()), BatchError::UnknownKey("x".to_owned()));
        assert_eq!(altered(&|row| row.signature[5] ^= 1), BatchError::Signature);
        assert_eq!(altered(&|row| row.signature.clear()), BatchError::Signature);
        assert_eq!(altered(&|row| *row.message.last_mut().unwrap() ^= 1), BatchError::Signature);
        for text in ["", "[8]", "[7,6]", "[6,6]", "[6, 7]", "[06]", "[-6]", "[6.0]", "null"] {
            assert_eq!(altered(&|row| row.unwritten = text.to_owned()), BatchError::Unwritten, "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn what_was_encoded_is_read_back(
            items in proptest::collection::btree_map(any::<u64>(), any::<[u8; 32]>(), 1..20),
        ) {
            let batch = batch(items.into_iter().map(|(counter, bytes)| (counter, Digest(bytes))).collect()).unwrap();
            prop_assert_eq!(Batch::parse(&batch.encode()), Ok(batch));
        }

        #[test]
        fn only_what_was_encoded_is_read(cut in 0_usize..170, at in 0_usize..170, bit in 0_u8..8) {
            let mut bytes = batch(vec![(6, Digest::ZERO), (7, Digest::ZERO)]).unwrap().encode();
            prop_assert!(Batch::parse(&bytes[..cut.min(bytes.len() - 1)]).is_err());
            let at = at % bytes.len();
            bytes[at] ^= 1 << bit;
            if let Ok(other) = Batch::parse(&bytes) {
                prop_assert_eq!(other.encode(), bytes);
            }
        }

        #[test]
        fn no_bytes_upset_the_reader(tail in proptest::collection::vec(any::<u8>(), 0..200)) {
            let bytes = [DOMAIN, &tail].concat();
            if let Ok(batch) = Batch::parse(&bytes) {
                prop_assert_eq!(batch.encode(), bytes);
            }
        }
    }
}
