#!/bin/bash
# Checks what scripts/cuda.sh built: that program and plugin need no CUDA library to start, and what they say on a machine
# without a card. With a driver at hand the refusals cannot be seen, so they are skipped aloud.
set -euo pipefail
cd "$(dirname "$0")/.."

release=${CARGO_TARGET_DIR:-target}/cuda/release
program=$release/masam
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  echo "cuda-check: $1" >&2
  [ $# -lt 2 ] || sed 's/^/  /' "$2" >&2
  exit 1
}

for file in "$program" "$release/libmasam.so"; do
  ldd "$file" > "$scratch/needs"
  ! grep -E 'not found|libcu(da|dart|blas|rand)|libnvrtc' "$scratch/needs" || fail "$file needs what it should open itself"
done

for architecture in sm_80 sm_90a; do
  # As fatbinary notes the compiler's options beside each image.
  grep -aq -e "-arch $architecture " "$program" || fail "$program holds no machine code for $architecture"
done

GST_REGISTRY=$scratch/registry GST_PLUGIN_PATH=$PWD/$release gst-inspect-1.0 masaminfer > "$scratch/element" ||
  fail "the plugin does not load" "$scratch/element"
grep -q 'cuda:N' "$scratch/element" || fail "masaminfer does not describe its devices" "$scratch/element"

"$program" doctor > "$scratch/doctor" || fail "masam doctor" "$scratch/doctor"
"$program" bench --config tiny --device auto --runs 1 > "$scratch/auto" || fail "device=auto" "$scratch/auto"

if "$program" bench --config tiny --device cuda:0 --runs 1 > "$scratch/card" 2>&1; then
  grep -q '"path":"cuda:0' "$scratch/auto" || fail "device=auto does not take the card" "$scratch/auto"
  echo "SKIPPED: what is said without a card, for there is one"
  tests/card/check.sh "$program"
  exit 0
else
  status=$?
fi
[ "$status" -eq 1 ] || fail "bench --device cuda:0 ends with $status, not 1" "$scratch/card"
grep -q '"path":"cpu' "$scratch/auto" || fail "device=auto does not take the CPU" "$scratch/auto"
grep -q 'device cuda:0 is not available: ' "$scratch/card" || fail "bench does not say what is missing" "$scratch/card"
! grep -q 'panicked' "$scratch/card" || fail "bench panics" "$scratch/card"
grep -q 'device cuda:0 is not available: ' "$scratch/doctor" || fail "doctor does not say what is missing" "$scratch/doctor"
if ! ldconfig -p | grep -q 'libcuda\.so'; then
  grep -q 'libcuda.so.1' "$scratch/card" || fail "the driver is not named" "$scratch/card"
fi
echo "CUDA build: links, starts without a driver, says what is missing"

tests/card/check.sh "$program"
