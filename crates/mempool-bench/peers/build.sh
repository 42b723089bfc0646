#!/usr/bin/env bash
# Builds newer mimalloc (v3), snmalloc and rpmalloc as preload libraries, where `mempool bench` finds them by itself.
#
#   crates/mempool-bench/peers/build.sh [FOLDER]      default: target/release/peers
#
# The sources are those that their crates ship, in the versions that Cargo.lock pins. Compiled are the allocators' own
# `malloc` replacements, with the flags that their own builds use for such a library. Needs cargo, gcc and g++.
set -euo pipefail
here="$(cd "$(dirname "$0")" && pwd)"
target="${CARGO_TARGET_DIR:-$here/../../../target}"
folder="${1:-$target/release/peers}"
mkdir -p "$folder"

cargo fetch --locked --manifest-path "$here/Cargo.toml"
metadata="$(cargo metadata --locked --offline --format-version 1 --manifest-path "$here/Cargo.toml")"

# The folder of the sources of crate $1.
sources() {
    grep -o '"manifest_path":"[^"]*/'"$1"'-[0-9][^"]*"' <<<"$metadata" | head -n 1 | sed 's/.*:"//; s/\/Cargo.toml"$//'
}

# The version of crate $1 goes into a file beside the library, for the report.
version() {
    basename "$(sources "$1")"
}

flags=(-O3 -DNDEBUG -fPIC -shared -fvisibility=hidden -ftls-model=initial-exec -pthread -w)

mimalloc="$(sources libmimalloc-sys)/c_src/mimalloc/v3"
gcc "${flags[@]}" -DMI_SHARED_LIB -DMI_SHARED_LIB_EXPORT -DMI_MALLOC_OVERRIDE -DMI_BUILD_RELEASE -fno-builtin-malloc \
    -I "$mimalloc/include" "$mimalloc/src/static.c" -o "$folder/libmimalloc3.so"
version libmimalloc-sys >"$folder/libmimalloc3.version"

rpmalloc="$(sources rpmalloc-sys)/rpmalloc/rpmalloc"
gcc "${flags[@]}" -fvisibility=default -D_GNU_SOURCE=1 -DENABLE_OVERRIDE=1 -DENABLE_PRELOAD=1 \
    "$rpmalloc/rpmalloc.c" -o "$folder/librpmalloc.so"
version rpmalloc-sys >"$folder/librpmalloc.version"

snmalloc="$(sources snmalloc-sys)/upstream/src"
g++ "${flags[@]}" -std=c++20 -mcx16 -mprfchw -fomit-frame-pointer -ffunction-sections -static-libstdc++ \
    -DSNMALLOC_EXPORT='__attribute__((visibility("default")))' -DSNMALLOC_USE_CXX11_THREAD_ATEXIT_DIRECT \
    -DSNMALLOC_USE_WAIT_ON_ADDRESS=1 -DSNMALLOC_CHECK_LOADS=false -DSNMALLOC_PAGEID=false -I "$snmalloc" \
    "$snmalloc/snmalloc/override/malloc.cc" "$snmalloc/snmalloc/override/new.cc" -latomic -o "$folder/libsnmalloc.so"
version snmalloc-sys >"$folder/libsnmalloc.version"

echo "built in $folder: libmimalloc3.so librpmalloc.so libsnmalloc.so"
