//! Random programs on pools of every kind, beside a shadow allocator.
//!
//! `TEST_CASES_FACTOR` multiplies the number of cases (1 in the gate, more at night).

use mempool::Pool;
use mempool::config::{Exhausted, Small};
use mempool_testing::{Baseline, Mix, Op, Rng, Shadow, World, run, worlds};
use proptest::prelude::*;

fn factor() -> u32 {
    std::env::var("TEST_CASES_FACTOR").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

fn cases(n: u32) -> ProptestConfig {
    ProptestConfig {
        cases: n * factor(),
        max_shrink_iters: 20_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn program(len: usize) -> impl Strategy<Value = Vec<u64>> {
    prop::collection::vec(any::<u64>(), 0..len)
}

/// The calling thread joins, and its local heap takes its place: then the pool is as empty as it can be.
fn join(pool: &Pool) -> Baseline {
    let mut shadow = Shadow::new(pool, 0);
    assert!(shadow.alloc(1, 1, false) && shadow.free(0));
    Baseline::of(pool)
}

fn play_on(pool: &Pool, words: &[u64], mix: Mix, most: usize, every: u64) {
    let before = join(pool);
    let mut shadow = Shadow::new(pool, every);
    for &word in words {
        run(&mut shadow, Op::decode(word, mix, most));
    }
    shadow.finish(&before);
}

/// Runs the program in `world`, ends with everything freed, and then with the pool as it was.
fn play(world: &World, words: &[u64], mix: Mix, every: u64) {
    let most = world.config.values().segment / 8;
    world.with(|pool| play_on(pool, words, mix, most, every)).expect("a world that can be made");
}

proptest! {
    #![proptest_config(cases(150))]

    #[test]
    fn everything_everywhere(which in 0..worlds().len(), words in program(200)) {
        play(&worlds()[which], &words, Mix::All, 5);
    }

    #[test]
    fn small_objects(which in 0..6usize, words in program(400)) {
        play(&worlds()[which], &words, Mix::Small, 7);
    }

    #[test]
    fn small_objects_of_the_heap(limit in 4usize..3200, lifetime in 0u64..3000, words in program(400)) {
        let mut world = World::of(1 << 20).small(Small::Heap);
        world.config = world.config.heap_max_alloc(limit).heap_page_lifetime(lifetime);
        play(&world, &words, Mix::Small, 7);
    }

    #[test]
    fn large_objects(which in 0..worlds().len(), words in program(200)) {
        play(&worlds()[which], &words, Mix::Large, 7);
    }

    #[test]
    fn objects_that_grow(which in 0..worlds().len(), words in program(200)) {
        play(&worlds()[which], &words, Mix::Grow, 7);
    }

    #[test]
    fn caches_and_arrays(which in 0..worlds().len(), words in program(200)) {
        play(&worlds()[which], &words, Mix::Caches, 5);
    }

    #[test]
    fn filled_to_the_brim(which in 0..7usize, words in program(1500)) {
        play(&worlds()[which], &words, Mix::Fill, 50);
    }

    #[test]
    fn pools_that_grow(words in program(600)) {
        let mut world = World::of(512 << 10);
        world.config = world.config.exhausted(Exhausted::Grow).max_segment(2 << 20);
        let end = world.with(|pool| {
            let mut shadow = Shadow::new(pool, 20);
            for &word in &words {
                run(&mut shadow, Op::decode(word, Mix::Fill, 100_000));
            }
            let end = pool.stats().open;
            while shadow.free(0) {}
            shadow.check_figures();
            end
        });
        prop_assert!(end.expect("a pool") < 2 << 20);
    }

    #[test]
    fn several_pools_at_once(words in program(300)) {
        let all = worlds();
        let pools: Vec<Pool> = [0, 1, 5, 6, 8].iter().map(|&which| all[which].config.build().expect("a pool")).collect();
        let before: Vec<Baseline> = pools.iter().map(join).collect();
        let mut shadows: Vec<Shadow<'_>> = pools.iter().map(|pool| Shadow::new(pool, 9)).collect();
        for &word in &words {
            let which = (word >> 40) as usize % shadows.len();
            run(&mut shadows[which], Op::decode(word, Mix::All, 50_000));
        }
        for (shadow, before) in shadows.into_iter().zip(&before) {
            shadow.finish(before);
        }
    }

    #[test]
    fn a_reserve_is_for_critical_requests_alone(reserve in 1usize..200_000, words in program(600)) {
        let mut world = World::of(1 << 20);
        world.config = world.config.reserve(reserve);
        world.with(|pool| {
            let before = join(pool);
            let kept = pool.stats().reserve_free;
            let mut shadow = Shadow::new(pool, 50);
            for &word in &words {
                let op = Op::decode(word, Mix::Fill, 50_000);
                if word >> 60 == 0 { pool.critical(|| run(&mut shadow, op)) } else { run(&mut shadow, op) }
            }
            shadow.finish(&before);
            assert_eq!(pool.stats().reserve_free, kept);
        }).expect("a pool");
    }
}

/// Every program of five steps out of six kinds on the smallest pools, with the figures held against the list after each.
#[test]
fn every_short_program_on_a_small_pool() {
    let steps = [
        Op::Alloc(24, 8, false),
        Op::Alloc(9000, 4096, true),
        Op::Free(0),
        Op::Realloc(0, 20_000, 16),
        Op::Take(0, 3),
        Op::EndCache(0),
    ];
    let len = if factor() > 1 { 7 } else { 5 };
    for small in [Small::Slab, Small::Heap] {
        let pool = World::of(256 << 10).small(small).config.build().expect("a pool");
        let before = join(&pool);
        for number in 0..steps.len().pow(len) {
            let mut shadow = Shadow::new(&pool, 1);
            shadow.make_cache(100, 4);
            let mut rest = number;
            for _ in 0..len {
                run(&mut shadow, steps[rest % steps.len()]);
                rest /= steps.len();
            }
            shadow.finish(&before);
        }
    }
}

/// What fits once fits again, as often as one likes, whatever was there before.
#[test]
fn memory_is_usable_again_after_exhaustion() {
    let kinds = [1usize, 16, 100, 256, 257, 1024, 5000, 8192, 8193, 70_000];
    for world in worlds().iter().filter(|world| world.config.values().small != Small::System) {
        world
            .with(|pool| {
                let before = join(pool);
                let mut first = [0; 10];
                for round in 0..3 {
                    for (place, &size) in kinds.iter().enumerate() {
                        let mut shadow = Shadow::new(pool, 0);
                        while shadow.live() < 3000 && shadow.alloc(size, 1, round == 1) {}
                        assert!(shadow.live() > 0, "{world:?}: not one object of {size} bytes");
                        if round == 0 {
                            first[place] = shadow.live();
                        }
                        assert_eq!(shadow.live(), first[place], "{world:?} {size} bytes, round {round}");
                        shadow.finish(&before);
                    }
                }
            })
            .expect("a pool");
    }
}

/// A long run on a large segment, with everything in it.
#[test]
fn a_long_program() {
    for (seed, small) in [(1, Small::Slab), (2, Small::Heap)] {
        let world = World::of(64 << 20).small(small);
        let mut rng = Rng::new(seed);
        let words: Vec<u64> = (0..20_000 * factor()).map(|_| rng.draw()).collect();
        world.with(|pool| play_on(pool, &words, Mix::All, 1 << 20, 2000)).expect("a pool");
    }
}
