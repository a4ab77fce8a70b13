#!/bin/sh
# Builds the container image `tilecast`. A draft, as the Dockerfile is.
#
#   docker/image.sh             with docker or podman where there is one, else with buildah
#   docker/image.sh --try       and then starts the program from the image's root file system, by chroot, as its own user
#
# buildah needs no daemon and no registry: its bases are Debian by debootstrap, and this machine's Rust tool chain. Its folder is
# $IMAGE_DIR (target/image); with --try the root file system is unpacked there.
set -eu
cd "$(dirname "$0")/.."

try=""
[ "${1:-}" = --try ] && try=yes
dir=${IMAGE_DIR:-target/image}

if [ -z "$try" ]; then
    for engine in docker podman; do
        # A command without its daemon is none.
        if "$engine" info >/dev/null 2>&1; then
            exec "$engine" build -f docker/Dockerfile -t tilecast .
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
$b build --isolation chroot --network host --layers --build-arg BUILD_BASE=localhost/tilecast-base \
    -f docker/Dockerfile -t localhost/tilecast .

[ -n "$try" ] || exit 0

# The image as it will run: its root file system read-only, its own user, nothing of this machine but the network.
container=$($b from localhost/tilecast)
root=$($b mount "$container")
trap '$b rm "$container" >/dev/null' EXIT
du -sh "$root" | sed 's/\t.*//;s/^/image: size /'
mkdir -p "$dir/data/media" "$dir/data/spool"
chown -R 10001:10001 "$dir/data"
echo "image: starting it from $root; stop it with Ctrl-C"
unshare --mount sh -eu -c '
    root=$1; data=$2; shift 2
    mount --bind "$root" "$root"
    mount --bind "$data" "$root/data"
    mount -o remount,bind,ro "$root"
    exec chroot --userspec=10001:10001 "$root" "$@"
' try "$root" "$dir/data" /usr/local/bin/tilecast serve --listen "${TILECAST_LISTEN:-127.0.0.1:8080}" \
    --store /data/media --spool /data/spool
