#!/bin/bash
# Everything that a card has to show, on a machine with a driver (580 or newer), CUDA 13's libraries, our program built
# by `make cuda`, and Python with PyTorch:
#   tests/gpu/run.sh [PROGRAM]
#
# First correctness: a wrong result ends the run, so that nothing wrong is timed. Then ours and PyTorch in turn, several
# rounds, then a profile, a table, and compute-sanitizer. Raw output is added to benchmarks/cuda-DATE-CARD/, so that the
# parts can be run one by one.
#
#   PARTS="correctness timings profile table sanitizer"   which of them
#   GOLDENS=DIR   more reference tensors, for example a real size
#   CONFIGS="vit_h vit_b"  DTYPES="bf16 f16"  ROUNDS=3  RUNS=20  PYTHON=python3
#   WAYS="-,--sdpa,--compile,--compile --sdpa,..."        how PyTorch runs, with commas between
#   GST=DIR       GStreamer's libraries and plugins in DIR/lib, for our program alone, where the machine has none
#   ARCHIVE=FILE  pack the output into one file at the end, however it came
#   DEVICE=cpu    rehearses the script on a machine without a card
set -euo pipefail
cd "$(dirname "$0")/../.."

given=${1:-target/cuda/release/masam}
[ -x "$given" ] || {
  echo "run.sh: no program at $given; \`make cuda\` builds it" >&2
  exit 1
}
program=$(readlink -f "$given")
python=${PYTHON:-python3} device=${DEVICE:-cuda:0} configs=${CONFIGS:-vit_h vit_b} dtypes=${DTYPES:-bf16 f16}
rounds=${ROUNDS:-3} runs=${RUNS:-20} parts=${PARTS:-correctness timings profile table sanitizer}
ways=${WAYS:--,--sdpa,--compile,--compile --sdpa,--compile --sdpa --compile-mode reduce-overhead,--compile --sdpa --compile-mode max-autotune}
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

if [ -n "${GST:-}" ]; then
  # A folder of libraries has more in it than GStreamer: nobody else is to load them.
  wrapper=$(mktemp)
  cat > "$wrapper" <<WRAPPER
#!/bin/bash
export LD_LIBRARY_PATH=$(readlink -f "$GST")/lib:\$LD_LIBRARY_PATH
export GST_PLUGIN_SYSTEM_PATH=$(readlink -f "$GST")/lib/gstreamer-1.0 GST_REGISTRY=$wrapper.registry GST_REGISTRY_FORK=no
exec "$program" "\$@"
WRAPPER
  chmod +x "$wrapper"
  program=$wrapper
fi

card=cpu
if [ "$device" != cpu ]; then
  card=$(nvidia-smi --query-gpu=name --format=csv,noheader --id="${device#cuda:}" | tr -cs 'A-Za-z0-9\n' '-')
fi
out=${OUT:-benchmarks/cuda-$(date +%F)-$card}
mkdir -p "$out"

if [ -n "${ARCHIVE:-}" ]; then
  trap 'tar -czf "$ARCHIVE" -C "$out" .' EXIT
fi
wants() { [[ " $parts " == *" $1 "* ]]; }
heading() { printf '\n== %s\n' "$1" | tee -a "$out/log.txt"; }

heading "machine"
{
  date -u
  git log -1 --format='commit %H %s' 2>/dev/null || true
  "$program" doctor || true
  "$python" -c 'import torch; print("torch", torch.__version__)'
  [ "$device" = cpu ] || nvidia-smi
} 2>&1 | tee -a "$out/machine.txt"

if wants correctness; then
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

fi

if wants timings; then
heading "timings"
touch "$out/timings.jsonl"
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
      while IFS= read -r -d , options; do
        [ "$options" != - ] || options=
        [ "$device" != cpu ] || [[ $options != *compile* ]] || continue
        for step in "" "--step" "--step --batch 8"; do
          # shellcheck disable=SC2086 # options are words
          timed "torch $config $dtype $options $step" "$python" $oracle bench --config "$config" \
            --device "$torch_device" --dtype "$dtype" --runs "$runs" $options $step
        done
      done <<< "$ways,"
    done
  done
done
fi

if wants profile; then
heading "profile"
first=${configs%% *}
bench=("$program" bench --config "$first" --device "$device" --dtype "${dtypes%% *}")
if [ "$device" != cpu ] && command -v nsys > /dev/null; then
  if nsys profile --force-overwrite true --output "$out/masam" "${bench[@]}" --runs 5 --warmup 2 \
    > "$out/profile-log.txt" 2>&1; then
    nsys stats --report cuda_gpu_kern_sum --format csv "$out/masam.nsys-rep" > "$out/profile-kernels.csv" || true
    head -30 "$out/profile-kernels.csv"
  else
    echo "nsys failed: $out/profile-log.txt" | tee -a "$out/log.txt"
  fi
  rm -f "$out/masam.nsys-rep" "$out/masam.sqlite"
elif [ "$device" != cpu ] && command -v ncu > /dev/null; then
  ncu --clock-control none --metrics gpu__time_duration.sum --csv --log-file "$out/profile-kernels.csv" \
    "${bench[@]}" --runs 1 --warmup 1 > "$out/profile-log.txt" 2>&1 ||
    echo "ncu failed: $out/profile-log.txt" | tee -a "$out/log.txt"
  tail -5 "$out/profile-kernels.csv" || true
else
  echo "SKIPPED: neither nsys nor ncu is here" | tee -a "$out/log.txt"
fi
fi

if wants table; then
heading "table"
rm -f "$out/last-error.txt"
"$python" tests/gpu/table.py timings "$out/timings.jsonl" | tee "$out/table.txt"
fi

# Last: it takes long, and not every machine lets it look.
if wants sanitizer && [ "$device" != cpu ]; then
  heading "compute-sanitizer"
  if command -v compute-sanitizer > /dev/null; then
    failed=0
    # Narrow types take the tensor cores and copies ahead; their results are not what is looked at here.
    for check in "memcheck f32" "racecheck f32" "memcheck bf16" "racecheck bf16"; do
      read -r tool precision <<< "$check"
      file=$out/sanitizer-$tool-$precision.txt
      compute-sanitizer --tool "$tool" "$program" selftest --device "$device" --precision "$precision" > "$file" 2>&1 || true
      # Memcheck says "ERROR SUMMARY: 0 errors", racecheck "RACECHECK SUMMARY: 0 hazards displayed".
      if grep -Eq 'SUMMARY: 0 (errors|hazards)' "$file"; then
        echo "$check: clean" | tee -a "$out/log.txt"
      else
        echo "$check: NOT CLEAN, see $file" | tee -a "$out/log.txt"
        failed=1
      fi
    done
    exit "$failed"
  fi
  echo "SKIPPED: compute-sanitizer is not here" | tee -a "$out/log.txt"
fi
