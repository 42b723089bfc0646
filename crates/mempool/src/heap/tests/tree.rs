//! The tree against an ordered set: all shapes up to 8 nodes, and random larger ones.
#![allow(unsafe_code)]

use super::super::tree::{NIL, Tree, count};
use super::Dice;
use crate::sync::AtomicU64;
use std::collections::{BTreeSet, HashSet};
use std::vec::Vec;

const UNITS: usize = 1024;

struct Memory {
    data: Vec<u128>,
    root: AtomicU64,
}

impl Memory {
    fn new() -> Self {
        Self { data: std::vec![0; UNITS], root: AtomicU64::new(u64::from(NIL)) }
    }
    fn tree(&mut self) -> Tree<'_> {
        // SAFETY: the vector has `UNITS` granules, aligned to 16, and lives as long as the borrow.
        unsafe { Tree::new(self.data.as_mut_ptr().cast(), UNITS, 77, &self.root) }
    }
}

type Oracle = BTreeSet<(u16, u16)>;

fn compare(tree: &Tree<'_>, oracle: &Oracle) {
    let mut listed = Vec::new();
    assert_eq!(tree.linearize(&mut |at, size| listed.push((size, at))), Ok(oracle.len()));
    assert!(listed.iter().eq(oracle.iter()), "{listed:?} {oracle:?}");
    assert_eq!(tree.largest(), Ok(oracle.last().map_or(0, |&(size, _)| size)));
}

fn permutations(items: usize, f: &mut dyn FnMut(&[usize])) {
    fn go(list: &mut Vec<usize>, k: usize, f: &mut dyn FnMut(&[usize])) {
        if k == list.len() {
            return f(list);
        }
        for i in k..list.len() {
            list.swap(k, i);
            go(list, k + 1, f);
            list.swap(k, i);
        }
    }
    go(&mut (0..items).collect(), 0, f);
}

/// Eight fixed places have eight fixed priorities; giving them sizes in every order makes every shape.
#[test]
fn every_shape_up_to_eight_nodes_every_deletion() {
    let catalan = [1, 1, 2, 5, 14, 42, 132, 429, 1430];
    for (n, count) in catalan.into_iter().enumerate() {
        let mut shapes = HashSet::new();
        permutations(n, &mut |sizes| {
            let mut memory = Memory::new();
            let tree = memory.tree();
            let chunks: Vec<(u16, u16)> =
                sizes.iter().enumerate().map(|(i, &s)| (s as u16 + 1, i as u16 * 16)).collect();
            let build = || {
                tree.clear();
                chunks.iter().for_each(|&(size, at)| tree.insert(at, size).unwrap());
            };
            build();
            let order = |shape: &[u16]| -> Vec<Option<usize>> {
                shape.iter().map(|&at| (at != NIL).then(|| sizes[usize::from(at) / 16])).collect()
            };
            if !shapes.insert(order(&tree.shape())) {
                return;
            }
            let all: Oracle = chunks.iter().copied().collect();
            compare(&tree, &all);
            for &(size, at) in &chunks {
                build();
                assert_eq!(tree.delete(at, size), Ok(true));
                assert_eq!(tree.delete(at, size), Ok(false));
                let mut rest = all.clone();
                rest.remove(&(size, at));
                compare(&tree, &rest);
            }
            for size in 1..=n as u16 + 1 {
                build();
                let fit = all.range((size, 0)..).next().copied();
                assert_eq!(tree.find_delete(size), Ok(fit.map(|(s, at)| (at, s))));
                let mut rest = all.clone();
                fit.map(|fit| rest.remove(&fit));
                compare(&tree, &rest);
            }
        });
        assert_eq!(shapes.len(), count, "shapes of {n} nodes");
    }
}

/// Every order of insertion gives the same tree, and so does every order of deletion: up to 7 nodes, with
/// sizes of which several are equal.
#[test]
fn order_of_insertion_and_deletion_does_not_matter() {
    for n in 1..=7 {
        let chunk = |i: usize| (1 + (i % 3) as u16, 40 * i as u16);
        let (mut memory, mut other) = (Memory::new(), Memory::new());
        let (tree, fresh) = (memory.tree(), other.tree());
        (0..n).for_each(|i| fresh.insert(chunk(i).1, chunk(i).0).unwrap());
        let shape = fresh.shape();
        permutations(n, &mut |order| {
            tree.clear();
            order.iter().for_each(|&i| tree.insert(chunk(i).1, chunk(i).0).unwrap());
            assert_eq!(tree.shape(), shape);
            for (k, &i) in order.iter().enumerate() {
                assert_eq!(tree.delete(chunk(i).1, chunk(i).0), Ok(true));
                compare(&tree, &order[k + 1..].iter().map(|&j| chunk(j)).collect());
            }
            assert_eq!(tree.shape(), [NIL]);
        });
    }
}

