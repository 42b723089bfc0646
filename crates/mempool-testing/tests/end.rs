//! The end of the process pool.
#![cfg(not(feature = "global"))]
#![allow(unsafe_code)]

use mempool::{Config, InitError, process};

#[test]
fn a_report_that_panics_leaves_the_pool_as_it_is() {
    let config = Config::process().segment(4 << 20);
    process::init(&config).expect("a pool");
    let object = process::alloc(100);
    // SAFETY: the pool does not end.
    let ended = std::panic::catch_unwind(|| unsafe { process::fini(|_| panic!("somebody's")) });
    assert!(ended.is_err());
    assert!(process::is_ready() && process::contains(object));
    assert_eq!(process::init(&config).err(), Some(InitError::AlreadyInitialised));
    // SAFETY: from this pool.
    unsafe { process::free(object, "free") };
    // SAFETY: there is no object.
    assert_eq!(unsafe { process::fini(|_| ()) }.expect("a pool").objects, 0);
    // SAFETY: as above.
    assert_eq!(unsafe { process::fini(|_| ()) }.err(), Some(InitError::NotInitialised));
    process::init(&config).expect("another pool");
}
