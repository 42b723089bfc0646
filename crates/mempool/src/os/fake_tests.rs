//! The fake is worth only what it notices: each of its checks is made to strike here.

use super::*;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::string::String;
use std::sync::atomic::{AtomicUsize, Ordering};

const BYTES: usize = 16 * OS_PAGE;

fn reserved(os: &Fake) -> Range {
    Range::new(os.reserve(BYTES, OS_PAGE).unwrap(), BYTES)
}

fn part(range: Range, first: usize, pages: usize) -> Range {
    Range::new(range.start.wrapping_add(first * OS_PAGE), pages * OS_PAGE)
}

/// What `body` panics with.
fn complaint<T: core::fmt::Debug>(body: impl FnOnce() -> T) -> String {
    let panic = catch_unwind(AssertUnwindSafe(body)).expect_err("no complaint");
    panic.downcast_ref::<String>().cloned().unwrap_or_else(|| (*panic.downcast_ref::<&str>().unwrap()).into())
}

/// All that a pool does with a segment, each failure undone.
fn scenario(os: &Fake) -> Result<(), OsError> {
    let range = Range::new(os.reserve(BYTES, 2 * OS_PAGE)?, BYTES);
    // SAFETY: within the reservation, in the order that the contract asks for.
    unsafe {
        let result = (|| {
            os.commit(part(range, 1, 8))?;
            os.guard(part(range, 0, 1))?;
            os.name(range, "mempool")?;
            os.huge_pages_advise(range)?;
            os.dont_dump(range)?;
            os.prefault(part(range, 1, 8))?;
            os.huge_pages_make(part(range, 1, 8))?;
            os.lock_limit()?;
            os.lock(part(range, 1, 8))?;
            os.decommit(part(range, 2, 2), true)?;
            os.unlock(part(range, 1, 8))
        })();
        while os.release(range).is_err() {
            os.heal();
        }
        result
    }
}

#[test]
fn every_call_can_fail_once_or_for_ever_and_nothing_leaks() {
    let whole = Fake::new();
    scenario(whole).unwrap();
    let total = whole.calls().len();
    assert_eq!(total, 13);
    for strike in [Strike::Once, Strike::ForEver] {
        for at in 1..=total {
            let os = Fake::new();
            os.fail("", at, 12, strike);
            let result = scenario(os);
            if at < total {
                assert_eq!(result, Err(OsError { call: whole.calls()[at - 1], errno: 12 }));
            }
            assert_eq!((os.reserved_bytes(), os.locked_bytes()), (0, 0));
        }
    }
}

#[test]
fn failures_can_be_kept_to_one_call() {
    let os = Fake::new();
    os.fail("lock", 1, 1, Strike::ForEver);
    assert_eq!(scenario(os), Err(OsError { call: "lock", errno: 1 }));
    os.fail("commit", 2, 1, Strike::Once);
    assert_eq!(scenario(os), Ok(()));
    assert_eq!(scenario(os), Err(OsError { call: "commit", errno: 1 }));
    assert_eq!(scenario(os), Ok(()));
}

#[test]
fn states_follow_the_calls() {
    let os = Fake::new();
    let range = reserved(os);
    // SAFETY: within the reservation, in order.
    unsafe {
        os.commit(part(range, 0, 4)).unwrap();
        assert!((0..4 * OS_PAGE).all(|offset| *range.start.add(offset) == 0));
        *range.start = 9;
        os.commit(part(range, 0, 5)).unwrap();
        assert_eq!(*range.start, 9, "committed pages stay as they are");
        os.lock(part(range, 0, 2)).unwrap();
        assert_eq!(os.page(range.start), PageState { committed: true, guard: false, present: false, locked: true });
        os.lock(part(range, 1, 2)).unwrap();
        assert_eq!((os.locked_bytes(), os.committed_bytes(), os.reserved_bytes()), (3 * OS_PAGE, 5 * OS_PAGE, BYTES));
        assert_eq!(os.decommit(part(range, 0, 1), false).unwrap_err().errno, OsError::EINVAL);
        os.decommit(part(range, 0, 1), true).unwrap();
        assert_eq!(*range.start, 0);
        os.guard(part(range, 0, 1)).unwrap();
        assert!(os.page(range.start).guard && !os.page(range.start).locked);
        os.commit(part(range, 0, 1)).unwrap();
        assert!(!os.page(range.start).guard);
        os.release(range).unwrap();
    }
    assert_eq!(os.reserved_bytes(), 0);
}

