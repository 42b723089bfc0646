//! Collections of other crates on a pool, by `Allocator for &Pool` (feature `allocator-api2`).
//!
//! Each test ends with the same two questions: does the pool's own check find it in order, and is nothing live any more?
#![allow(unsafe_code, missing_docs)]

use std::alloc::Layout;
use std::cell::Cell;
use std::ptr::NonNull;

use allocator_api2::alloc::Allocator;
use allocator_api2::boxed::Box;
use allocator_api2::vec::Vec;
use hashbrown::{HashMap, HashSet};
use mempool::Pool;
use mempool::config::{Commit, Config, Exhausted, Lock, Small};

const MIB: usize = 1 << 20;

fn config(segment: usize) -> Config {
    Config::new().segment(segment).commit(Commit::Lazy).lock(Lock::Off).max_retries(0)
}

/// Runs `test` on a pool of `segment` bytes for each tier that can serve small requests, with the policy that would end
/// the process if an `Allocator` asked by it.
fn on_pools(segment: usize, test: impl Fn(&Pool)) {
    for small in [Small::Slab, Small::Heap] {
        let pool = config(segment).small(small).exhausted(Exhausted::Abort).build().expect("a pool");
        test(&pool);
        pool.verify().expect("in order");
        assert_eq!(pool.stats().live(), 0, "{small:?}: something is still live");
    }
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).expect("a layout")
}

#[test]
fn a_vector_grows_shrinks_and_drops_its_values() {
    thread_local! { static DROPPED: Cell<usize> = const { Cell::new(0) }; }
    struct Counted(usize);
    impl Drop for Counted {
        fn drop(&mut self) {
            DROPPED.set(DROPPED.get() + 1);
        }
    }
    on_pools(16 * MIB, |pool| {
        DROPPED.set(0);
        let mut numbers = Vec::new_in(pool);
        for number in 0..100_000 {
            numbers.push(Counted(number));
        }
        assert!(pool.contains(numbers.as_ptr().cast()));
        assert!(numbers.iter().enumerate().all(|(place, number)| number.0 == place));
        numbers.truncate(10);
        numbers.shrink_to_fit();
        assert_eq!((numbers.capacity(), DROPPED.get()), (10, 99_990));
        assert!(pool.contains(numbers.as_ptr().cast()) && numbers[9].0 == 9);
        drop(numbers);
        assert_eq!(DROPPED.get(), 100_000);
    });
}

#[test]
fn vectors_in_vectors_and_boxes_in_boxes() {
    on_pools(16 * MIB, |pool| {
        let mut rows = Vec::new_in(pool);
        for row in 0..200usize {
            let mut columns = Vec::with_capacity_in(row, pool);
            columns.extend((0..row).map(|column| row * column));
            rows.push(Box::new_in(columns, pool));
        }
        rows.sort_by_key(|columns| std::cmp::Reverse(columns.len()));
        assert_eq!(rows[0][198], 199 * 198);
        assert!(rows.iter().all(|columns| pool.contains(std::ptr::from_ref(&**columns).cast())));
    });
}

#[test]
fn values_without_a_size_and_empty_collections_take_nothing() {
    on_pools(4 * MIB, |pool| {
        let nothing: Vec<u64, &Pool> = Vec::new_in(pool);
        let unit = Box::new_in((), pool);
        let mut units = Vec::new_in(pool);
        units.resize(1000, ());
        assert_eq!((nothing.capacity(), *unit, units.len()), (0, (), 1000));
        assert_eq!(pool.stats().live(), 0);
    });
}

#[test]
fn blocks_without_a_size_take_nothing_and_grow_into_real_ones() {
    on_pools(16 * MIB, |pool| {
        for align in [1, 16, 64, 4096, MIB] {
            let (empty, real) = (layout(0, align), layout(100, align));
            let block = pool.allocate(empty).expect("always");
            assert!(block.is_empty() && block.addr().get().is_multiple_of(align));
            assert_eq!(pool.stats().live(), 0);
            // SAFETY: allocated above with this layout.
            let block = unsafe { pool.grow(block.cast(), empty, real) }.expect("room");
            assert!(pool.contains(block.cast::<u8>().as_ptr()) && block.addr().get().is_multiple_of(align));
            // SAFETY: now of `real`.
            let block = unsafe { pool.shrink(block.cast(), real, empty) }.expect("always");
            assert_eq!(pool.stats().live(), 0);
            // SAFETY: now of `empty`, and not used afterwards.
            unsafe { pool.deallocate(block.cast(), empty) };
        }
    });
}

