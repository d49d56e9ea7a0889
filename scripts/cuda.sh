#!/bin/bash
# Builds program and plugin with CUDA where there is neither a CUDA toolkit nor a card:
#   scripts/cuda.sh               target/cuda/release/masam and libmasam.so
#   scripts/cuda.sh clippy ...    any cargo command in the same surroundings, with --features cuda
#
# The compiler comes from NVIDIA's wheels on PyPI, into target/cuda/tools. All CUDA libraries are opened at run time, so
# that one program serves machines with and without a driver.
set -euo pipefail
cd "$(dirname "$0")/.."

base=$(mkdir -p "${CARGO_TARGET_DIR:-target}/cuda" && cd "${CARGO_TARGET_DIR:-target}/cuda" && pwd)
tools=$base/tools toolkit=$base/toolkit
export TMPDIR=$base/tmp # nvcc leaves its intermediate files there
mkdir -p "$TMPDIR"

# nvcc, its two back ends and the headers they need; nothing of them is linked but the static run-time library.
wheels=(
  nvidia-cuda-nvcc==13.0.88
  nvidia-nvvm==13.0.88
  nvidia-cuda-crt==13.0.88
  nvidia-cuda-cccl==13.0.85
  nvidia-cuda-runtime==13.0.96
)

make_toolkit() {
  rm -rf "$tools" "$toolkit"
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check --no-deps "${wheels[@]}"
  local root
  root=$("$tools/bin/python" -c 'import nvidia; print(list(nvidia.__path__)[0])')/cu13
  mkdir -p "$toolkit/lib" "$toolkit/bin"
  ln -s lib "$toolkit/lib64"
  ln -s "$root/include" "$root/nvvm" "$toolkit/"
  ln -s "$root/bin" "$toolkit/real"
  # Crates ask the linker for these by name. The run-time library is answered with its static form; of the others
  # nothing is used (they are opened at run time), so an empty library will do, and --as-needed drops it again.
  echo "INPUT($root/lib/libcudart_static.a -lpthread -ldl -lrt)" > "$toolkit/lib/libcudart.so"
  local name
  for name in cuda cublas cublasLt curand nvrtc cudnn; do
    gcc -shared -x c -Wl,-soname,"lib$name.so.absent" -o "$toolkit/lib/lib$name.so" /dev/null
  done
  # Two thirds of nvcc's time would go into kernels for quantised and mixture-of-experts language models, which nothing
  # here calls. Their entry points are answered with one that says so and aborts.
  local entries
  entries=$(echo "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*/candle-kernels-"$kernels_version"/src/ffi.rs)
  {
    echo '#include <cstdio>'
    echo '#include <cstdlib>'
    sed -nE 's/.*fn ([a-z0-9_]+).*/\1/p' "${entries%% *}" | sort -u | while read -r name; do
      echo "extern \"C\" void $name() { fputs(\"$name is not part of this build\\n\", stderr); abort(); }"
    done
  } > "$toolkit/absent.cu"
  : > "$toolkit/empty.cu"
  cat > "$toolkit/bin/nvcc" <<'NVCC'
#!/bin/bash
toolkit=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
arguments=("$@")
case "${arguments[-1]:-}" in
  src/mmq_gguf/mmq_quantize.cu) arguments[-1]=$toolkit/absent.cu ;;
  src/mmq_gguf/*.cu | src/mmvq_gguf.cu | src/moe/*.cu) arguments[-1]=$toolkit/empty.cu ;;
esac
exec "$toolkit/real/nvcc" "${arguments[@]}"
NVCC
  chmod +x "$toolkit/bin/nvcc"
}

kernels_version=$(grep -A1 '^name = "candle-kernels"' Cargo.lock | sed -nE 's/version = "(.*)"/\1/p')
stamp="${wheels[*]} candle-kernels==$kernels_version $(sha256sum < "${BASH_SOURCE[0]}")"
if [ "$(cat "$toolkit/stamp" 2>/dev/null)" != "$stamp" ]; then
  cargo fetch --locked --quiet
  make_toolkit
  echo "$stamp" > "$toolkit/stamp"
fi

triple=$(rustc -vV | sed -n 's/^host: //p')
export CUDA_HOME=$toolkit CUDA_PATH=$toolkit CUDA_ROOT=$toolkit NVCC=$toolkit/bin/nvcc
export PATH=$toolkit/bin:$toolkit/real:$PATH
export CUDA_COMPUTE_CAP=${CUDA_COMPUTE_CAP:-80} # Candle's kernels: PTX for Ampere and all that follow
export CUDARC_CUDA_VERSION=13000                # the interface that cudarc speaks; else it would ask nvcc
export CUDAFORGE_THREADS=${CUDAFORGE_THREADS:-$(nproc)}
export CARGO_TARGET_DIR=$base
# Candle asks cudarc to link; with this cfg its sources open the libraries instead. cudarc's build script refuses the
# two together, so it must not see the cfg: flags reach build scripts only where no target is named.
export RUSTFLAGS="${RUSTFLAGS:-} --cfg feature=\"dynamic-loading\""

if [ $# -gt 0 ]; then
  exec cargo "$1" --target "$triple" --features cuda "${@:2}"
fi
cargo build --release --locked --target "$triple" --features cuda
cargo rustc --release --locked --target "$triple" --features cuda --lib --crate-type cdylib
mkdir -p "$base/release"
ln -sf "../$triple/release/masam" "../$triple/release/libmasam.so" "$base/release/"
ls -lL "$base/release/"
