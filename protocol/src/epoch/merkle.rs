//! Merkle trees over 32-byte leaves, shaped as in RFC 6962 §2.1 (split at the largest power of two below n), with
//! the protocol's own labels instead of the RFC's prefix bytes.

use crate::label;

/// Deepest opening: more leaves than member indexes exist.
pub const MAX_DEPTH: usize = 17;

/// The root over `leaves`, which must be hashes with labels of their own.
pub fn root(leaves: &[[u8; 32]]) -> [u8; 32] {
    match leaves {
        [] => label::hash(label::MERKLE_EMPTY, &[]),
        [leaf] => *leaf,
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            node(&root(left), &root(right))
        }
    }
}

/// The siblings from the leaf at `position` up to the root; empty when there is no such leaf.
pub fn open(leaves: &[[u8; 32]], position: usize) -> Vec<[u8; 32]> {
    let mut path = Vec::new();
    open_into(leaves, position, &mut path);
    path
}

fn open_into(leaves: &[[u8; 32]], position: usize, path: &mut Vec<[u8; 32]>) {
    if leaves.len() < 2 || position >= leaves.len() {
        return;
    }
    let at = split(leaves.len());
    let (left, right) = leaves.split_at(at);
    if position < at {
        open_into(left, position, path);
        path.push(root(right));
    } else {
        open_into(right, position - at, path);
        path.push(root(left));
    }
}

/// All openings at once, in order of the leaves: what a leader needs for every member costs n log n in all.
pub fn open_all(leaves: &[[u8; 32]]) -> (Vec<Vec<[u8; 32]>>, [u8; 32]) {
    match leaves {
        [] => (Vec::new(), root(leaves)),
        [leaf] => (vec![Vec::new()], *leaf),
        _ => {
            let (left, right) = leaves.split_at(split(leaves.len()));
            let (mut paths, left_root) = open_all(left);
            let (right_paths, right_root) = open_all(right);
            paths.iter_mut().for_each(|p| p.push(right_root));
            paths.extend(right_paths.into_iter().map(|mut p| {
                p.push(left_root);
                p
            }));
            (paths, node(&left_root, &right_root))
        }
    }
}

/// Whether `path` leads from `leaf` at `position` of `count` leaves to `root`.
pub fn verify(root: &[u8; 32], leaf: &[u8; 32], position: usize, count: usize, path: &[[u8; 32]]) -> bool {
    climb(leaf, position, count, path) == Some(*root)
}

fn climb(leaf: &[u8; 32], position: usize, count: usize, path: &[[u8; 32]]) -> Option<[u8; 32]> {
    if position >= count || path.len() > MAX_DEPTH {
        return None;
    }
    if count == 1 {
        return path.is_empty().then_some(*leaf);
    }
    let (sibling, below) = path.split_last()?;
    let at = split(count);
    if position < at {
        Some(node(&climb(leaf, position, at, below)?, sibling))
    } else {
        Some(node(sibling, &climb(leaf, position - at, count - at, below)?))
    }
}

fn node(left: &[u8; 32], right: &[u8; 32]) -> [u8; 32] {
    label::hash(label::MERKLE_NODE, &[left, right])
}

/// The largest power of two below `n`, for n ≥ 2.
fn split(n: usize) -> usize {
    n.next_power_of_two() / 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_opening_verifies_and_none_for_another_place() {
        for count in 1..40usize {
            let leaves: Vec<[u8; 32]> = (0..count).map(|i| label::hash("leaf", &[&[i as u8]])).collect();
            let root = root(&leaves);
            let (paths, same_root) = open_all(&leaves);
            assert_eq!(root, same_root);
            for (i, leaf) in leaves.iter().enumerate() {
                let path = open(&leaves, i);
                assert_eq!(path, paths[i]);
                assert!(verify(&root, leaf, i, count, &path));
                for j in (0..=count).filter(|j| *j != i) {
                    assert!(!verify(&root, leaf, j, count, &path), "{i} passes for {j} of {count}");
                }
            }
        }
    }
}
