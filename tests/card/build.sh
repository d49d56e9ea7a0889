#!/bin/bash
# Builds the card that is not there (card.h) into a folder:
#   tests/card/build.sh FOLDER
# A program with FOLDER in LD_LIBRARY_PATH finds CUDA's libraries in it.
set -euo pipefail
cd "$(dirname "$0")/../.."

folder=$1
mkdir -p "$folder"
stamp=$({
  cat tests/card/* src/kernels/cuda/*.cu src/kernels/cuda/*.cuh src/kernels/cuda/host.h
  "${CXX:-g++}" --version
  grep -m1 'model name' /proc/cpuinfo || true
} | sha256sum)
[ "$(cat "$folder/stamp" 2>/dev/null)" != "$stamp" ] || exit 0
rm -f "$folder/stamp"

compile() {
  "${CXX:-g++}" -std=c++17 -O3 -march=native -fno-strict-aliasing -ffp-contract=off -U_FORTIFY_SOURCE -fPIC -shared -Wall -Wextra -Werror \
    -Wno-unknown-pragmas "$@"
}
# The driver does one thing at a time, so that no thread needs a card of its own.
for source in src/kernels/cuda/*.cu; do
  compile -Dthread_local= -x c++ "$source" -o "$folder/$(basename "$source" .cu).so"
done
compile tests/card/driver.cc tests/card/candle.cc tests/card/products.cc -o "$folder/libcard.so" -ldl
for name in libcuda.so libcuda.so.1 libcublas.so libcublas.so.13 libcublasLt.so libcublasLt.so.13 libcurand.so libcurand.so.10; do
  ln -sf libcard.so "$folder/$name"
done
echo "$stamp" > "$folder/stamp"
