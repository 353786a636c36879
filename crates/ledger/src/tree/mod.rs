//! The Merkle tree of RFC 6962 §2.1 as pure functions: hashes, roots, and the verification of proofs.
//!
//! [`proof`] says which hashes a proof consists of, [`tiles`] where they are stored.

use hospes_protocol::id::Digest;
use sha2::{Digest as _, Sha256};

pub mod proof;
pub mod tiles;

/// Hash of a leaf: SHA-256(0x00 ‖ data) (RFC 6962 §2.1).
pub fn leaf_hash(data: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update([0u8]);
    hash.update(data);
    Digest::from_bytes(hash.finalize().into())
}

/// Hash of an inner node: SHA-256(0x01 ‖ left ‖ right) (RFC 6962 §2.1).
pub fn node_hash(left: &Digest, right: &Digest) -> Digest {
    let mut block = [1u8; 65];
    block[1..33].copy_from_slice(left.as_bytes());
    block[33..].copy_from_slice(right.as_bytes());
    Digest::from_bytes(Sha256::digest(block).into())
}

/// Root of the tree without leaves: SHA-256 of nothing.
pub fn empty_root() -> Digest {
    Digest::from_bytes(Sha256::digest([]).into())
}

/// Root of the tree over these leaf hashes, or over the hashes of complete subtrees of one size.
pub fn root_of(hashes: &[Digest]) -> Digest {
    let mut frontier = Frontier::default();
    for hash in hashes {
        frontier.push(*hash);
    }
    frontier.root()
}

/// The right edge of a tree: the roots of its complete subtrees, largest first. It takes one leaf in amortised constant
/// time and knows the root at every size, in memory that grows with the logarithm of the size.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Frontier {
    size: u64,
    peaks: Vec<Digest>,
}

impl Frontier {
    /// Leaves so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Adds a leaf's hash.
    pub fn push(&mut self, leaf: Digest) {
        let mut hash = leaf;
        let mut trailing = self.size;
        while trailing & 1 == 1 {
            // Each one bit of the size is a peak; the lowest ones are merged first.
            if let Some(left) = self.peaks.pop() {
                hash = node_hash(&left, &hash);
            }
            trailing >>= 1;
        }
        self.peaks.push(hash);
        self.size += 1;
    }

    /// Root of the tree over the leaves so far.
    pub fn root(&self) -> Digest {
        fold_right(&self.peaks)
    }
}

/// Hashes the roots of adjacent subtrees, each larger than all to its right, into the root over all of them.
pub(crate) fn fold_right(peaks: &[Digest]) -> Digest {
    let Some((last, rest)) = peaks.split_last() else { return empty_root() };
    rest.iter().rev().fold(*last, |right, left| node_hash(left, &right))
}

/// Whether `proof` shows that the leaf with hash `leaf` stands at `index` in the tree of `size` leaves with this root
/// (RFC 9162 §2.1.3.2).
#[must_use]
pub fn verify_inclusion(leaf: &Digest, index: u64, size: u64, root: &Digest, proof: &[Digest]) -> bool {
    if index >= size {
        return false;
    }
    let (mut at, mut last) = (index, size - 1);
    let mut hash = *leaf;
    for sibling in proof {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            hash = node_hash(sibling, &hash);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            hash = node_hash(&hash, sibling);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && hash == *root
}

/// Whether `proof` shows that the tree of `new_size` leaves with root `new_root` begins with the tree of `old_size`
/// leaves with root `old_root` (RFC 9162 §2.1.4.2). Every tree begins with the empty one, without a proof.
#[must_use]
pub fn verify_consistency(
    old_size: u64,
    old_root: &Digest,
    new_size: u64,
    new_root: &Digest,
    proof: &[Digest],
) -> bool {
    if old_size > new_size {
        return false;
    }
    if old_size == new_size {
        return proof.is_empty() && old_root == new_root;
    }
    if old_size == 0 {
        return proof.is_empty() && *old_root == empty_root();
    }
    let mut rest = proof.iter();
    // An old size that is a power of two is itself a node of the new tree, and the proof leaves it out.
    let first = if old_size.is_power_of_two() { Some(old_root) } else { rest.next() };
    let Some(first) = first else { return false };
    let (mut at, mut last) = (old_size - 1, new_size - 1);
    while at & 1 == 1 {
        at >>= 1;
        last >>= 1;
    }
    let (mut old, mut new) = (*first, *first);
    for hash in rest {
        if last == 0 {
            return false;
        }
        if at & 1 == 1 || at == last {
            old = node_hash(hash, &old);
            new = node_hash(hash, &new);
            while at & 1 == 0 && at != 0 {
                at >>= 1;
                last >>= 1;
            }
        } else {
            new = node_hash(&new, hash);
        }
        at >>= 1;
        last >>= 1;
    }
    last == 0 && old == *old_root && new == *new_root
}

#[cfg(test)]
mod tests;