#[test]
fn a_map_and_a_set_agree_with_those_of_the_standard_library() {
    on_pools(32 * MIB, |pool| {
        let mut map = HashMap::new_in(pool);
        let mut model = std::collections::HashMap::new();
        let mut state = 1u64;
        for _ in 0..50_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let (key, value) = (state >> 52, state >> 20);
            if state & (1 << 40) == 0 {
                assert_eq!(map.insert(key, value), model.insert(key, value));
            } else {
                assert_eq!(map.remove(&key), model.remove(&key));
            }
        }
        assert!(map.len() == model.len() && map.iter().all(|(key, value)| model.get(key) == Some(value)));
        let mut set = HashSet::new_in(pool);
        set.extend(map.keys().copied());
        map.shrink_to_fit();
        assert!(set.len() == map.len() && map.keys().all(|key| set.contains(key)));
        // A copy lives in the same pool.
        let copy = map.clone();
        drop(map);
        assert!(copy.iter().all(|(key, value)| model.get(key) == Some(value)) && pool.stats().live() > 0);
    });
}

/// An ordered map without balance: each node a box of the pool.
struct Tree<'p> {
    root: Option<Box<Node<'p>, &'p Pool>>,
    pool: &'p Pool,
}

struct Node<'p> {
    key: u64,
    children: [Option<Box<Node<'p>, &'p Pool>>; 2],
}

impl<'p> Tree<'p> {
    fn insert(&mut self, key: u64) -> bool {
        let mut place = &mut self.root;
        while let Some(node) = place {
            if node.key == key {
                return false;
            }
            let side = usize::from(key > node.key);
            place = &mut node.children[side];
        }
        *place = Some(Box::new_in(Node { key, children: [None, None] }, self.pool));
        true
    }

    fn walk(node: Option<&Node<'p>>, keys: &mut Vec<u64, &'p Pool>) {
        if let Some(node) = node {
            Self::walk(node.children[0].as_deref(), keys);
            keys.push(node.key);
            Self::walk(node.children[1].as_deref(), keys);
        }
    }
}

#[test]
fn a_tree_of_boxes_is_ordered_and_ends_with_its_root() {
    on_pools(8 * MIB, |pool| {
        let mut tree = Tree { root: None, pool };
        let inserted = (0..5000u64).filter(|n| tree.insert(n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 52)).count();
        let mut keys = Vec::new_in(pool);
        Tree::walk(tree.root.as_deref(), &mut keys);
        assert!(keys.len() == inserted && keys.is_sorted());
    });
}

/// A block with a pattern in it, seen through each call of the interface.
fn fill(block: NonNull<[u8]>, from: usize) {
    for at in from..block.len() {
        // SAFETY: inside the block, which the caller owns.
        unsafe { block.cast::<u8>().add(at).write(at as u8 | 1) };
    }
}

fn holds(block: NonNull<[u8]>, to: usize) -> bool {
    // SAFETY: inside the block, which the caller owns.
    (0..to).all(|at| unsafe { block.cast::<u8>().add(at).read() } == at as u8 | 1)
}

#[test]
fn grow_shrink_and_their_zeroed_forms_keep_the_content() {
    on_pools(16 * MIB, |pool| {
        let sizes = [0, 1, 7, 16, 17, 100, 255, 256, 257, 1000, 8192, 8193, 20_000, 100_000, MIB];
        for align in [1, 8, 16, 64, 256, 4096] {
            for pair in sizes.windows(2) {
                let (small, large) = (layout(pair[0], align), layout(pair[1], align));
                let block = pool.allocate(small).expect("room");
                fill(block, 0);
                // SAFETY: allocated with `small`.
                let block = unsafe { pool.grow(block.cast(), small, large) }.expect("room");
                assert!(block.len() >= pair[1] && holds(block, pair[0]), "{small:?} to {large:?}");
                fill(block, pair[0]);
                // SAFETY: now of `large`.
                let block = unsafe { pool.shrink(block.cast(), large, small) }.expect("room");
                assert!(block.len() >= pair[0] && holds(block, pair[0]), "{large:?} to {small:?}");
                // SAFETY: now of `small`.
                let block = unsafe { pool.grow_zeroed(block.cast(), small, large) }.expect("room");
                // SAFETY: the block has so many bytes.
                let fresh = unsafe { std::slice::from_raw_parts(block.cast::<u8>().as_ptr(), pair[1]) };
                assert!(holds(block, pair[0]) && fresh[pair[0]..].iter().all(|&byte| byte == 0));
                // SAFETY: now of `large`, and not used afterwards.
                unsafe { pool.deallocate(block.cast(), large) };
            }
        }
    });
}

#[test]
fn zeroed_blocks_are_zero_also_where_others_wrote() {
    on_pools(4 * MIB, |pool| {
        for size in [1, 64, 4000, 20_000, MIB] {
            for _ in 0..2 {
                let block = pool.allocate_zeroed(layout(size, 8)).expect("room");
                // SAFETY: the block has so many bytes, and is this loop's.
                let bytes = unsafe { std::slice::from_raw_parts_mut(block.cast::<u8>().as_ptr(), size) };
                assert!(bytes.iter().all(|&byte| byte == 0), "{size} bytes are not clean");
                bytes.fill(0xA5);
                // SAFETY: allocated above, not used afterwards.
                unsafe { pool.deallocate(block.cast(), layout(size, 8)) };
            }
        }
    });
}

