#!/usr/bin/env python3
"""Reads the mask meta from Python: prints the classes in every frame of a video.

    GST_PLUGIN_PATH=target/release examples/read_masks.py input.mp4 weights/demo.safetensors

Needs GStreamer's Python bindings (Debian: python3-gi gir1.2-gstreamer-1.0 gir1.2-gst-plugins-base-1.0).
"""
import sys

try:
    import gi

    gi.require_version("Gst", "1.0")
    gi.require_version("GstApp", "1.0")
    from gi.repository import Gst, GstApp  # noqa: F401
except (ImportError, ValueError) as error:
    sys.exit(
        f"{sys.executable} (Python {sys.version.split()[0]}) lacks GStreamer's bindings: {error}\n"
        "Debian has them for its own Python: sudo apt install python3-gi gir1.2-gstreamer-1.0"
        " gir1.2-gst-plugins-base-1.0\n"
        f"then run: /usr/bin/python3 {' '.join(sys.argv)}"
    )


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__)
        return 2
    Gst.init(None)
    pipeline = Gst.parse_launch(
        "filesrc name=in ! decodebin ! videoconvert ! masaminfer name=infer mode=exact"
        " ! appsink name=out sync=false"
    )
    pipeline.get_by_name("in").set_property("location", sys.argv[1])
    pipeline.get_by_name("infer").set_property("model", sys.argv[2])
    sink = pipeline.get_by_name("out")
    pipeline.set_state(Gst.State.PLAYING)
    frames = 0
    while (sample := sink.emit("pull-sample")) is not None:
        meta = sample.get_buffer().get_custom_meta("MasamMask")
        if meta is None:
            continue
        structure = meta.get_structure()
        width = structure.get_uint("mask-width").value
        height = structure.get_uint("mask-height").value
        ids = sorted(set(structure.get_value("mask").get_data()))
        print(f"frame {frames}: {width} x {height}, class ids {ids}")
        frames += 1
    pipeline.set_state(Gst.State.NULL)
    return 0 if frames else 1


if __name__ == "__main__":
    sys.exit(main())