#[test]
fn lock_limit_counts_each_page_once() {
    let os = Fake::new();
    os.limit_locks(3 * OS_PAGE);
    let range = reserved(os);
    // SAFETY: within the reservation, in order.
    unsafe {
        os.commit(range).unwrap();
        os.lock(part(range, 0, 3)).unwrap();
        os.lock(part(range, 1, 2)).unwrap();
        assert_eq!(os.lock(part(range, 2, 2)).unwrap_err().errno, OsError::ENOMEM);
        assert_eq!(os.lock_limit().unwrap().soft, 3 * OS_PAGE);
        os.release(range).unwrap();
    }
}

#[test]
fn breaches_of_the_contract_are_named() {
    let os = Fake::new();
    let range = reserved(os);
    // SAFETY: the fake refuses each of these before it does anything.
    unsafe {
        assert!(complaint(|| os.prefault(range)).contains("not committed"));
        assert!(complaint(|| os.lock(range)).contains("not committed"));
        assert!(complaint(|| os.commit(Range::new(range.start, 100))).contains("whole OS pages"));
        assert!(complaint(|| os.commit(part(range, 1, 16))).contains("outside"));
        assert!(complaint(|| os.release(part(range, 0, 4))).contains("not the whole"));
        assert!(complaint(|| os.release(part(range, 1, 4))).contains("no reservation"));
        assert!(complaint(|| os.reserve(5, OS_PAGE)).contains("5 bytes"));
        assert!(complaint(|| os.reserve(OS_PAGE, 3)).contains("align 3"));
        os.release(range).unwrap();
        assert!(complaint(|| os.commit(range)).contains("reserve"));
    }
}

#[test]
fn writes_outside_of_committed_pages_are_found() {
    let os = Fake::new();
    let range = reserved(os);
    // SAFETY: memory of the reservation; the contract, not the language, forbids these writes.
    unsafe {
        *range.start.add(3 * OS_PAGE + 5) = 1;
        assert!(complaint(|| os.commit(part(range, 3, 1))).contains("written to"));
        assert!(complaint(|| os.release(range)).contains("written to"));
        *range.start.add(3 * OS_PAGE + 5) = POISON;
        os.commit(part(range, 0, 2)).unwrap();
        os.guard(part(range, 0, 1)).unwrap();
        *range.start = 0;
        assert!(complaint(|| os.release(range)).contains("written to"));
        *range.start = POISON;
        os.release(range).unwrap();
    }
}

#[test]
fn time_messages_and_death_are_observed() {
    let os = Fake::new();
    os.write_stderr(b"one ");
    os.write_stderr(b"two");
    os.sleep(5);
    os.sleep(7);
    assert_eq!((os.stderr().as_slice(), os.now_ns(), os.sleeps().as_slice()), (&b"one two"[..], 12, &[5, 7][..]));
    assert_eq!(complaint(|| os.abort()), "aborted");
    let range = reserved(os);
    // SAFETY: in the reservation.
    unsafe {
        os.name(range, "pool").unwrap();
        assert_eq!(os.name(range, "po[ol").unwrap_err().errno, OsError::EINVAL);
        os.release(range).unwrap();
    }
    assert_eq!(os.names(), ["pool"]);
}

static ENDED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn ended(value: *mut c_void) {
    ENDED.fetch_add(value.addr(), Ordering::Relaxed);
}

static FORKED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn forked() {
    FORKED.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn threads_end_and_children_begin_on_demand() {
    let os = Fake::new();
    let key = os.thread_key_create(ended).unwrap();
    os.set_thread_value(key, core::ptr::without_provenance_mut(3)).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| os.run_thread_exit()).join().unwrap();
    });
    assert_eq!(ENDED.load(Ordering::Relaxed), 0, "another thread's end is not this one's");
    os.run_thread_exit();
    os.run_thread_exit();
    assert_eq!(ENDED.load(Ordering::Relaxed), 3, "once");
    os.set_thread_value(key, core::ptr::without_provenance_mut(4)).unwrap();
    os.thread_key_delete(key).unwrap();
    os.run_thread_exit();
    assert_eq!((ENDED.load(Ordering::Relaxed), os.thread_keys()), (3, 0));
    assert_eq!(os.set_thread_value(key, core::ptr::null_mut()).unwrap_err().errno, OsError::EINVAL);
    os.at_fork_child(forked).unwrap();
    os.run_fork_child();
    assert_eq!(FORKED.load(Ordering::Relaxed), 1);
}
