//! The tree over a chain's digests (RFC 6962): what a checkpoint commits to.
//!
//! Owns an appendable frontier, the roots of the complete subtrees from the largest to the smallest, from which the
//! whole root follows; so a checkpoint costs what came since the last, and nothing must be read again after a restart.
//! Never stores leaves and gives no inclusion proofs. Bytes that are no frontier read as `None`.

use crate::{crypto::sha256, domain::digest::Digest};

const LEAF: u8 = 0;
const NODE: u8 = 1;

/// All that is needed to append to the tree and to name its root.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    hashes: Vec<Digest>,
}

impl Frontier {
    /// Appends the digest of the next entry.
    pub fn push(&mut self, digest: &Digest) {
        let mut hash = sha256(&[&[LEAF], &digest.0]);
        // Every trailing one bit of the size is a complete subtree that the new leaf completes to a larger one.
        for _ in 0..self.size.trailing_ones() {
            let Some(left) = self.hashes.pop() else { break };
            hash = node(&left, &hash);
        }
        self.hashes.push(hash);
        self.size += 1;
    }

    /// How many entries the tree has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root over all entries; SHA-256 of nothing for an empty tree.
    pub fn root(&self) -> Digest {
        let mut subtrees = self.hashes.iter().rev();
        let Some(last) = subtrees.next() else { return sha256(&[]) };
        subtrees.fold(*last, |right, left| node(left, &right))
    }

    /// Size (64 bits, big endian), then the hashes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.size.to_be_bytes().to_vec();
        for hash in &self.hashes {
            bytes.extend_from_slice(&hash.0);
        }
        bytes
    }

    /// Reads `to_bytes`.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (size, rest) = bytes.split_first_chunk::<8>()?;
        let size = u64::from_be_bytes(*size);
        let fits = rest.len() == size.count_ones() as usize * 32;
        let hashes = rest.chunks_exact(32).map(Digest::from_slice).collect::<Option<_>>()?;
        fits.then_some(Self { size, hashes })
    }
}

fn node(left: &Digest, right: &Digest) -> Digest {
    sha256(&[&[NODE], &left.0, &right.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition of RFC 6962 section 2.1, word for word.
    fn by_definition(leaves: &[Digest]) -> Digest {
        match leaves {
            [] => sha256(&[]),
            [leaf] => sha256(&[&[0], &leaf.0]),
            _ => {
                let split = leaves.len().next_power_of_two() / 2;
                sha256(&[&[1], &by_definition(&leaves[..split]).0, &by_definition(&leaves[split..]).0])
            }
        }
    }

    #[test]
    fn the_frontier_has_the_root_of_the_definition_at_every_size() {
        let leaves: Vec<Digest> = (0..300_u32).map(|n| sha256(&[&n.to_be_bytes()])).collect();
        let mut frontier = Frontier::default();
        for size in 0..=leaves.len() {
            assert_eq!(frontier.size(), size as u64);
            assert_eq!(frontier.root(), by_definition(&leaves[..size]), "{size}");
            assert_eq!(Frontier::from_bytes(&frontier.to_bytes()), Some(frontier.clone()));
            if let Some(leaf) = leaves.get(size) {
                frontier.push(leaf);
            }
        }
    }

    #[test]
    fn a_leaf_is_never_taken_for_a_node() {
        let (a, b) = (sha256(&[b"a"]), sha256(&[b"b"]));
        let mut two = Frontier::default();
        two.push(&a);
        two.push(&b);
        let mut one = Frontier::default();
        one.push(&two.root());
        assert_ne!(one.root(), two.root());
    }

    #[test]
    fn bytes_of_another_length_are_no_frontier() {
        let mut frontier = Frontier::default();
        for _ in 0..3 {
            frontier.push(&Digest::ZERO);
        }
        let bytes = frontier.to_bytes();
        assert_eq!(Frontier::from_bytes(&bytes[..bytes.len() - 1]), None);
        assert_eq!(Frontier::from_bytes(&[&bytes[..], &[0; 32]].concat()), None);
        assert_eq!(Frontier::from_bytes(&[0; 7]), None);
    }
}