#[test]
fn a_root_that_is_a_leaf_goes() {
    let mut memory = Memory::new();
    let tree = memory.tree();
    tree.clear();
    tree.insert(5, 3).unwrap();
    assert_eq!(tree.delete(5, 4), Ok(false));
    assert_eq!(tree.delete(5, 3), Ok(true));
    assert_eq!((tree.shape(), tree.largest(), tree.find_delete(1)), (std::vec![NIL], Ok(0), Ok(None)));
}

#[test]
fn equal_sizes_lowest_first() {
    let mut memory = Memory::new();
    let tree = memory.tree();
    tree.clear();
    for i in [9u16, 3, 7, 1, 5, 0, 8] {
        tree.insert(i * 100, 7).unwrap();
    }
    for i in [0u16, 1, 3, 5, 7, 8, 9] {
        assert_eq!(tree.find_delete(4), Ok(Some((i * 100, 7))));
    }
    assert_eq!(tree.find_delete(4), Ok(None));
}

#[test]
fn inserting_twice_is_damage() {
    let mut memory = Memory::new();
    let tree = memory.tree();
    tree.clear();
    tree.insert(5, 3).unwrap();
    assert!(tree.insert(5, 3).is_err());
}

#[test]
fn random_trees() {
    let mut dice = Dice(1);
    for round in 0..200 {
        let (mut memory, mut oracle) = (Memory::new(), Oracle::new());
        let tree = memory.tree();
        tree.clear();
        let sizes = [1, 2, 5, 20, 400][round % 5];
        for _ in 0..400 {
            let (at, size) = (dice.roll(UNITS - sizes) as u16, 1 + dice.roll(sizes) as u16);
            match dice.roll(5) {
                0 | 1 if !oracle.iter().any(|&(_, there)| there == at) => {
                    tree.insert(at, size).unwrap();
                    oracle.insert((size, at));
                }
                2 => {
                    let fit = oracle.range((size, 0)..).next().copied();
                    assert_eq!(tree.find_delete(size), Ok(fit.map(|(s, at)| (at, s))));
                    fit.map(|fit| oracle.remove(&fit));
                }
                3 => {
                    let Some(&(size, at)) = oracle.iter().nth(dice.roll(oracle.len().max(1))) else { continue };
                    assert_eq!(tree.delete(at, size), Ok(true));
                    oracle.remove(&(size, at));
                }
                _ => assert_eq!(tree.contains(at, size), Ok(oracle.contains(&(size, at)))),
            }
        }
        compare(&tree, &oracle);
    }
}

/// Sorted insertion, the worst case of a plain search tree, stays logarithmic: also with equal sizes, where
/// the offsets make the order, and with every stride.
#[test]
fn depth_is_logarithmic() {
    for stride in 2..20usize {
        let mut memory = Memory::new();
        let tree = memory.tree();
        for same in [false, true] {
            tree.clear();
            let n = UNITS / stride;
            let before = count::so_far();
            for i in 0..n {
                let size = if same { 1 } else { 1 + ((n - 1 - i).min(i * stride / 64)) as u16 };
                tree.insert((i * stride) as u16, size).unwrap();
            }
            let nodes = (count::so_far().0 - before.0) as f64 / n as f64;
            let bound = 4.0 * (n as f64).log2() + 8.0;
            assert!(nodes < bound, "stride {stride}: {nodes} nodes read per insertion, {n} chunks");
        }
    }
}

/// Insertion is no hot spot: in a long random replacement nearly all insertions go to a bin, and a pair of free and
/// alloc, with all its insertions, deletions and its search, reads a handful of nodes.
#[test]
fn insertion_is_no_hot_spot() {
    let (world, mut dice) = (super::World::new(64, 16, 1024), Dice(5));
    let mut live: Vec<usize> = (0..5000).map(|_| world.alloc(1 + dice.roll(256)).unwrap()).collect();
    let (pairs, before) = (50_000, (count::so_far(), count::binned_so_far()));
    for _ in 0..pairs {
        let k = dice.roll(live.len());
        world.free(live[k]);
        live[k] = world.alloc(1 + dice.roll(256)).unwrap();
    }
    let (nodes, walks) = (count::so_far().0 - before.0.0, count::so_far().1 - before.0.1);
    let binned = count::binned_so_far() - before.1;
    let per = |n: u64| n as f64 / f64::from(pairs);
    std::println!("per pair: {} binned, {} in the tree, {} nodes read", per(binned), per(walks), per(nodes));
    assert!(per(binned) > 1.0 && per(walks) < 0.2 && per(nodes) < 12.0);
}
