#!/bin/bash
# Makes sure that what the build and the pipelines need is there. On Debian and its relatives missing packages are
# installed, through sudo when not root; elsewhere the list is printed.
set -euo pipefail

packages=(
  build-essential            # linker and C compiler for crates with C parts
  pkg-config
  libgstreamer1.0-dev
  libgstreamer-plugins-base1.0-dev
  gstreamer1.0-tools         # gst-launch-1.0, gst-inspect-1.0
  gstreamer1.0-plugins-base  # decodebin, videoconvert
  gstreamer1.0-plugins-good  # mp4mux, v4l2src, rtspsrc
  gstreamer1.0-plugins-bad   # h264parse
  gstreamer1.0-plugins-ugly  # x264enc
  gstreamer1.0-libav         # decoders
  python3-venv               # make cuda: a home for the compiler's wheels
  python3-gi                 # examples/read_masks.py
  gir1.2-gst-plugins-base-1.0
  gir1.2-gst-rtsp-server-1.0 # the camera of tests/run_rtsp.rs
)

if ! command -v cargo >/dev/null && [ -x "$HOME/.cargo/bin/cargo" ]; then
  echo "cargo is in $HOME/.cargo/bin but not on PATH: run  . \"\$HOME/.cargo/env\"  first" >&2
  exit 1
fi
if ! command -v cargo >/dev/null; then
  echo "Rust 1.95 or newer is needed: https://rustup.rs" >&2
  exit 1
fi

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  if pkg-config --exists 'gstreamer-1.0 >= 1.22' 'gstreamer-video-1.0 >= 1.22' 2>/dev/null; then
    exit 0
  fi
  echo "This is no Debian. Please install GStreamer 1.22 or newer with its development files, the plugin sets" >&2
  echo "base, good, bad, ugly and libav, pkg-config and a C compiler. On Debian the packages are called:" >&2
  printf '  %s\n' "${packages[@]}" >&2
  exit 1
fi

missing=()
for package in "${packages[@]}"; do
  status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
  [ "$status" = installed ] || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

echo "installing: ${missing[*]}"
as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    echo "not root and no sudo: please install ${missing[*]}" >&2
    exit 1
  fi
  as_root=(sudo)
fi
"${as_root[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${as_root[@]}" apt-get install -y -qq -o Dpkg::Use-Pty=0 --no-install-recommends "${missing[@]}"
