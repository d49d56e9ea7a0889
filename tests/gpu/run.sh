#!/bin/bash
# Everything that a card has to show, in one go, on a machine with a driver (580 or newer), CUDA 13's libraries, our
# program built by `make cuda`, and Python with PyTorch:
#   tests/gpu/run.sh [PROGRAM]
#
# First correctness: a wrong result ends the run, so that nothing wrong is timed. Then ours and PyTorch in turn, several
# rounds, then a profile, then a table. Raw output stays in benchmarks/cuda-DATE-CARD/.
#
#   GOLDENS=DIR   more reference tensors, for example a real size
#   CONFIGS="vit_h vit_b"  DTYPES="bf16 f16"  ROUNDS=3  RUNS=20  PYTHON=python3
#   DEVICE=cpu    rehearses the script on a machine without a card
set -euo pipefail
cd "$(dirname "$0")/../.."

program=$(readlink -f "${1:-target/cuda/release/masam}")
python=${PYTHON:-python3} device=${DEVICE:-cuda:0} configs=${CONFIGS:-vit_h vit_b} dtypes=${DTYPES:-bf16 f16}
rounds=${ROUNDS:-3} runs=${RUNS:-20}
torch_device=${device%:0}
oracle=tests/oracle/masam_torch.py

# Where CUDA's libraries are pip's, they have to be named.
pip_libraries=$("$python" - <<'PYTHON'
import glob, os
try:
    import nvidia
    found = {os.path.dirname(f) for p in nvidia.__path__ for f in glob.glob(p + "/**/lib/*.so*", recursive=True)}
    print(":".join(sorted(found)))
except ImportError:
    pass
PYTHON
)
export LD_LIBRARY_PATH=$pip_libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}

card=cpu
if [ "$device" != cpu ]; then
  card=$(nvidia-smi --query-gpu=name --format=csv,noheader --id="${device#cuda:}" | tr -cs 'A-Za-z0-9\n' '-')
fi
out=${OUT:-benchmarks/cuda-$(date +%F)-$card}
mkdir -p "$out"

heading() { printf '\n== %s\n' "$1" | tee -a "$out/log.txt"; }

heading "machine"
{
  date -u
  git log -1 --format='commit %H %s' 2>/dev/null || true
  "$program" doctor || true
  "$python" -c 'import torch; print("torch", torch.__version__)'
  [ "$device" = cpu ] || nvidia-smi
} 2>&1 | tee "$out/machine.txt"

heading "correctness"
folders=(tests/fixtures/golden)
[ -z "${GOLDENS:-}" ] || folders+=("$GOLDENS")
: > "$out/correctness.txt"
precisions="f32 $dtypes"
[ "$device" != cpu ] || precisions=f32
for precision in $precisions; do
  for folder in "${folders[@]}"; do
    for side in masam torch torch-sdpa; do
      {
        echo "# $side $precision $folder"
        case $side in
          masam) "$program" selftest --device "$device" --precision "$precision" --goldens "$folder" ;;
          torch) "$python" $oracle check "$folder" --device "$torch_device" --dtype "$precision" ;;
          torch-sdpa) "$python" $oracle check "$folder" --device "$torch_device" --dtype "$precision" --sdpa ;;
        esac || true
      } 2>&1 | tee -a "$out/correctness.txt"
    done
  done
done
# float32 within its bounds; narrower types no worse than PyTorch in the same type.
"$python" tests/gpu/table.py correctness "$out/correctness.txt" | tee "$out/correctness-table.txt"

if [ "$device" != cpu ]; then
  if command -v compute-sanitizer > /dev/null; then
    heading "compute-sanitizer"
    for tool in memcheck racecheck; do
      compute-sanitizer --tool $tool --error-exitcode 1 "$program" selftest --device "$device" --precision f32 \
        2>&1 | tee "$out/sanitizer-$tool.txt" | tail -3
    done
    # Narrow types take the tensor cores; their bounds are not what is looked at here.
    compute-sanitizer --tool memcheck "$program" selftest --device "$device" --precision bf16 \
      2>&1 | tee "$out/sanitizer-memcheck-bf16.txt" | grep 'ERROR SUMMARY: 0 errors'
  else
    echo "SKIPPED: compute-sanitizer is not here" | tee -a "$out/log.txt"
  fi
fi

heading "timings"
: > "$out/timings.jsonl"
timed() { # label, then the command; a combination that does not run is noted and the next one taken
  local label=$1 line
  shift
  if line=$("$@" 2> "$out/last-error.txt" | tail -1) && [ "${line:0:1}" = "{" ]; then
    echo "$line" | tee -a "$out/timings.jsonl"
  else
    "$python" - "$label" "$out/last-error.txt" <<'PYTHON' | tee -a "$out/timings.jsonl"
import json, sys
lines = open(sys.argv[2]).read().strip().splitlines() or ["no output"]
print(json.dumps({"what": "failed", "command": sys.argv[1], "why": lines[-1][:300]}))
PYTHON
  fi
}
for round in $(seq "$rounds"); do
  for config in $configs; do
    for dtype in $dtypes; do
      echo "# round $round $config $dtype"
      for graph in "" "--graph"; do
        [ "$device" != cpu ] || [ -z "$graph" ] || continue
        for work in "" "--frames 1 --step" "--frames 1 --step --batch 8"; do
          # shellcheck disable=SC2086 # options are words
          timed "masam $config $dtype $work $graph" "$program" bench --config "$config" --device "$device" \
            --dtype "$dtype" --runs "$runs" --warmup 5 $work $graph
        done
      done
      # From a 1080p frame in the machine's memory to class ids there.
      for work in "" "--frames 1 --step"; do
        # shellcheck disable=SC2086 # options are words
        timed "masam $config $dtype $work --host" "$program" bench --config "$config" --device "$device" \
          --dtype "$dtype" --runs $((10 * runs)) --warmup 5 $work --host
      done
      for options in "" "--sdpa" "--compile" "--compile --sdpa" "--compile --sdpa --compile-mode reduce-overhead" \
        "--compile --sdpa --compile-mode max-autotune"; do
        [ "$device" != cpu ] || [[ $options != *compile* ]] || continue
        for step in "" "--step" "--step --batch 8"; do
          # shellcheck disable=SC2086 # options are words
          timed "torch $config $dtype $options $step" "$python" $oracle bench --config "$config" \
            --device "$torch_device" --dtype "$dtype" --runs "$runs" $options $step
        done
      done
    done
  done
done

heading "profile"
first=${configs%% *}
if [ "$device" != cpu ] && command -v nsys > /dev/null; then
  nsys profile --force-overwrite true --output "$out/masam" "$program" bench --config "$first" --device "$device" \
    --dtype "${dtypes%% *}" --runs 5 --warmup 2 > "$out/profile-log.txt" 2>&1
  nsys stats --report cuda_gpu_kern_sum --format csv "$out/masam.nsys-rep" > "$out/profile-kernels.csv"
  rm -f "$out/masam.nsys-rep" "$out/masam.sqlite"
  head -30 "$out/profile-kernels.csv"
else
  echo "SKIPPED: nsys is not here" | tee -a "$out/log.txt"
fi

heading "table"
rm -f "$out/last-error.txt"
"$python" tests/gpu/table.py timings "$out/timings.jsonl" | tee "$out/table.txt"
