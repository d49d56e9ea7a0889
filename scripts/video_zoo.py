#!/usr/bin/env python3
"""Runs `masam run` on a zoo of video files and writes what came out as one Markdown table.

    scripts/video_zoo.py --masam target/release/masam --model weights/demo.safetensors -o table.md [FOLDER ...]

The zoo is made with ffmpeg (ffmpeg and ffprobe are needed, and Python with NumPy); files in FOLDERs are run as well.
The zoo's clips show three flat patches of 32x32 pixels; what a decoder makes of them, by the tags of each file, is
compared before and after. They lie outside of the --roi that the clips are run with, so that no mask covers them.
"""

import argparse
import json
import pathlib
import subprocess
import tempfile

import numpy

PATCHES = [("red", (177, 64, 48)), ("green", (40, 150, 70)), ("blue", (60, 80, 190))]
SIZE = (320, 240)
X264 = ["-c:v", "libx264", "-qp", "4", "-preset", "veryfast"]
X265 = ["-c:v", "libx265", "-preset", "ultrafast"]


def ffmpeg(*arguments):
    subprocess.run(["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", *map(str, arguments)], check=True)


def patches(size=SIZE, frames=12):
    """Arguments of an input: a gray ground with three patches, RGB."""
    width, height = size
    boxes = ",".join(
        f"drawbox=x={(i + 1) * width // 4 - 16}:y={height // 2 - 16}:w=32:h=32:color=0x{r:02x}{g:02x}{b:02x}:t=fill"
        for i, (_, (r, g, b)) in enumerate(PATCHES)
    )
    return ["-f", "lavfi", "-i", f"color=c=gray:size={width}x{height}:rate=25:duration={frames / 25},format=rgb24,{boxes}"]


def tagged(matrix, full, transfer, primaries, pixels="yuv420p"):
    """Converts to a matrix and range, and says so in the file."""
    scale = {"bt601": "bt601", "bt709": "bt709", "bt2020": "bt2020"}[matrix]
    tag = {"bt601": "smpte170m", "bt709": "bt709", "bt2020": "bt2020nc"}[matrix]
    size = "pc" if full else "tv"
    return [
        "-vf", f"scale=out_color_matrix={scale}:out_range={size}:flags=accurate_rnd+full_chroma_int,format={pixels}",
        "-colorspace", tag, "-color_range", size, "-color_trc", transfer, "-color_primaries", primaries,
    ]


