#![allow(clippy::cast_possible_truncation)]

use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::proof::{self, Span};
use super::tiles::{Edge, TILE_HASHES, Tile, TileId, locate, node_in_tile};
use super::*;

/// MTH of RFC 6962 §2.1, word for word.
fn naive_root(leaves: &[Digest]) -> Digest {
    match leaves.len() {
        0 => empty_root(),
        1 => leaves[0],
        n => {
            let k = n.next_power_of_two() / 2;
            node_hash(&naive_root(&leaves[..k]), &naive_root(&leaves[k..]))
        }
    }
}

fn naive_path(m: usize, leaves: &[Digest]) -> Vec<Digest> {
    if leaves.len() == 1 {
        return Vec::new();
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (mut path, other) = if m < k {
        (naive_path(m, &leaves[..k]), naive_root(&leaves[k..]))
    } else {
        (naive_path(m - k, &leaves[k..]), naive_root(&leaves[..k]))
    };
    path.push(other);
    path
}

fn naive_subproof(m: usize, leaves: &[Digest], whole: bool) -> Vec<Digest> {
    if m == leaves.len() {
        return if whole { Vec::new() } else { vec![naive_root(leaves)] };
    }
    let k = leaves.len().next_power_of_two() / 2;
    let (mut path, other) = if m <= k {
        (naive_subproof(m, &leaves[..k], whole), naive_root(&leaves[k..]))
    } else {
        (naive_subproof(m - k, &leaves[k..], false), naive_root(&leaves[..k]))
    };
    path.push(other);
    path
}

fn leaves(n: usize) -> Vec<Digest> {
    (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

fn evaluate(leaves: &[Digest], spans: &[Span]) -> Vec<Digest> {
    let hash = |span: &Span| {
        let nodes = span.nodes();
        let hashes = nodes.iter().map(|n| {
            let (from, to) = (n.index << n.height, (n.index + 1) << n.height);
            naive_root(&leaves[from as usize..to as usize])
        });
        Span::hash(&hashes.collect::<Vec<_>>())
    };
    spans.iter().map(hash).collect()
}

/// Inputs and roots of the reference implementation (google/certificate-transparency, `merkletree` tests).
#[test]
fn roots_equal_the_known_vectors_of_rfc_6962() {
    let inputs = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    assert_eq!(empty_root().to_string(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    let mut frontier = Frontier::default();
    for (input, root) in inputs.iter().zip(roots) {
        frontier.push(leaf_hash(&HEXLOWER.decode(input.as_bytes()).unwrap()));
        assert_eq!(frontier.root().to_string(), root);
    }
}

#[test]
fn every_inclusion_proof_of_small_trees_equals_the_definition_and_holds_only_where_it_belongs() {
    for size in 1..=33usize {
        let all = leaves(size);
        let root = naive_root(&all);
        for index in 0..size {
            let path = evaluate(&all, &proof::inclusion(index as u64, size as u64).unwrap());
            assert_eq!(path, naive_path(index, &all));
            for other in 0..size {
                let holds = verify_inclusion(&all[index], other as u64, size as u64, &root, &path);
                assert_eq!(holds, other == index, "leaf {index} of {size} at {other}");
            }
        }
        assert!(proof::inclusion(size as u64, size as u64).is_none());
    }
}

#[test]
fn every_consistency_proof_of_small_trees_equals_the_definition_and_holds_only_where_it_belongs() {
    for new in 1..=33usize {
        let all = leaves(new);
        let root = naive_root(&all);
        for old in 1..=new {
            let path = evaluate(&all, &proof::consistency(old as u64, new as u64).unwrap());
            assert_eq!(path, naive_subproof(old, &all, true));
            for other in 1..=new {
                let holds = verify_consistency(other as u64, &naive_root(&all[..other]), new as u64, &root, &path);
                assert_eq!(holds, other == old, "{old} to {new}, taken for {other}");
            }
            let mut forged = all[..old].to_vec();
            forged[old / 2] = leaf_hash(b"another");
            assert!(!verify_consistency(old as u64, &naive_root(&forged), new as u64, &root, &path));
        }
        assert!(proof::consistency(new as u64 + 1, new as u64).is_none());
        assert!(verify_consistency(0, &empty_root(), new as u64, &root, &[]));
    }
}

/// Sizes up to five levels of tiles can be planned without a tree of that size.
#[test]
fn a_proof_in_a_tree_of_2_to_the_40_touches_few_tiles() {
    let size = (1u64 << 40) - 12_345;
    for index in [0, 1, 255, 256, 1 << 33, size - 1] {
        let spans = proof::inclusion(index, size).unwrap();
        let tiles: std::collections::BTreeSet<TileId> =
            spans.iter().flat_map(|s| s.nodes()).map(|n| locate(n).0).collect();
        assert!(tiles.len() <= 10, "{} tiles", tiles.len());
    }
}

proptest! {
    #[test]
    fn frontier_and_tiles_equal_the_definition(batches in prop::collection::vec(0usize..300, 1..6), at in any::<u64>()) {
        let total: usize = batches.iter().sum();
        let all = leaves(total);
        let (mut edge, mut stored) = (Edge::default(), std::collections::BTreeMap::new());
        let mut done = 0;
        for batch in batches {
            for tile in edge.extend(all[done..done + batch].iter().copied()) {
                stored.insert(tile.id, tile.hashes);
            }
            done += batch;
            let expected = naive_root(&all[..done]);
            prop_assert_eq!(edge.root(), expected);
            prop_assert_eq!(root_of(&all[..done]), expected);
            let parts: Vec<Tile> = Edge::parts(done as u64)
                .into_iter()
                .map(|(id, len)| Tile { id, hashes: stored[&id][..len].to_vec() })
                .collect();
            prop_assert_eq!(Edge::new(done as u64, &parts).unwrap(), edge.clone_trimmed());
        }
        if total > 0 {
            let index = at % total as u64;
            let root = naive_root(&all);
            let path: Vec<Digest> = proof::inclusion(index, total as u64).unwrap().iter().map(|span| {
                let hashes: Vec<Digest> =
                    span.nodes().iter().map(|n| node_in_tile(*n, &stored[&locate(*n).0]).unwrap()).collect();
                Span::hash(&hashes)
            }).collect();
            prop_assert!(verify_inclusion(&all[index as usize], index, total as u64, &root, &path));
        }
        prop_assert!(stored.values().all(|hashes| hashes.len() <= TILE_HASHES));
    }

    #[test]
    fn a_changed_proof_never_holds(size in 2usize..200, index in any::<prop::sample::Index>(),
                                   place in any::<prop::sample::Index>(), bit in 0u32..256) {
        let all = leaves(size);
        let index = index.index(size);
        let mut path = naive_path(index, &all);
        let at = place.index(path.len());
        let mut bytes = *path[at].as_bytes();
        bytes[bit as usize / 8] ^= 1 << (bit % 8);
        path[at] = Digest::from_bytes(bytes);
        prop_assert!(!verify_inclusion(&all[index], index as u64, size as u64, &naive_root(&all), &path));
        path[at] = naive_path(index, &all)[at];
        path.pop();
        prop_assert!(!verify_inclusion(&all[index], index as u64, size as u64, &naive_root(&all), &path));
    }
}

impl Edge {
    /// Without the empty levels at the top, which a restored edge does not have.
    fn clone_trimmed(&self) -> Self {
        let mut edge = self.clone();
        while edge.levels().last().is_some_and(Vec::is_empty) {
            edge.levels_mut().pop();
        }
        edge
    }
}
