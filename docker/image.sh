#!/bin/sh
# Builds the container image `tilecast`.
#
#   docker/image.sh             with docker or podman where there is one, else with buildah
#   docker/image.sh --try       with buildah, and then tries the image's root file system by tests/image.sh
#
# buildah needs no daemon and no registry: its bases are Debian by debootstrap, and this machine's Rust tool chain. Its folder is
# $IMAGE_DIR (target/image, 10 GB); with --try the root file system is unpacked there.
set -eu
cd "$(dirname "$0")/.."

try=""
[ "${1:-}" = --try ] && try=yes
dir=${IMAGE_DIR:-target/image}
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)

if [ -z "$try" ]; then
    for engine in docker podman; do
        # A command without its daemon is none.
        if "$engine" info >/dev/null 2>&1; then
            exec "$engine" build --build-arg VERSION="$version" -f docker/Dockerfile -t tilecast .
        fi
    done
fi

docker/install-deps.sh image
mkdir -p "$dir"
dir=$(cd "$dir" && pwd)
b="buildah --storage-driver vfs --root $dir/store --runroot $dir/run"

if ! $b inspect --type image localhost/tilecast-base >/dev/null 2>&1; then
    echo "image: making the base of the build"
    rm -rf "$dir/base"
    debootstrap --variant=minbase --include=ca-certificates bookworm "$dir/base" >"$dir/debootstrap.log"
    # Whom this machine trusts beside the usual authorities: its network may need it for packages and crates.
    if ls /usr/local/share/ca-certificates/*.crt >/dev/null 2>&1; then
        cp /usr/local/share/ca-certificates/*.crt "$dir/base/usr/local/share/ca-certificates/"
        chroot "$dir/base" update-ca-certificates >/dev/null 2>&1
    fi
    sysroot=$(rustc --print sysroot)
    mkdir -p "$dir/base/usr/local/rust"
    cp -r "$sysroot/bin" "$sysroot/lib" "$dir/base/usr/local/rust/"
    container=$($b from scratch)
    $b add "$container" "$dir/base" / >/dev/null
    $b config --env PATH=/usr/local/rust/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$container"
    $b commit --rm "$container" localhost/tilecast-base >/dev/null
    rm -rf "$dir/base"
fi
# No layers are kept: the vfs driver copies all of a file system for each.
$b build --isolation chroot --network host --layers=false --format docker --build-arg BUILD_BASE=localhost/tilecast-base \
    --build-arg VERSION="$version" -f docker/Dockerfile -t localhost/tilecast .

[ -n "$try" ] || exit 0

# A copy of the root file system, for engines mount things into it.
container=$($b from localhost/tilecast)
trap '$b rm "$container" >/dev/null' EXIT
rm -rf "$dir/root" "$dir/data"
mkdir -p "$dir/data"
cp -a "$($b mount "$container")" "$dir/root"
tests/image.sh "$dir/root" "$dir/data"