def make(zoo):
    """The zoo's own clips."""
    def clip(name, *arguments, size=SIZE):
        ffmpeg(*patches(size), *arguments, zoo / name)

    sdr709, sdr601 = ("bt709", "bt709"), ("smpte170m", "smpte170m")
    for container in ["mp4", "mkv", "ts"]:
        clip(f"bt709_limited.{container}", *tagged("bt709", False, *sdr709), *X264)
        clip(f"bt709_full.{container}", *tagged("bt709", True, *sdr709), *X264)
        clip(f"bt601_limited.{container}", *tagged("bt601", False, *sdr601), *X264)
        clip(f"bt601_full.{container}", *tagged("bt601", True, *sdr601), *X264)
        clip(f"bt2020.{container}", *tagged("bt2020", False, "bt2020-10", "bt2020"), *X264)
        clip(f"bt709_444.{container}", *tagged("bt709", False, *sdr709, "yuv444p"), *X264)
        clip(f"bt709_422_10.{container}", *tagged("bt709", False, *sdr709, "yuv422p10le"), *X264)
    for name, transfer in [("pq", "smpte2084"), ("hlg", "arib-std-b67")]:
        color = f"colorprim=bt2020:transfer={transfer}:colormatrix=bt2020nc:range=limited:qp=4:log-level=error"
        arguments = tagged("bt2020", False, transfer, "bt2020", "yuv420p10le")
        clip(f"{name}.mp4", *arguments, *X265, "-x265-params", color, "-tag:v", "hvc1")
        clip(f"{name}.mkv", *arguments, *X265, "-x265-params", color)
    clip("prores_709.mov", *tagged("bt709", False, *sdr709, "yuv422p10le"), "-c:v", "prores_ks", "-profile:v", 3)
    clip("ffv1_rgb.mkv", "-c:v", "ffv1", "-pix_fmt", "bgr0")
    clip("rgb.avi", "-c:v", "rawvideo", "-pix_fmt", "bgr24")
    clip("mjpeg.avi", "-vf", "scale=out_color_matrix=bt601:out_range=pc,format=yuvj420p", "-c:v", "mjpeg", "-q:v", 2)
    clip("gray.mp4", "-vf", "format=gray", *X264)
    clip("vp9_709.webm", *tagged("bt709", False, *sdr709), "-c:v", "libvpx-vp9", "-deadline", "realtime", "-crf", 4)
    clip("odd.mp4", *tagged("bt709", False, *sdr709, "yuv444p"), *X264, size=(321, 241))
    clip("sar_4_3.mp4", *tagged("bt709", False, *sdr709), "-aspect", "16:9", *X264)
    pictures = zoo / "pictures"
    pictures.mkdir()
    for name in ["%03d.png", "%03d.tif", "%03d.bmp"]:
        ffmpeg(*patches(frames=2), pictures / name)
    sound = ["-f", "lavfi", "-i", "sine=duration=0.48:sample_rate=48000"]
    ffmpeg(*patches(), *sound, *X264, "-pix_fmt", "yuv420p", "-c:a", "aac", zoo / "aac.mp4")
    ffmpeg(*patches(), *sound, *X264, "-pix_fmt", "yuv420p", "-c:a", "pcm_s16le", zoo / "pcm.mkv")
    ffmpeg(*patches(), *sound, *X264, "-pix_fmt", "yuv420p", "-c:a", "libopus", zoo / "opus.mkv")
    for angle in [90, 180, 270]:
        ffmpeg("-i", zoo / "aac.mp4", "-c", "copy", f"-metadata:s:v:0", f"rotate={angle}", zoo / f"rotate_{angle}.mp4")
    ffmpeg("-itsoffset", "0.3", "-i", zoo / "aac.mp4", "-i", zoo / "aac.mp4", "-map", "0:v", "-map", "1:a", "-c", "copy", zoo / "late.mp4")
    whole = zoo / "moving.mkv"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=320x240:rate=25:duration=2", *X264, "-pix_fmt", "yuv420p", whole)
    (zoo / "cut.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size * 6 // 10])
    ffmpeg(*patches(frames=5), "-vf", "split[a][b];[a]palettegen[p];[b][p]paletteuse=dither=none", zoo / "anim.gif")
    (zoo / "page.mp4").write_text("<!doctype html><html><body>Sign in</body></html>")
    (zoo / "empty.mp4").write_bytes(b"")


def probe(path):
    ended = subprocess.run(
        ["ffprobe", "-v", "error", "-show_streams", "-show_format", "-of", "json", path], capture_output=True, text=True
    )
    return json.loads(ended.stdout) if ended.returncode == 0 else {"streams": [], "format": {}}


def video_of(probed):
    """The stream that gets masks: the one marked as default, else the first."""
    videos = [s for s in probed["streams"] if s["codec_type"] == "video"]
    marked = [s for s in videos if s.get("disposition", {}).get("default")]
    return (marked or videos or [{}])[0]


def frames_of(path):
    ended = subprocess.run(
        ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=codec_type,nb_read_frames", "-of", "json", path],
        capture_output=True, text=True,
    )
    streams = json.loads(ended.stdout or "{}").get("streams", [])
    return next((s.get("nb_read_frames", "0") for s in streams if s["codec_type"] == "video"), "0")


MATRICES = {"smpte170m": "bt601", "bt470bg": "bt601", "bt709": "bt709", "bt2020nc": "bt2020"}


def colors(path, video):
    """RGB of the three patches in the first frame, decoded by the file's own tags."""
    matrix = MATRICES.get(video.get("color_space"), "bt601" if int(video.get("height", 0)) < 720 else "bt709")
    given = "pc" if video.get("color_range") == "pc" or video.get("pix_fmt", "").startswith("yuvj") else "tv"
    scale = f"scale=in_color_matrix={matrix}:in_range={given}:flags=accurate_rnd+full_chroma_int,format=rgb24"
    if video.get("pix_fmt", "").startswith(("rgb", "bgr", "gbr", "pal8")):
        scale = "format=rgb24"
    index = video.get("index", 0)
    ended = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", path, "-map", f"0:{index}", "-frames:v", "1", "-vf", scale, "-f", "rawvideo", "-"],
        capture_output=True,
    )
    width, height = int(video.get("width", 0)), int(video.get("height", 0))
    turned = len(ended.stdout) == width * height * 3
    if not turned:
        return None
    if any(abs(int(side.get("rotation", 0))) % 180 for side in video.get("side_data_list", [])):
        width, height = height, width
    frame = numpy.frombuffer(ended.stdout, numpy.uint8).reshape(height, width, 3)
    found = []
    for x in [1, 2, 3]:
        patch = frame[height // 2 - 8 : height // 2 + 8, x * width // 4 - 8 : x * width // 4 + 8]
        found.append(tuple(round(float(v)) for v in patch.reshape(-1, 3).mean(0)))
    return found


def aspect(video):
    """Shown width by height, after rotation."""
    if not video:
        return "-"
    width, height = int(video["width"]), int(video["height"])
    n, d = map(int, (video.get("sample_aspect_ratio") or "1:1").split(":"))
    ratio = width * (n or 1) / (height * (d or 1))
    if any(abs(int(side.get("rotation", 0))) % 180 for side in video.get("side_data_list", [])):
        ratio = 1 / ratio
    return f"{ratio:.3f}"


def kept(probed):
    return " ".join(s.get("codec_name", s.get("codec_tag_string", "?")) for s in probed["streams"])


def row(masam, model, path, output, has_patches, options):
    source = sorted(path.glob("*"))[0] if path.is_dir() else path
    before = probe(source)
    command = [masam, "run", path, "-o", output, "--model", model, "--emit", "step", *options]
    if has_patches:
        command += ["--roi", "0,0,48,48"]
    try:
        ended = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
        status, said = ended.returncode, ended.stderr
    except subprocess.TimeoutExpired:
        status, said = "did not end", ""
    lines = [l.removeprefix("masam: ") for l in said.splitlines() if "placeholder" not in l]
    counts = next((l.split(":")[0] for l in lines if " frames in, " in l), "")
    said = "; ".join(l for l in lines if " frames in, " not in l).replace(str(path), path.name).replace("|", "/")
    said = said.replace(str(output), output.name)
    after = probe(output) if output.exists() else {"streams": [], "format": {}}
    one, two = video_of(before), video_of(after)
    color = "-"
    if has_patches and one and two and status in (0, 3):
        a, b = colors(source, one), colors(output, two)
        if a and b:
            color = f"{max(abs(p - q) for x, y in zip(a, b) for p, q in zip(x, y))}"
    tags = "/".join(str(two.get(k, "-")) for k in ["color_range", "color_space", "color_transfer", "color_primaries"])
    length = lambda p: f"{float(p['format']['duration']):.2f}" if p["format"].get("duration") else "-"
    frames = counts.split(" frames in, ")
    cells = [
        path.name, output.suffix, frames[0] or "-", frames_of(output) if output.exists() else "-",
        f"{length(before)} {length(after)}", f"{aspect(one)} {aspect(two)}", color,
        f"{two.get('profile', '-')} {two.get('pix_fmt', '-')}", tags if two else "-",
        f"{kept(before)} > {kept(after) or '-'}", said or "-", str(status),
    ]
    return "| " + " | ".join(cells) + " |"


HEAD = [
    "input", "to", "frames in", "frames in the output", "duration s, before and after", "aspect, before and after",
    "largest color difference", "profile, pixels", "range/matrix/transfer/primaries", "streams, before > after", "said", "exit",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masam", default="target/release/masam")
    parser.add_argument("--model", default="weights/demo.safetensors")
    parser.add_argument("--to", nargs="+", default=["mp4", "mkv"])
    parser.add_argument("--options", nargs="*", default=[])
    parser.add_argument("-o", "--output", required=True)
    parser.add_argument("folders", nargs="*")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        zoo, results = pathlib.Path(folder, "zoo"), pathlib.Path(folder, "results")
        zoo.mkdir()
        results.mkdir()
        make(zoo)
        inputs = [(path, True) for path in sorted(zoo.iterdir())]
        for other in arguments.folders:
            inputs += [(path, False) for path in sorted(pathlib.Path(other).iterdir()) if path.suffix not in {".srt", ".sh"}]
        lines = ["| " + " | ".join(HEAD) + " |", "|" + "---|" * len(HEAD)]
        for number, (path, has_patches) in enumerate(inputs):
            for suffix in arguments.to:
                output = results / f"{number}.{suffix}"
                lines.append(row(arguments.masam, arguments.model, path, output, has_patches, arguments.options))
                print(lines[-1], flush=True)
        text = "\n".join(lines) + "\n"
        pathlib.Path(arguments.output).write_text(text)


if __name__ == "__main__":
    main()
