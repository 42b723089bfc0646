//! Operation programs: the first byte chooses the world, the second the mix, then eight bytes are a step.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mempool::config::Small;
use mempool_testing::{Mix, Op, Shadow, run, worlds};

fuzz_target!(|data: &[u8]| {
    let [which, mix, words @ ..] = data else { return };
    // The sanitizer has an allocator of its own in the place of the C library's.
    let worlds: Vec<_> = worlds().into_iter().filter(|world| world.config.values().small != Small::System).collect();
    // The small ones: a step is then worth more.
    let world = &worlds[usize::from(*which) % 15];
    let mix = [Mix::All, Mix::Small, Mix::Large, Mix::Grow, Mix::Caches, Mix::Fill][usize::from(*mix) % 6];
    let most = world.config.values().segment / 8;
    let made = world.with(|pool| {
        let mut shadow = Shadow::new(pool, 3);
        for word in words.chunks_exact(8).take(200) {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
            run(&mut shadow, Op::decode(word, mix, most));
        }
        shadow.check_content();
        while shadow.free(0) {}
        shadow.check_figures();
    });
    made.expect("a world that can be made");
});
