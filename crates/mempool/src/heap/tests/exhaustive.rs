//! Every sequence of operations up to a length, on a page or two.

use super::World;
use std::vec::Vec;

/// Small, large, larger than what remains beside large; free the oldest, the newest, the middle one.
fn play(world: &World, ops: &[usize]) {
    let mut live: Vec<usize> = Vec::new();
    for &op in ops {
        match op {
            0..3 => live.extend(world.alloc([16, 1360, 2800][op])),
            _ if live.is_empty() => {}
            3 => world.free(live.remove(0)),
            4 => world.free(live.pop().unwrap()),
            _ => world.free(live.remove(live.len() / 2)),
        }
        assert_eq!(world.heap.verify(), Ok(()), "{ops:?}");
        assert!(world.live().len() == live.len());
    }
    live.iter().for_each(|&address| world.free(address));
    world.heap.return_empty(&world.supply);
    assert_eq!((world.pages(), world.heap.verify()), (0, Ok(())), "{ops:?}");
}

#[test]
fn six_operations_seven_long() {
    let world = World::new(2, 12, 16);
    for code in 0..6usize.pow(7) {
        let ops: [usize; 7] = core::array::from_fn(|k| code / 6usize.pow(k as u32) % 6);
        play(&world, &ops);
    }
    assert_eq!(world.supply.left(), 2);
}
