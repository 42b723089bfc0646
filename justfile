# Short names for what .ci/run does, and for what is too long for it. `just` alone lists them.

default:
    @just --list

# The README's tests
test:
    cargo test --workspace

# Everything that must hold before a change is accepted
ci *STAGES:
    .ci/run {{STAGES}}

# The models of the lock-free protocols
loom:
    .ci/run loom

# Formats the code
fmt:
    cargo fmt --all

# The documentation of the Rust interface
doc:
    .ci/run doc

# The hot path beside other allocators
bench *ARGS:
    cargo bench --package mempool-bench --bench hot_path -- {{ARGS}}

# The proof: a program at work while a hog takes all memory
starve *ARGS:
    cargo run --release -- starve {{ARGS}}

# Hours: every property a thousand times as often
nightly:
    PROPTEST_CASES=262144 cargo test --release --workspace
    # 10,000 forks, 400,000 threads, twenty times as many programs; then all of it with the pool as global allocator
    TEST_CASES_FACTOR=20 cargo test --release -p mempool-testing
    cargo test --release -p mempool-testing --features global

# The fuzz targets, SECONDS each: needs a nightly toolchain and cargo-fuzz
fuzz SECONDS="20":
    for target in program packing config sizes; do \
        ASAN_OPTIONS=detect_leaks=0 cargo +nightly fuzz run --fuzz-dir fuzz $target -- -max_total_time={{SECONDS}} || exit 1; \
    done
