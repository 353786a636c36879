//! How the tree is stored: tiles of 256 hashes, after C2SP `tlog-tiles`.
//!
//! Tile `(level, index)` holds the hashes of the complete subtrees of 256^level leaves with the numbers
//! `256 · index` to `256 · index + 255`. A full tile never changes; on each level at most the last one is partial.
//! One append touches one tile (in one of 256 cases two), and a proof in a tree of 2^40 leaves needs five levels.

use hospes_protocol::id::Digest;

use super::proof::Node;
use super::{fold_right, root_of};

/// Levels of the tree in one tile.
const TILE_HEIGHT: u32 = 8;
/// Hashes of a full tile.
pub const TILE_HASHES: usize = 1 << TILE_HEIGHT;

/// Place of a tile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TileId {
    /// Level; the hashes of level 0 are those of leaves.
    pub level: u32,
    /// Place in its level.
    pub index: u64,
}

/// Where the hashes below a node lie: tile, first hash, number of hashes.
pub fn locate(node: Node) -> (TileId, usize, usize) {
    let (level, within) = (node.height / TILE_HEIGHT, node.height % TILE_HEIGHT);
    let first = node.index << within;
    (TileId { level, index: first / TILE_HASHES as u64 }, place(first), 1 << within)
}

/// Place of a level's hash in its tile.
#[allow(clippy::cast_possible_truncation)] // Below 256.
pub(crate) fn place(number: u64) -> usize {
    (number % TILE_HASHES as u64) as usize
}

/// Hash of a node from the hashes of its tile; `None` if the tile does not reach so far.
pub fn node_in_tile(node: Node, tile: &[Digest]) -> Option<Digest> {
    let (_, offset, count) = locate(node);
    tile.get(offset..offset + count).map(root_of)
}

/// Number of full hashes that level `level` has in a tree of `size` leaves.
fn level_len(size: u64, level: u32) -> u64 {
    size.checked_shr(TILE_HEIGHT * level).unwrap_or(0)
}

/// The last, partial tile of each level: all that an append needs to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Edge {
    size: u64,
    levels: Vec<Vec<Digest>>,
}

/// A tile whose content an append changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tile {
    /// Where it belongs.
    pub id: TileId,
    /// Its hashes.
    pub hashes: Vec<Digest>,
}

impl Edge {
    /// The partial tiles of a tree of `size` leaves and how many hashes each must have; levels with none are left out.
    pub fn parts(size: u64) -> Vec<(TileId, usize)> {
        (0..8)
            .map(|level| (level, level_len(size, level)))
            .filter(|(_, len)| len % TILE_HASHES as u64 != 0)
            .map(|(level, len)| {
                let id = TileId { level, index: len / TILE_HASHES as u64 };
                (id, place(len))
            })
            .collect()
    }

    /// The edge of a tree of `size` leaves from its partial tiles; `None` if their lengths do not fit the size.
    pub fn new(size: u64, tiles: &[Tile]) -> Option<Self> {
        let parts = Self::parts(size);
        if parts.len() != tiles.len() {
            return None;
        }
        let mut levels = Vec::new();
        for (tile, (id, len)) in tiles.iter().zip(parts) {
            if tile.id != id || tile.hashes.len() != len {
                return None;
            }
            levels.resize(id.level as usize, Vec::new());
            levels.push(tile.hashes.clone());
        }
        Some(Self { size, levels })
    }

    /// Leaves.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Hashes of the partial tile of each level, from the leaves upwards.
    pub fn levels(&self) -> &[Vec<Digest>] {
        &self.levels
    }

    #[cfg(test)]
    #[cfg(test)]
    pub(super) fn levels_mut(&mut self) -> &mut Vec<Vec<Digest>> {
        &mut self.levels
    }

    /// Adds leaves and returns every tile that became full or changed, each in its last state.
    pub fn extend(&mut self, leaves: impl IntoIterator<Item = Digest>) -> Vec<Tile> {
        let mut full = Vec::new();
        let before = self.size;
        for leaf in leaves {
            let mut hash = leaf;
            let mut level = 0u32;
            loop {
                if self.levels.len() == level as usize {
                    self.levels.push(Vec::new());
                }
                let tile = &mut self.levels[level as usize];
                tile.push(hash);
                if tile.len() < TILE_HASHES {
                    break;
                }
                let hashes = std::mem::take(tile);
                hash = root_of(&hashes);
                let index = level_len(self.size, level) / TILE_HASHES as u64;
                full.push(Tile { id: TileId { level, index }, hashes });
                level += 1;
            }
            self.size += 1;
        }
        let partial = Self::parts(self.size)
            .into_iter()
            .filter(|(id, _)| level_len(before, id.level) != level_len(self.size, id.level))
            .map(|(id, _)| Tile { id, hashes: self.levels[id.level as usize].clone() });
        full.extend(partial);
        full
    }

    /// Root of the tree.
    pub fn root(&self) -> Digest {
        // On one level the hashes are those of equal subtrees; their peaks, level by level from the top, are the peaks
        // of the whole tree.
        let mut peaks = Vec::new();
        for hashes in self.levels.iter().rev() {
            let mut rest = hashes.as_slice();
            while !rest.is_empty() {
                let (peak, after) = rest.split_at(1 << rest.len().ilog2());
                peaks.push(root_of(peak));
                rest = after;
            }
        }
        fold_right(&peaks)
    }
}
