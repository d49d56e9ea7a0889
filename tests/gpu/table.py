#!/usr/bin/env python3
"""Tables from what run.sh wrote down.

    table.py correctness FILE    exits with 1 where float32 fails, or a narrower type is further off than PyTorch's
    table.py timings FILE        medians of ours and of PyTorch's best, per model, work and type
"""

import json
import re
import sys
from collections import defaultdict
from statistics import median

LINE = re.compile(r"^(.+?) max_rel_err=(\S+) rms=(\S+) label_agreement=(\S+) (PASS|FAIL)")
FAILED = re.compile(r"^(.+?) FAIL: (.*)")
END = re.compile(r"^\d+ passed, \d+ failed, \d+ skipped")
# Ours may differ from PyTorch's by this factor in the root mean square before it counts as worse: two roundings of one
# result are not the same.
SLACK = 1.1


def correctness(path):
    found, side, precision = defaultdict(dict), "", ""
    troubles, open_section = [], None
    for line in open(path):
        if line.startswith("# "):
            if open_section:
                troubles.append(f"{open_section}: it did not come to its end")
            side, precision = line.split()[1:3]
            # Our program says how many passed; what does not has crashed.
            open_section = line[2:].strip() if side == "masam" else None
        elif match := LINE.match(line):
            name, largest, rms, same, verdict = match.groups()
            found[precision, name][side] = float(largest), float(rms), float(same), verdict
        elif side == "masam" and (match := FAILED.match(line)):
            troubles.append(f"{precision} {match[1]}: {match[2]}")
        elif END.match(line):
            open_section = None
    if open_section:
        troubles.append(f"{open_section}: it did not come to its end")
    bad = checked = 0
    print(f"{'type':5} {'tensor':28} {'ours max':>10} {'rms':>10} {'torch max':>10} {'rms':>10}")
    for (precision, name), sides in sorted(found.items()):
        if "masam" not in sides:
            troubles.append(f"{precision} {name}: PyTorch has it, and ours has not")
            continue
        checked += 1
        ours, theirs = sides["masam"], [s for key, s in sides.items() if key != "masam"]
        if precision == "f32":
            wrong = ours[3] != "PASS"
        else:
            # Very small models round far off in either software, so PyTorch in the same run is the measure.
            wrong = ours[3] != "PASS" and (not theirs or ours[1] > SLACK * max(t[1] for t in theirs))
        bad += wrong
        rest = f"{theirs[0][0]:10.2e} {theirs[0][1]:10.2e}" if theirs else f"{'-':>10} {'-':>10}"
        print(f"{precision:5} {name:28} {ours[0]:10.2e} {ours[1]:10.2e} {rest} {'WRONG' if wrong else ''}")
    for trouble in troubles:
        print(f"TROUBLE {trouble}")
    print(f"{checked} compared, {bad} wrong, {len(troubles)} troubles")
    return 1 if bad or troubles or not checked else 0


def timings(path):
    ours, theirs = (defaultdict(lambda: defaultdict(list)) for _ in range(2))
    failed, hosts = [], defaultdict(list)
    peaks = defaultdict(list)
    for line in open(path):
        entry = json.loads(line)
        if entry["what"] == "failed":
            failed.append(entry)
            continue
        key = entry["config"], entry["dtype"]
        if "host_p50_s" in entry:
            work = "step" if "step_median_s" in entry else "clip"
            hosts[(*key, work)].append((entry["host_p50_s"], entry["host_p99_s"]))
        if entry["what"] == "masam":
            way = "graph" if entry.get("graph") else "eager"
            if "step_median_s" in entry:
                ours[(*key, f"step of {entry['batch']}")][way].append(entry["step_median_s"])
            else:
                ours[(*key, f"clip of {entry['frames']}")][way].append(entry["median_s"])
                peaks[key].append((entry["gflops"], entry["peak_gflops"]))
        else:
            work = f"step of {entry['batch']}" if entry["step"] else f"clip of {entry['frames']}"
            way = "sdpa" if entry["sdpa"] else "eager"
            if entry["compile"]:
                way += f", compile {entry['compile']}"
            theirs[(*key, work)][way].append(entry["median_s"])
    print(f"{'model':8} {'work':10} {'type':5} {'ours ms':>9} {'torch ms':>9} {'ratio':>6}  ways")

    def fastest(ways):
        return min(((median(t) * 1e3, way) for way, t in ways.items()), default=(float("nan"), "-"))

    for key in sorted(set(ours) | set(theirs)):
        (mine, own_way), (best, way) = fastest(ours[key]), fastest(theirs[key])
        print(f"{key[0]:8} {key[2]:10} {key[1]:5} {mine:9.3f} {best:9.3f} {best / mine:6.2f}  {own_way}; {way}")
    # Across types: what counts is PyTorch's best of all.
    for config, work in sorted({(k[0], k[2]) for k in ours}):
        of_work = lambda all: [fastest(ways)[0] for k, ways in all.items() if (k[0], k[2]) == (config, work) and ways]
        mine, best = of_work(ours), of_work(theirs)
        if mine and best:
            mine = min(mine)
            ratio = min(best) / mine
            print(f"{config} {work}: ours {mine:.3f} ms, PyTorch's best {min(best):.3f} ms, {ratio:.2f} times")
    for (config, dtype), pairs in sorted(peaks.items()):
        reached, peak = (median(p[i] for p in pairs) for i in (0, 1))
        share = 100 * reached / peak
        print(f"{config} {dtype}: {reached / 1e3:.1f} TFLOP/s, {share:.1f} % of the measured product's peak")
    for (config, dtype, work), pairs in sorted(hosts.items()):
        p50, p99 = (median(p[i] for p in pairs) * 1e3 for i in (0, 1))
        print(f"{config} {dtype} {work}: 1080p frame to class ids in memory, p50 {p50:.3f} ms, p99 {p99:.3f} ms")
    for entry in failed:
        print(f"did not run: {entry['command']}: {entry['why']}")
    return 0


if __name__ == "__main__":
    command, path = sys.argv[1:]
    sys.exit({"correctness": correctness, "timings": timings}[command](path))
