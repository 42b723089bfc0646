//! Building and dropping trees.
#![allow(unsafe_code)]

use std::ptr::NonNull;

use crate::family;
use crate::job::{Done, Job, Kind, Mode, Parameter, Workload};
use crate::random::Random;

pub static WORKLOAD: Workload = Workload {
    name: "trees",
    about: "Syntax trees, documents, scene graphs: each thread builds search trees of random keys node by node, looks \
            every key up, and drops the tree from its leaves, while one long-lived tree stays.",
    kind: Kind::Threaded,
    mode: Mode::Lazy,
    parameters: &[
        Parameter { name: "nodes", default: 20_000, about: "nodes of a tree" },
        Parameter { name: "payload", default: 40, about: "most bytes of a node beside its key and children" },
        Parameter { name: "trees", default: 60, about: "trees of each thread" },
    ],
    caches: false,
    run,
};

type Link = Option<NonNull<Node>>;

/// A node's head; its payload lies behind it.
struct Node {
    key: u64,
    bytes: usize,
    children: [Link; 2],
}

fn run(job: &mut Job) -> Done {
    let (nodes, payload) = (job.get("nodes"), job.get("payload"));
    let trees = job.scaled(job.get("trees"));
    super::together(
        job,
        |thread| build(&mut Random::new(900 + thread as u64), nodes, payload),
        |thread, kept| {
            let mut checksum = 0;
            for tree in 0..trees {
                let seed = (thread * trees + tree) as u64;
                let root = build(&mut Random::new(seed), nodes, payload);
                checksum += look_up(root.0, &mut Random::new(seed), nodes, payload);
                tear_down(root.0);
            }
            tear_down(kept.0);
            Done::new((2 * nodes * trees + nodes) as u64, checksum)
        },
    )
}

/// A tree that may go to another thread.
struct Tree(Link);

// SAFETY: the tree belongs to whoever holds the value; nothing else points into it.
unsafe impl Send for Tree {}

/// A node's key and size, from `random`.
fn draw(random: &mut Random, payload: usize) -> (u64, usize) {
    let key = random.bits();
    (key, size_of::<Node>() + key as usize % (payload + 1))
}

fn build(random: &mut Random, nodes: usize, payload: usize) -> Tree {
    let mut root: Link = None;
    for _ in 0..nodes {
        let (key, bytes) = draw(random, payload);
        let node = family::malloc(bytes).cast::<Node>();
        // SAFETY: the object has at least a node's bytes and malloc's alignment.
        unsafe { node.as_ptr().write(Node { key, bytes, children: [None, None] }) };
        let mut link = &mut root;
        while let Some(mut next) = *link {
            // SAFETY: every node in the tree is live, and the tree is ours alone.
            let next = unsafe { next.as_mut() };
            link = &mut next.children[usize::from(key > next.key)];
        }
        *link = Some(node);
    }
    Tree(root)
}

/// How many of the keys that were drawn are there.
fn look_up(root: Link, random: &mut Random, nodes: usize, payload: usize) -> u64 {
    let is_there = |key: u64| {
        let mut link = root;
        while let Some(node) = link {
            // SAFETY: every node in the tree is live.
            let node = unsafe { node.as_ref() };
            if node.key == key {
                return true;
            }
            link = node.children[usize::from(key > node.key)];
        }
        false
    };
    (0..nodes).filter(|_| is_there(draw(random, payload).0)).count() as u64
}

/// Frees all nodes, children first. Random keys keep the depth near the logarithm.
fn tear_down(link: Link) {
    let Some(node) = link else { return };
    // SAFETY: the node is live, and nobody has its tree but us.
    let (bytes, children) = unsafe { (node.as_ref().bytes, node.as_ref().children) };
    children.into_iter().for_each(tear_down);
    // SAFETY: allocated with these bytes; the links to it are gone or going.
    unsafe { family::free(node.cast(), bytes) };
}
