//! With all memory used up: a panic is caught where there is a reserve, and what the program itself asks for is refused all the
//! same.
use std::alloc::{Layout, alloc, dealloc};
use std::hint::black_box;
use std::panic::{catch_unwind, panic_any};

fn main() {
    let mut live: Vec<(*mut u8, Layout)> = Vec::with_capacity(1 << 17);
    for size in [1 << 20, 65536, 4096, 256, 16] {
        let layout = Layout::from_size_align(size, 1).unwrap();
        while live.len() < live.capacity() {
            // SAFETY: the layout is not empty.
            let object = unsafe { alloc(layout) };
            if object.is_null() {
                break;
            }
            live.push((object, layout));
        }
    }
    let count = live.len();
    let plain = catch_unwind(|| panic!("plain")).is_err_and(|payload| payload.is::<&str>());
    let any = catch_unwind(|| panic_any([7_u64; 500])).is_err_and(|payload| payload.is::<[u64; 500]>());
    // A message that grows while it is composed.
    let message = catch_unwind(|| panic!("{count:>5000} objects {:>9000}", "behind"));
    let formatted =
        message.is_err_and(|payload| payload.downcast_ref::<String>().is_some_and(|text| text.len() > 14_000));
    // The compiler takes an unused object for granted.
    // SAFETY: the layout is not empty.
    let is_null = |size| black_box(unsafe { alloc(Layout::from_size_align(size, 1).unwrap()) }).is_null();
    let refused = [4096, 100_000].into_iter().all(is_null);
    for (object, layout) in live {
        // SAFETY: allocated with this layout above, and not used afterwards.
        unsafe { dealloc(object, layout) };
    }
    println!("plain {plain} any {any} formatted {formatted} refused {refused}");
}
