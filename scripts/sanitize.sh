#!/bin/bash
# Looks for data races, lost wake-ups and misuse of memory: scripts/sanitize.sh loom|thread|valgrind.
#
#   loom      worker, ports, supervisor and alarm in every order of their threads (tests/interleavings.rs,
#             src/stream/alarm.rs); any compiler
#   thread    ThreadSanitizer on the tests of the streams and of masaminfer; nightly compiler with rust-src
#   valgrind  memcheck on pipelines with the plugin, exact and live; valgrind, gst-launch-1.0, `make plugin`
#
# Not part of `make test`: each takes minutes to an hour.
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-$PWD/target}
case ${1:-} in
  loom)
    export CARGO_TARGET_DIR=$target/loom RUSTFLAGS="--cfg masam_loom"
    # Only the threads' code is of interest: what it depends on need not be fast.
    test() {
      cargo test --locked --no-default-features --config 'profile.dev.package."*".opt-level=0' "$@" \
        --test-threads 1 --nocapture
    }
    test --test interleavings --
    test --lib -- ::interleavings::
    ;;
  thread)
    # The standard library is built with the sanitizer as well; C libraries are not: scripts/sanitize/thread. What
    # GLib's slices give out again looks like a race to it, what malloc gives does not.
    export G_SLICE=always-malloc
    # A panic that is meant takes longer to be traced back, at this speed, than the watchdog waits.
    export RUST_BACKTRACE=0
    export CARGO_TARGET_DIR=$target/thread RUSTFLAGS="-Zsanitizer=thread"
    export TSAN_OPTIONS="suppressions=$PWD/scripts/sanitize/thread history_size=4 second_deadlock_stack=1 exitcode=66"
    test() {
      cargo +nightly test --locked --no-default-features --features gst -Zbuild-std --target x86_64-unknown-linux-gnu \
        --config 'profile.dev.package."*".opt-level=0' "$@"
    }
    test --lib -- --test-threads 2 stream:: thread_pool:: overlay::ahead::
    # Not the one with a model of real size.
    test --test infer_exact --test infer_live --test infer_share --test infer_faults \
      -- --test-threads 2 --skip masks_are_those_of
    ;;
  valgrind)
    plugin=$target/release
    [ -f "$plugin/libmasam.so" ] || { echo "sanitize: $plugin/libmasam.so is missing, make plugin" >&2; exit 1; }
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    export GST_REGISTRY=$scratch/registry GST_PLUGIN_PATH=$plugin GST_REGISTRY_FORK=no G_SLICE=always-malloc
    gst-inspect-1.0 masaminfer > /dev/null
    # Valgrind does not know AVX-512 and hides it: the AVX2 kernels run.
    for mode in exact live; do
      echo "sanitize: valgrind, mode=$mode"
      valgrind --error-exitcode=99 --leak-check=full --show-leak-kinds=definite --errors-for-leak-kinds=definite \
        --num-callers=40 --suppressions=scripts/sanitize/valgrind \
        gst-launch-1.0 -q videotestsrc num-buffers="${2:-20}" ! video/x-raw,format=NV12,width=320,height=240 \
        ! masaminfer model=weights/demo.safetensors mode=$mode ! masamoverlay style=both ! fakesink
    done
    ;;
  *)
    sed -n '2,9s/^# \{0,1\}//p' "$0" >&2
    exit 2
    ;;
esac
