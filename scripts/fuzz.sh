#!/bin/bash
# Runs every fuzz target for a while, one after another: scripts/fuzz.sh [SECONDS], or of some: [SECONDS] pth strings.
# Needs a nightly compiler and cargo-fuzz (`cargo install --locked cargo-fuzz`). What is found grows below the target
# folder, not in the repository; an input that fails is left in fuzz/artifacts and belongs into tests/hostile_input.rs.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:-60}
shift || true
targets=("$@")
[ ${#targets[@]} -gt 0 ] || targets=(strings geometry class_table model_file pth elements)

cargo +nightly fuzz --version > /dev/null 2>&1 || {
  echo "fuzz: needs a nightly compiler (rustup toolchain install nightly) and cargo install --locked cargo-fuzz" >&2
  exit 1
}
corpora=${CARGO_TARGET_DIR:-target}/fuzz-corpus
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}/fuzz

# Longest input, and where there are more seeds or a dictionary.
limits() {
  case $1 in
    strings) echo "-max_len=300 -dict=fuzz/dictionaries/strings" ;;
    geometry) echo "-max_len=12000" ;;
    class_table) echo "-max_len=4096 -dict=fuzz/dictionaries/json" ;;
    model_file) echo "-max_len=24000 -dict=fuzz/dictionaries/json" ;;
    # GLib keeps what it was given once; leaks are looked for elsewhere (tests/infer_leaks.rs).
    elements) echo "-max_len=3000 -dict=fuzz/dictionaries/strings -detect_leaks=0" ;;
    pth) echo "-max_len=10000 tests/fixtures/pth" ;;
  esac
}

# Three of them write a file for every input: in memory where that can be.
scratch=$(mktemp -d -p /dev/shm 2> /dev/null || mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# Optimised, with AddressSanitizer, debug assertions and overflow checks.
cargo +nightly fuzz build -O -a
for target in "${targets[@]}"; do
  # Where leaks are looked for elsewhere, also not at the end of a run, which libFuzzer's own option does not reach.
  leaks=1
  [ "$target" != elements ] || leaks=0
  mkdir -p "$corpora/$target" "fuzz/artifacts/$target"
  echo "fuzz: $target"
  # shellcheck disable=SC2046 # One option a word.
  ASAN_OPTIONS=detect_leaks=$leaks TMPDIR=$scratch "$CARGO_TARGET_DIR/x86_64-unknown-linux-gnu/release/$target" \
    "$corpora/$target" "fuzz/corpus/$target" -artifact_prefix="fuzz/artifacts/$target/" \
    -max_total_time="$seconds" -timeout=20 -rss_limit_mb=2048 -print_final_stats=1 $(limits "$target")
done
