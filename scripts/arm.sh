#!/bin/bash
# Runs the library's own tests (no GStreamer) as 64-bit Arm code with NEON, on any machine: scripts/arm.sh [filter...],
# by default those of kernels, model, executor, streams and files.
#
# Needs rustup's target aarch64-unknown-linux-gnu and, where the machine is no Arm itself, Debian's qemu-user and
# g++-aarch64-linux-gnu. Not part of `make test`: it builds everything once more.
set -euo pipefail
cd "$(dirname "$0")/.."

target=aarch64-unknown-linux-gnu
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/arm
if [ "$(uname -m)" != aarch64 ]; then
  for tool in qemu-aarch64 aarch64-linux-gnu-g++; do
    command -v "$tool" > /dev/null || {
      echo "arm: $tool is missing: apt-get install qemu-user g++-aarch64-linux-gnu" >&2
      exit 1
    }
  done
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=aarch64-linux-gnu-gcc
  export CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER="qemu-aarch64 -L /usr/aarch64-linux-gnu"
  export CC_aarch64_unknown_linux_gnu=aarch64-linux-gnu-gcc CXX_aarch64_unknown_linux_gnu=aarch64-linux-gnu-g++
  export CXX=aarch64-linux-gnu-g++ # which the tests of the cards' kernels call
fi
rustup target list --installed | grep -qx "$target" || rustup target add "$target"
[ $# -gt 0 ] || set -- kernels:: runtime:: model:: segmenter stream:: golden:: checkpoint:: metrics:: geometry labels
cargo test --release --locked --no-default-features --lib --target "$target" -- "$@"
