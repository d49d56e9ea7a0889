#!/bin/bash
# Runs the CUDA build on the card that is not there (card.h): everything of a card but its speed.
#   tests/card/check.sh [PROGRAM]
set -euo pipefail
cd "$(dirname "$0")/../.."

target=${CARGO_TARGET_DIR:-target}
program=$(readlink -f "${1:-$target/cuda/release/masam}")
card=$(mkdir -p "$target/cuda/card" && readlink -f "$target/cuda/card")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

tests/card/build.sh "$card"

fail() {
  echo "card: $1" >&2
  [ $# -lt 2 ] || sed 's/^/  /' "$2" >&2
  exit 1
}

# on_card LABEL ARGUMENTS..: what the program says goes to $scratch/said. Nothing may be refused, and nothing take a slower
# way with a warning.
on_card() {
  local label=$1
  shift
  rm -f "$scratch/played"
  MASAM_LOG=warn MASAM_CARD_PLAYED=$scratch/played LD_LIBRARY_PATH=$card "$program" "$@" > "$scratch/said" 2>&1 ||
    fail "$label" "$scratch/said"
  ! grep -Eq '^card: |WARN' "$scratch/said" || fail "$label" "$scratch/said"
}

# has_played LABEL COUNT: at least so many recorded passes.
has_played() {
  [ "$(cat "$scratch/played")" -ge "$2" ] || fail "$1: $(cat "$scratch/played") recorded passes were played, not $2"
}

# Work done as late as may be, then at once.
on_card "selftest, float32" selftest --device cuda:0 --precision f32
tail -1 "$scratch/said"
MASAM_CARD=eager on_card "selftest, float32, eager" selftest --device cuda:0 --precision f32
for precision in bf16 f16; do
  on_card "selftest, $precision" selftest --device cuda:0 --precision $precision
  tail -1 "$scratch/said"
done

# Passes recorded as graphs give what the plain forward gives, which bench looks at. What it measures of the card is left
# out.
export MASAM_CARD_SKIP=1
for config in tiny tiny_odd tiny_causal tiny_sam tiny_multi tiny_before tiny_after; do
  step=
  [ $config != tiny_causal ] || step=--step
  on_card "graph, $config" bench --config $config --device cuda:0 --dtype f32 --graph $step --batch 2 --frames 2 --runs 1 --warmup 0
  has_played "graph, $config" 2
done
for work in "--config tiny_sam" "--config tiny_causal --frames 1 --step"; do
  # shellcheck disable=SC2086 # options are words
  on_card "labels, $work" bench $work --device cuda:0 --dtype bf16 --host --runs 4 --warmup 0
  has_played "labels, $work" 2
done
unset MASAM_CARD_SKIP

# Training.
"$program" phantom --out "$scratch/scenes" --sequences 2 --frames 6 --size 96x80 > "$scratch/said" 2>&1 || fail phantom "$scratch/said"
cat > "$scratch/run.toml" <<'TOML'
name = 'run'
trained = 'full'
preprocessing = 'live'
[model]
preset = 'demo'
image_side_px = 64
encoder_depth = 2
encoder_width = 96
adapter_width = 16
global_blocks = [1]
[data]
folder = 'scenes'
split = 'fold:1/2:train'
validation_split = 'fold:1/2'
[clips]
frames = 2
batch = 1
by_class = 0.5
[schedule]
steps = 6
warm_up = 3
[save]
every = 3
validate_every = 6
TOML
(cd "$scratch" && "$program" train run.toml -o cpu --device cpu > said 2>&1) || fail "training on the CPU" "$scratch/said"
on_card "training" train "$scratch/run.toml" -o "$scratch/card" --device cuda:0
python3 -I - "$scratch/cpu/steps.csv" "$scratch/card/steps.csv" <<'PYTHON' || fail "training goes another way than on the CPU"
import csv, sys

cpu, card = (list(csv.DictReader(open(path))) for path in sys.argv[1:])
assert len(cpu) == len(card) == 6, (len(cpu), len(card))
for ours, theirs in zip(card, cpu):
    for name in ("loss", "cross_entropy", "dice"):
        apart = abs(float(ours[name]) / float(theirs[name]) - 1)
        assert apart < 1e-2, (name, ours, theirs)  # bfloat16 beside float32
PYTHON

# Through the stream engine: masks of a video, the first two by the plain forward, the others by a recorded pass, with a
# prompt among its inputs.
mkdir "$scratch/frames"
cp "$scratch"/scenes/*/seq_1/left_frames/frame00[0-3].png "$scratch/frames"
demo=(run "$scratch/frames" --model weights/demo.safetensors --precision f32
  --prompt box=20,10,70,60 --prompt point=40,40 --prompt outside=5,70)
"$program" "${demo[@]}" --device cpu -o "$scratch/masks" > "$scratch/said" 2>&1 || fail "masks on the CPU" "$scratch/said"
on_card "masks" "${demo[@]}" --device cuda:0 -o "$scratch/card-masks"
has_played "masks" 2
python3 -I - "$scratch/masks" "$scratch/card-masks" <<'PYTHON' || fail "masks are others than on the CPU"
import pathlib, struct, sys, zlib

def pixels(path):
    """The bytes of a PNG of 8 bits a pixel."""
    data, packed, at = path.read_bytes(), b"", 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, color = struct.unpack(">IIBB", body[:10])
            assert depth == 8 and color in (0, 3), (depth, color)
        packed += body if kind == b"IDAT" else b""
        at += 12 + length
    rows, above = zlib.decompress(packed), bytearray(width)
    found = bytearray()
    for y in range(height):
        how, row = rows[y * (width + 1)], bytearray(rows[y * (width + 1) + 1 : (y + 1) * (width + 1)])
        for x in range(width):
            left, up, corner = (row[x - 1] if x else 0), above[x], (above[x - 1] if x else 0)
            nearest = min((left, up, corner), key=lambda v: abs(left + up - corner - v))
            row[x] = (row[x] + (0, left, up, (left + up) // 2, nearest)[how]) % 256
        found += row
        above = row
    return found

cpu, card = (sorted(pathlib.Path(folder).glob("*.png")) for folder in sys.argv[1:])
assert len(cpu) == len(card) == 4, (cpu, card)
classes = set()
for ours, theirs in zip(map(pixels, card), map(pixels, cpu)):
    apart = sum(a != b for a, b in zip(ours, theirs))
    assert len(ours) == len(theirs) and apart <= len(ours) // 1000, apart
    classes |= set(theirs)
assert len(classes) > 2, classes
PYTHON
echo "card: training and masks as on the CPU"
