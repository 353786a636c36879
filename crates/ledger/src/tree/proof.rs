//! Which hashes a proof consists of: spans of leaves (RFC 6962 §2.1.1 and §2.1.2), each made of complete subtrees.

use hospes_protocol::id::Digest;

use super::fold_right;

/// A complete subtree: the leaves `index · 2^height` up to, without it, `(index + 1) · 2^height`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// Levels above the leaves.
    pub height: u32,
    /// Place among the nodes of that height.
    pub index: u64,
}

/// A run of leaves whose root is one hash of a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// First leaf.
    pub start: u64,
    /// Leaf after the last.
    pub end: u64,
}

impl Span {
    /// The complete subtrees that make it up, from left to right, each larger than all to its right.
    pub fn nodes(self) -> Vec<Node> {
        let mut nodes = Vec::new();
        let mut start = self.start;
        while start < self.end {
            let height = (self.end - start).ilog2();
            nodes.push(Node { height, index: start >> height });
            start += 1 << height;
        }
        nodes
    }

    /// The hash of the span from those of its nodes, in the order of [`Span::nodes`].
    pub fn hash(nodes: &[Digest]) -> Digest {
        fold_right(nodes)
    }
}

/// Largest power of two below `n`, which must be at least 2.
fn split(n: u64) -> u64 {
    1 << (n - 1).ilog2()
}

/// Spans of the inclusion proof for leaf `index` in the tree of `size` leaves, from the leaf upwards; `None` if there
/// is no such leaf.
pub fn inclusion(index: u64, size: u64) -> Option<Vec<Span>> {
    if index >= size {
        return None;
    }
    let (mut start, mut end) = (0, size);
    let mut spans = Vec::new();
    while end - start > 1 {
        let middle = start + split(end - start);
        if index < middle {
            spans.push(Span { start: middle, end });
            end = middle;
        } else {
            spans.push(Span { start, end: middle });
            start = middle;
        }
    }
    spans.reverse();
    Some(spans)
}

/// Spans of the consistency proof from `old_size` to `new_size` leaves; `None` if the old tree is the larger one.
/// Empty if both are equal or the old one has no leaf.
pub fn consistency(old_size: u64, new_size: u64) -> Option<Vec<Span>> {
    if old_size > new_size {
        return None;
    }
    if old_size == 0 || old_size == new_size {
        return Some(Vec::new());
    }
    let (mut start, mut end) = (0, new_size);
    let mut spans = Vec::new();
    let mut whole = true;
    while end != old_size {
        let middle = start + split(end - start);
        if old_size <= middle {
            spans.push(Span { start: middle, end });
            end = middle;
        } else {
            spans.push(Span { start, end: middle });
            start = middle;
            whole = false;
        }
    }
    if !whole {
        spans.push(Span { start, end });
    }
    spans.reverse();
    Some(spans)
}
