#!/bin/sh
# Installs the C interface: PREFIX/include/mempool.h, PREFIX/lib/libmempool.{so,a}, PREFIX/lib/pkgconfig/mempool.pc.
#
#   crates/mempool-c/install.sh PREFIX [DIRECTORY]
#
# DIRECTORY has libmempool_c.so and libmempool_c.a; without it they are built (release) with cargo. DESTDIR, if set, goes
# before PREFIX, for packagers. After an installation into a system's prefix run ldconfig.
set -eu

if [ $# -lt 1 ] || [ $# -gt 2 ] || [ "${1#/}" = "$1" ]; then
    echo "usage: install.sh /ABSOLUTE/PREFIX [DIRECTORY WITH libmempool_c.so AND libmempool_c.a]" >&2
    exit 2
fi
prefix=$1
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=$(dirname -- "$(dirname -- "$here")")
version=$(sed -n 's/^#define MEMPOOL_VERSION "\(.*\)"$/\1/p' "$here/include/mempool.h")
major=${version%%.*}

if [ $# -eq 2 ]; then
    from=$2
else
    # Without the Rust library among the crate types the whole is optimised at link time. Cargo takes relative target
    # directories from where it runs.
    (cd "$root" && cargo rustc --release --package mempool-c --crate-type cdylib,staticlib)
    from=$(cd "$root" && cd "${CARGO_TARGET_DIR:-target}/release" && pwd)
fi
for artefact in "$from/libmempool_c.so" "$from/libmempool_c.a"; do
    if [ ! -f "$artefact" ]; then
        echo "install.sh: $artefact is missing; without a DIRECTORY it is built" >&2
        exit 1
    fi
done

to=${DESTDIR:-}$prefix
mkdir -p "$to/include" "$to/lib/pkgconfig"
install -m 644 "$here/include/mempool.h" "$to/include/mempool.h"
install -m 755 "$from/libmempool_c.so" "$to/lib/libmempool.so.$version"
ln -sf "libmempool.so.$version" "$to/lib/libmempool.so.$major"
ln -sf "libmempool.so.$major" "$to/lib/libmempool.so"
install -m 644 "$from/libmempool_c.a" "$to/lib/libmempool.a"
sed -e "s|@PREFIX@|$prefix|" -e "s|@VERSION@|$version|" "$here/mempool.pc.in" > "$to/lib/pkgconfig/mempool.pc"
chmod 644 "$to/lib/pkgconfig/mempool.pc"
echo "installed mempool $version in $to; for programs: cc program.c \$(pkg-config --cflags --libs mempool)"
