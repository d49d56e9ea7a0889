#!/usr/bin/env python3
"""Trains and scores every variant of the ablation study, one row per run, and goes on where it was broken off.

    scripts/ablation.py [--masam target/release/masam] [--work runs/ablation] [--minutes M] [--list]

Rows are appended to benchmarks/ablation.csv as runs end; benchmarks/ablation.md is written from them. A run whose row
stands there is not run again. Nothing but Python's standard library is needed.
"""

import argparse
import csv
import datetime
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS = ROOT / "benchmarks" / "ablation.csv"
TABLE = ROOT / "benchmarks" / "ablation.md"
BASE = ROOT / "configs" / "ablation.toml"
SEEDS = [1, 2, 3]
SIZE = "320x256"
SETS = {
    # name: sequences, frames, seed; 30 frames/s
    "train": (128, 64, 5000),
    "test": (8, 64, 6001),
}
GROUPS = [
    ["background-tissue", "thread", "suturing-needle", "clamps"],
    ["kidney-parenchyma", "covered-kidney"],
    ["small-intestine"],
    ["instrument-shaft", "instrument-clasper", "instrument-wrist", "suction-instrument", "ultrasound-probe"],
]
# Every variant: fields that differ from configs/ablation.toml, by section.
VARIANTS = {
    "adapters both": {},
    "adapters before": {"model": {"adapters": "before"}},
    "adapters after": {"model": {"adapters": "after"}},
    "adapters none": {"model": {"adapters": "none"}},
    "trained: adapters": {"": {"trained": "adapters"}},
    "trained: fact": {"": {"trained": "fact"}, "model": {"adapters": "none"}},
    "trained: full": {"": {"trained": "full"}, "model": {"adapters": "none"}},
    "trained: decoder": {"": {"trained": "decoder"}, "model": {"adapters": "none"}},
    "centered": {"model": {"temporal": "centered"}},
    "stride 1": {"clips": {"stride": [1, 1]}, "data": {"frame_interval_ms": 33}},
    "stride 5": {"clips": {"stride": [5, 5]}, "data": {"frame_interval_ms": 167}},
    "stride 15": {"clips": {"stride": [15, 15]}, "data": {"frame_interval_ms": 500}},
    "single frames": {"clips": {"frames": 1, "stride": [1, 1], "batch": 10}, "model": {"adapters": "none"}},
}
# "trained: fact" is "adapters none" by another name: one run serves both.
SAME = {"adapters none": "trained: fact"}
# How a variant's models are scored besides emit newest.
EMITS = {"adapters both": ["newest", "centre", "ensemble", "step"], "centered": ["newest", "centre", "ensemble"]}
COLUMNS = [
    "variant", "seed", "emit", "frame_stride", "steps", "miou", "iou_instruments", "iou_organs", "dice", "flicker",
    "train_seconds", "machine", "date", "version",
]
INSTRUMENTS = ["instrument-shaft", "instrument-clasper", "instrument-wrist"]
ORGANS = ["kidney-parenchyma", "covered-kidney", "small-intestine"]


def toml(value):
    return json.dumps(value)  # strings, numbers, booleans and flat lists are written alike


def configured(text, changes):
    """The text of a configuration with some fields replaced or added."""
    for section, fields in changes.items():
        for field, value in fields.items():
            head, found, tail = ("", "", text) if not section else text.partition(f"[{section}]\n")
            if section and not found:
                head, found, tail = text, f"\n[{section}]\n", ""
            end = re.search(r"^\[", tail, re.M)
            own, rest = (tail, "") if end is None else (tail[: end.start()], tail[end.start():])
            line = re.compile(rf"^{field} *=.*$", re.M)
            line_now = f"{field} = {toml(value)}"
            own = line.sub(line_now, own) if line.search(own) else line_now + "\n" + own
            text = head + found + own + rest
    return text


def run(command, **options):
    print("+", " ".join(map(str, command)), flush=True)
    return subprocess.run([str(part) for part in command], check=True, **options)


def machine():
    try:
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} threads"


