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

# Newer peers, for `mempool bench`
peers:
    crates/mempool-bench/peers/build.sh

# Instructions of the hot paths against those recorded; `BLESS=1 just counts` records them
counts:
    .ci/run counts

# The pool beside other allocators, as `mempool bench` takes it
bench *ARGS:
    cargo run --release --package mempool-cli -- bench {{ARGS}}

# Measures workloads and programs, for an hour, and writes the tables and the picture of docs/BENCHMARKS.md and the README
benchmarks: peers
    cargo run --release --package mempool-cli -- bench --scale 0.3 --rounds 3 --json target/bench.json --markdown docs/BENCHMARKS.md --picture docs/bench.svg --html target/bench.html

# What only a pool has, as docs/BENCHMARKS.md shows it
bench-pool:
    cargo run --release --package mempool-cli -- bench --quick --pool --only protocol --allocators pool,system

# The hot path beside other allocators in one process
hot-path *ARGS:
    cargo bench --package mempool-bench --bench hot_path -- {{ARGS}}

# The page-frag tier's search, at 2 MiB, 256 MiB and 16 GiB
bench-page-frag *ARGS:
    cargo bench --package mempool-bench --bench page_frag -- {{ARGS}}

# The proof: a program at work while a hog takes all memory
starve *ARGS:
    cargo run --release -- starve {{ARGS}}

# Hours: random programs a hundred times as many, properties a thousand times as often
nightly:
    TEST_CASES_FACTOR=100 cargo test --release --package mempool-testing
    PROPTEST_CASES=262144 cargo test --release --package mempool