#[test]
fn every_alignment_up_to_a_mebibyte_is_kept_when_blocks_grow_too() {
    on_pools(32 * MIB, |pool| {
        for shift in 0..=20 {
            let align = 1usize << shift;
            for size in [1, align, 3 * align / 2 + 1] {
                let (asked, more) = (layout(size, align), layout(2 * size, align));
                let block = pool.allocate(asked).expect("room");
                fill(block, 0);
                assert!(block.addr().get().is_multiple_of(align), "{asked:?}");
                // SAFETY: allocated with `asked`.
                let block = unsafe { pool.grow(block.cast(), asked, more) }.expect("room");
                assert!(block.addr().get().is_multiple_of(align) && holds(block, size), "{more:?}");
                // SAFETY: now of `more`, not used afterwards.
                unsafe { pool.deallocate(block.cast(), more) };
            }
        }
    });
}

#[test]
fn a_larger_alignment_is_met_by_growing() {
    on_pools(8 * MIB, |pool| {
        let (small, aligned) = (layout(100, 8), layout(200, 65_536));
        let block = pool.allocate(small).expect("room");
        fill(block, 0);
        // SAFETY: allocated with `small`.
        let block = unsafe { pool.grow(block.cast(), small, aligned) }.expect("room");
        assert!(block.addr().get().is_multiple_of(65_536) && holds(block, 100));
        // SAFETY: now of `aligned`.
        let block = unsafe { pool.shrink(block.cast(), aligned, layout(50, 4096)) }.expect("room");
        assert!(block.addr().get().is_multiple_of(4096) && holds(block, 50));
        // SAFETY: now of this layout, not used afterwards.
        unsafe { pool.deallocate(block.cast(), layout(50, 4096)) };
    });
}

/// Without a byte to spare blocks shrink where they are.
#[test]
fn blocks_shrink_in_a_full_pool() {
    on_pools(4 * MIB, |pool| {
        let mut vectors: std::vec::Vec<_> = [100, 5000, 100_000]
            .map(|len| {
                let mut vector = Vec::with_capacity_in(len, pool);
                vector.extend((0..len / 2).map(|place| place as u8));
                vector
            })
            .into();
        let mut rest = std::vec::Vec::new();
        for size in [100_000, 4096, 256, 16] {
            while let Ok(block) = pool.allocate(layout(size, 1)) {
                rest.push((block, layout(size, 1)));
            }
        }
        for vector in &mut vectors {
            let (at, len) = (vector.as_ptr(), vector.len());
            vector.shrink_to_fit();
            assert_eq!((vector.as_ptr(), vector.capacity()), (at, len));
            assert!(vector.iter().enumerate().all(|(place, value)| *value == place as u8));
            vector.clear();
            vector.shrink_to_fit();
            assert_eq!(vector.capacity(), 0);
        }
        for (block, layout) in rest {
            // SAFETY: live, and forgotten.
            unsafe { pool.deallocate(block.cast(), layout) };
        }
    });
}

#[test]
fn exhaustion_is_an_error_and_never_the_end_of_the_process() {
    on_pools(2 * MIB, |pool| {
        let mut blocks = Vec::new_in(pool);
        blocks.reserve(4096);
        let each = layout(1000, 16);
        while let Ok(block) = pool.allocate(each) {
            blocks.push(block.cast::<u8>());
        }
        assert!(blocks.len() > 500, "{} blocks", blocks.len());
        assert!(pool.allocate(layout(64 * MIB, 16)).is_err());
        assert!(pool.allocate_zeroed(layout(MIB, 16)).is_err());
        let last = *blocks.last().expect("some");
        // SAFETY: allocated with this layout; refused, so it stays.
        assert!(unsafe { pool.grow(last, each, layout(64 * MIB, 16)) }.is_err());
        // SAFETY: as above.
        unsafe { last.as_ptr().write_bytes(1, each.size()) };
        let mut small: Vec<u8, &Pool> = Vec::new_in(pool);
        assert!(small.try_reserve(64 * MIB).is_err());
        let mut map: HashMap<u64, [u8; 4096], _, &Pool> = HashMap::new_in(pool);
        assert!(map.try_reserve(1 << 20).is_err() && map.is_empty());
        for block in blocks.iter().copied() {
            // SAFETY: allocated above, not used afterwards.
            unsafe { pool.deallocate(block, each) };
        }
        // And what was refused is served again.
        let again = pool.allocate(layout(MIB, 16)).expect("room");
        // SAFETY: allocated above, not used afterwards.
        unsafe { pool.deallocate(again.cast(), layout(MIB, 16)) };
    });
}

#[test]
fn collections_of_one_pool_go_to_other_threads() {
    on_pools(16 * MIB, |pool| {
        std::thread::scope(|scope| {
            let mut made = Vec::new_in(pool);
            for thread in 0..4u64 {
                let mut numbers = Vec::new_in(pool);
                numbers.extend(0..1000 * thread);
                made.push(scope.spawn(move || numbers.iter().sum::<u64>()));
            }
            let sums: std::vec::Vec<u64> = made.into_iter().map(|thread| thread.join().expect("joined")).collect();
            assert_eq!(sums, [0, 499_500, 1_999_000, 4_498_500]);
        });
    });
}
