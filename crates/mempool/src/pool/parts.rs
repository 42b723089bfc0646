//! What each tier is told of where its part of the metadata lies.

use super::*;

pub(super) fn slab_parts(
    areas: &Areas,
    words: &dyn Fn(u64) -> *const AtomicU64,
    slots: Slots,
    data: usize,
) -> SlabTier {
    SlabTier {
        slots,
        data,
        hints: words(areas.hints),
        class_hints: words(areas.class_hints),
        shapes: words(areas.shapes),
        classes: areas.classes as usize,
        zero: words(areas.zero),
        lock: words(areas.slab_lock),
        give_way: front::give_way,
        // Behind the lock, in its line.
        reach: words(areas.slab_lock + 8),
    }
}

pub(super) fn thread_parts(areas: &Areas, words: &dyn Fn(u64) -> *const AtomicU64) -> Threads {
    Threads {
        directory: words(areas.directory),
        most: areas.max_threads as usize,
        shared: words(areas.shared).cast_mut().cast::<LocalHeap>(),
        lock: SpinLock::new(),
        low: AtomicU64::new(0),
        present: AtomicU64::new(0),
        peak: AtomicU64::new(0),
    }
}

pub(super) fn frag_parts(
    areas: &Areas,
    words: &dyn Fn(u64) -> *const AtomicU64,
    data: usize,
) -> crate::frag::FragParts {
    crate::frag::FragParts {
        busy: words(areas.busy),
        first: words(areas.first),
        last: words(areas.last),
        length: words(areas.length).cast(),
        touched: words(areas.touched),
        tree: words(areas.tree),
        control: words(areas.frag_control),
        cells: areas.cells as usize,
        base_address: data,
    }
}

pub(super) fn heap_parts(
    areas: &Areas,
    words: &dyn Fn(u64) -> *const AtomicU64,
    slots: Slots,
    data: *mut u8,
    values: &crate::config::Values,
) -> crate::heap::HeapParts {
    crate::heap::HeapParts {
        control: words(areas.heap_control),
        slots,
        data,
        limit: values.heap_max_alloc,
        lifetime: values.heap_page_lifetime,
        patience: crate::heap::DEFAULT_PATIENCE,
    }
}
