#!/bin/sh
# Installs the system packages that building, testing or demonstrating tilecast needs.
#
#   docker/install-deps.sh [build] [certificates] [test] [bench] [image]      (default: build)
#
# build  compile tilecast against the system's FFmpeg
# certificates   of the authorities that TLS trusts (the container image has them)
# image  Debian's own way to build the container image, where there is no docker or podman
# test   what the tests and the demo look through: ffmpeg, ffprobe, Chromium, GStreamer, npm, Python with venv
# bench  what benches/peers.sh compares with: ffmpeg, and GStreamer with its x264
#
# Debian 12 and newer, Ubuntu 22.04 and newer. It says what it does, and touches neither the network nor apt
# where nothing is missing.
set -eu

build="pkg-config clang libclang-dev make libavcodec-dev libavformat-dev libavutil-dev libswscale-dev libswresample-dev"
certificates="ca-certificates"
image="buildah debootstrap"
test="ffmpeg ca-certificates chromium python3-venv gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad"
bench="ffmpeg python3 gstreamer1.0-tools gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly"

wanted=""
for group in "${@:-build}"; do
    case "$group" in
        build) wanted="$wanted $build" ;;
        certificates) wanted="$wanted $certificates" ;;
        image) wanted="$wanted $image" ;;
        test) wanted="$wanted $test" ;;
        bench) wanted="$wanted $bench" ;;
        *) echo "install-deps: unknown group '$group': build, certificates, test, bench or image" >&2; exit 2 ;;
    esac
done

if ! command -v dpkg-query >/dev/null 2>&1; then
    echo "install-deps: this is no Debian or Ubuntu; install by hand what these packages hold:$wanted" >&2
    exit 1
fi

missing=""
for package in $wanted; do
    # Chromium is a snap on Ubuntu: any browser by that name will do.
    if [ "$package" = chromium ] && command -v chromium >/dev/null 2>&1; then continue; fi
    # As does any Python that can make such folders.
    if [ "$package" = python3-venv ] && python3 -c 'import ensurepip, venv' >/dev/null 2>&1; then continue; fi
    status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
    [ "$status" = installed ] || missing="$missing $package"
done
# npm comes with every Node.js but Debian's own; only its command counts.
case " $* " in *" test "*) command -v npm >/dev/null 2>&1 || missing="$missing npm" ;; esac

if [ -z "$missing" ]; then
    echo "install-deps: nothing is missing"
    exit 0
fi

echo "install-deps: installing:$missing"
sudo=""
if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null 2>&1 || { echo "install-deps: root is needed to install; run as root: apt-get install$missing" >&2; exit 1; }
    sudo=sudo
fi
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get update -q
# shellcheck disable=SC2086 # a list of names, split on purpose
$sudo apt-get install -q -y --no-install-recommends $missing