class Study:
    def __init__(self, masam, work):
        self.masam, self.work = masam, work
        self.version = subprocess.run([masam, "--version"], check=True, capture_output=True, text=True).stdout.strip()

    def scenes(self):
        for name, (sequences, frames, seed) in SETS.items():
            folder, part = self.work / name, self.work / f"{name}.part"
            if folder.is_dir():
                continue
            shutil.rmtree(part, ignore_errors=True)
            run([self.masam, "phantom", "--out", part, "--sequences", sequences, "--frames", frames, "--seed", seed,
                 "--size", SIZE, "--fps", 30])
            part.rename(folder)

    def logged(self, name, command):
        """Runs a command; what it says goes into NAME.log."""
        log = self.work / f"{name}.log"
        with log.open("w") as file:
            try:
                run(command, stdout=file, stderr=file)
            except subprocess.CalledProcessError:
                sys.exit(f"failed; the last lines of {log}:\n" + "".join(log.read_text().splitlines(True)[-5:]))

    def train(self, name, changes):
        """A run's model and how long it took, in seconds."""
        folder = self.work / name
        model, took = folder / "model.safetensors", folder / "seconds"
        if not took.is_file():
            config = self.work / f"{name}.toml"
            config.write_text(configured(BASE.read_text(), changes))
            shutil.rmtree(folder, ignore_errors=True)
            begun = time.monotonic()
            self.logged(name, [self.masam, "train", config, "-o", folder])
            took.write_text(f"{time.monotonic() - begun:.0f}")
        return model, took.read_text()

    def pretrained(self):
        changes = {
            "": {"name": "pretrained", "trained": "full", "seed": 77},
            "model": {"classes": len(GROUPS), "adapters": "none"},
            "data": {"groups": GROUPS},
            "clips": {"frames": 1, "stride": [1, 1], "batch": 10},
            "schedule": {"steps": 1500, "warm_up": 150},
        }
        text = BASE.read_text()
        # It starts from nothing.
        start = re.sub(r"\[start\]\nmodel = .*\n\n", "", text)
        folder = self.work / "pretrained"
        if not (folder / "seconds").is_file():
            config = self.work / "pretrained.toml"
            config.write_text(configured(start, changes))
            shutil.rmtree(folder, ignore_errors=True)
            begun = time.monotonic()
            self.logged("pretrained", [self.masam, "train", config, "-o", folder])
            (folder / "seconds").write_text(f"{time.monotonic() - begun:.0f}")

    def one(self, variant, seed, done):
        changes = {section: dict(fields) for section, fields in VARIANTS[variant].items()}
        changes.setdefault("", {}).update(name=re.sub(r"[^a-z0-9]+", "-", variant), seed=seed)
        name = f"{changes['']['name']}-{seed}"
        stride = changes.get("clips", {}).get("stride", [3, 3])[0]
        steps = re.search(r"^steps = (\d+)", BASE.read_text(), re.M).group(1)
        for emit in EMITS.get(variant, ["newest"]):
            if (variant, str(seed), emit) in done:
                continue
            model, seconds = self.train(name, changes)
            scores = self.work / f"{name}-{emit}.json"
            run([self.masam, "eval", "--model", model, "--data", self.work / "test", "--emit", emit, "--frame-stride",
                 stride, "--json", scores], stdout=subprocess.DEVNULL)
            found = json.loads(scores.read_text())
            iou = found["dataset"]["iou"]
            # A class that neither the labels nor the masks show has no score.
            mean = lambda names: statistics.fmean(iou[name] for name in names if iou[name] is not None)
            row = {
                "variant": variant, "seed": seed, "emit": emit, "frame_stride": stride, "steps": steps,
                "miou": f"{found['dataset']['miou']:.4f}", "iou_instruments": f"{mean(INSTRUMENTS):.4f}",
                "iou_organs": f"{mean(ORGANS):.4f}", "dice": f"{found['dataset']['mdice']:.4f}",
                "flicker": f"{found['dataset']['flicker']:.4f}", "train_seconds": seconds, "machine": machine(),
                "date": datetime.date.today().isoformat(), "version": self.version,
            }
            append(row)
            table()


def rows():
    if not ROWS.is_file():
        return []
    with ROWS.open(newline="") as file:
        return list(csv.DictReader(file))


def append(row):
    new = not ROWS.is_file()
    with ROWS.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def table():
    """Mean and spread of each variant, from the rows."""
    found = rows()
    groups = {}
    for row in found:
        groups.setdefault((row["variant"], row["emit"]), []).append(row)
        for other in (name for name, same in SAME.items() if same == row["variant"]):
            groups.setdefault((other, row["emit"]), []).append(row)
    def spread(rows, column):
        values = [100 * float(row[column]) for row in rows]
        low, high = min(values), max(values)
        return f"{statistics.fmean(values):.1f} ({low:.1f} to {high:.1f})"
    lines = [
        "# Ablations",
        "",
        "Written by scripts/ablation.py from the rows of ablation.csv; configs/ablation.toml is what all runs share.",
        "Generated scenes, 128 px, dataset-wide, per cent; mean over seeds and, in brackets, lowest to highest.",
        "",
        "| variant | emit | seeds | mean IoU | instrument parts | kidney, cover, intestine | mean Dice | flicker |",
        "|---|---|---|---|---|---|---|---|",
    ]
    order = list(VARIANTS)
    for (variant, emit), rows_of in sorted(groups.items(), key=lambda g: (order.index(g[0][0]), g[0][1])):
        cells = [spread(rows_of, c) for c in ("miou", "iou_instruments", "iou_organs", "dice", "flicker")]
        lines.append(f"| {variant} | {emit} | {len(rows_of)} | " + " | ".join(cells) + " |")
    notes = ROOT / "benchmarks" / "ablation-notes.md"
    if notes.is_file():
        lines += ["", notes.read_text().strip()]
    TABLE.write_text("\n".join(lines) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masam", type=Path, default=ROOT / "target" / "release" / "masam")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "ablation")
    parser.add_argument("--minutes", type=float, help="begin no further run after so many minutes")
    parser.add_argument("--list", action="store_true", help="say what is missing, and run nothing")
    options = parser.parse_args()
    begun = time.monotonic()
    done = {(row["variant"], row["seed"], row["emit"]) for row in rows()}
    # All variants with one seed before the next seed: a study that is broken off compares what it has.
    wanted = [(variant, seed) for seed in SEEDS for variant in VARIANTS if variant not in SAME]
    missing = [
        (variant, seed) for variant, seed in wanted
        if any((variant, str(seed), emit) not in done for emit in EMITS.get(variant, ["newest"]))
    ]
    print(f"{len(missing)} of {len(wanted)} runs are missing", flush=True)
    if options.list:
        for variant, seed in missing:
            print(f"  {variant}, seed {seed}")
        return
    options.work.mkdir(parents=True, exist_ok=True)
    study = Study(options.masam.resolve(), options.work.resolve())
    study.scenes()
    study.pretrained()
    for variant, seed in missing:
        if options.minutes is not None and time.monotonic() - begun > 60 * options.minutes:
            print("time is up; call it again to go on", flush=True)
            break
        study.one(variant, seed, done)
    table()


if __name__ == "__main__":
    sys.exit(main())
