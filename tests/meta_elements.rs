//! What stock elements do to the mask meta. The rule: a mask is never left where the picture no longer is.

#![cfg(feature = "gst")]

mod overlay_support;

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use masam::geometry::{Rect, Size};
use masam::gst::meta::MaskMeta;
use overlay_support::meta;

const FRAME: Size = Size {
    width_px: 64,
    height_px: 48,
};
const REGION: Rect = Rect {
    x_px: 8,
    y_px: 4,
    width_px: 48,
    height_px: 40,
};

/// What a reader finds on the frames that come out.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    /// A mask for frames of this size, covering this region.
    Kept(Size, Rect),
    /// None.
    Gone,
}

const SAME: Fate = Fate::Kept(FRAME, REGION);

fn rect(x_px: u32, y_px: u32, width_px: u32, height_px: u32) -> Rect {
    Rect {
        x_px,
        y_px,
        width_px,
        height_px,
    }
}

/// Elements, and what becomes of the meta. This is the table of pipelines/README.md.
fn table() -> Vec<(&'static str, Fate)> {
    let half = Size {
        width_px: 32,
        height_px: 24,
    };
    let squeezed = Size {
        width_px: 32,
        height_px: 48,
    };
    vec![
        ("identity", SAME),
        ("queue", SAME),
        ("tee", SAME),
        ("valve", SAME),
        ("videorate ! video/x-raw,framerate=60/1", SAME),
        ("videorate ! video/x-raw,framerate=10/1", SAME),
        ("videoconvert ! video/x-raw,format=NV12", SAME),
        (
            "videoconvertscale ! video/x-raw,format=NV12,width=32,height=24",
            Fate::Kept(half, rect(4, 2, 24, 20)),
        ),
        ("videoscale ! video/x-raw,width=64,height=48", SAME),
        (
            "videoscale ! video/x-raw,width=32,height=24",
            Fate::Kept(half, rect(4, 2, 24, 20)),
        ),
        (
            "videoscale ! video/x-raw,width=192,height=144",
            Fate::Kept(
                Size {
                    width_px: 192,
                    height_px: 144,
                },
                rect(24, 12, 144, 120),
            ),
        ),
        // The pixels' shape makes up for the frame's: the whole picture is there.
        (
            "videoscale ! video/x-raw,width=32,height=48",
            Fate::Kept(squeezed, rect(4, 4, 24, 40)),
        ),
        // Here videoscale adds black borders, or would have been told to distort: which, the meta cannot know.
        (
            "videoscale ! video/x-raw,width=32,height=48,pixel-aspect-ratio=1/1",
            Fate::Gone,
        ),
        (
            "videoscale add-borders=false ! video/x-raw,width=32,height=48,pixel-aspect-ratio=1/1",
            Fate::Gone,
        ),
        ("videobalance saturation=0.5", SAME),
        ("gamma gamma=2", SAME),
        ("videocrop left=0", SAME),
        ("videocrop left=8", Fate::Gone),
        (
            "videocrop left=8 ! videoscale ! video/x-raw,width=64,height=48",
            Fate::Gone,
        ),
        ("videocrop left=8 ! videobox left=-8", Fate::Gone),
        ("videobox left=4 right=-4", Fate::Gone),
        ("aspectratiocrop aspect-ratio=1/1", Fate::Gone),
        ("videoflip video-direction=horiz", Fate::Gone),
        ("videoflip video-direction=vert", Fate::Gone),
        ("videoflip video-direction=180", Fate::Gone),
        ("videoflip video-direction=90r", Fate::Gone),
        ("compositor", Fate::Gone),
        ("compositor sink_0::xpos=10", Fate::Gone),
        ("deinterlace mode=interlaced", Fate::Gone),
        ("alpha method=green", Fate::Gone),
    ]
}

/// Runs three frames through `elements`: the sizes of the frames that came out, and their fates.
fn run(elements: &str) -> Vec<(Size, Fate)> {
    gst::init().unwrap();
    let line = format!(
        "videotestsrc num-buffers=3 ! video/x-raw,format=RGBA,width=64,height=48,framerate=30/1 ! identity name=tap \
         ! {elements} ! appsink name=sink sync=false"
    );
    let pipeline = gst::parse::launch(&line)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let meta = meta(FRAME, REGION, Size::square(2), vec![0, 1, 2, 3]);
    pipeline
        .by_name("tap")
        .unwrap()
        .static_pad("src")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            meta.attach(info.buffer_mut().unwrap().make_mut());
            gst::PadProbeReturn::Ok
        });
    let sink = pipeline
        .by_name("sink")
        .unwrap()
        .downcast::<gst_app::AppSink>()
        .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut out = Vec::new();
    while let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_seconds(20)) {
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let size = Size {
            width_px: info.width(),
            height_px: info.height(),
        };
        let fate = MaskMeta::from_frame(sample.buffer().unwrap(), size);
        out.push((
            size,
            fate.map_or(Fate::Gone, |meta| Fate::Kept(meta.frame, meta.region)),
        ));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    out
}

#[test]
fn stock_elements_keep_scale_or_drop_it() {
    for (elements, expected) in table() {
        let out = run(elements);
        assert!(!out.is_empty(), "{elements}: no frame came out");
        for (size, fate) in out {
            assert_eq!(fate, expected, "{elements}");
            if let Fate::Kept(frame, region) = fate {
                assert!(
                    frame == size && region.fits(size),
                    "{elements}: {size:?} {fate:?}"
                );
            }
        }
        println!("{elements:90} {expected:?}");
    }
}

#[test]
fn the_table_in_the_documents_is_this_one() {
    let mut expected = String::from("| frame of 64 x 48 through | mask |\n|---|---|\n");
    for (elements, fate) in table() {
        let becomes = match fate {
            SAME => "kept",
            Fate::Kept(..) => "scaled with the frame",
            Fate::Gone => "dropped",
        };
        expected.push_str(&format!("| `{elements}` | {becomes} |\n"));
    }
    let document = include_str!("../pipelines/README.md");
    assert!(
        document.contains(&expected),
        "pipelines/README.md should have this table:\n{expected}"
    );
}

/// A tee's branches share the frame and its meta; changing one leaves the other as it was.
#[test]
fn branches_of_a_tee_do_not_disturb_each_other() {
    let line = "tee name=split split. ! queue ! fakesink split. ! queue ! videocrop left=8 ! fakesink split. ! queue";
    for (_, fate) in run(line) {
        assert_eq!(fate, SAME);
    }
}

/// The types of the meta's fields, read from Python with GObject introspection alone.
#[test]
fn python_reads_the_types_of_every_field() {
    let script = r#"
import gi
gi.require_version("Gst", "1.0")
from gi.repository import Gst, GLib, GObject
Gst.init(None)
mask = Gst.Structure.new_empty("MasamMask")
for name, kind, value in [
    ("schema", GObject.TYPE_UINT, 1),
    ("running-time", GObject.TYPE_UINT64, Gst.CLOCK_TIME_NONE),
    ("mask", GLib.Bytes, GLib.Bytes.new(bytes([0, 1, 255, 1]))),
    ("classes", GObject.TYPE_VARIANT, GLib.Variant("as", ["background", "shaft"])),
    ("palette", GObject.TYPE_VARIANT, GLib.Variant("au", [0, 0x00FF00])),
    ("model-id", GObject.TYPE_STRING, "demo"),
    ("untrained", GObject.TYPE_BOOLEAN, True),
]:
    mask.set_value(name, GObject.Value(kind, value))
assert mask.get_value("schema") == 1
assert mask.get_value("running-time") == Gst.CLOCK_TIME_NONE
assert mask.get_value("mask").get_data() == bytes([0, 1, 255, 1])
assert mask.get_value("classes").unpack() == ["background", "shaft"]
assert mask.get_value("palette").unpack() == [0, 0x00FF00]
assert mask.get_value("model-id") == "demo"
assert mask.get_value("untrained") is True
print("read")
"#;
    let python = "/usr/bin/python3";
    let probe = std::process::Command::new(python)
        .args(["-c", "import gi; gi.require_version('Gst', '1.0')"])
        .output();
    if !probe.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: {python} with gi and the typelib Gst-1.0 is not installed");
        return;
    }
    let output = std::process::Command::new(python)
        .args(["-c", script])
        .output()
        .unwrap();
    let (text, errors) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success() && text.trim() == "read", "{text}{errors}");
    // The types that this test takes for granted are the ones in the meta.
    let mut buffer = {
        gst::init().unwrap();
        gst::Buffer::new()
    };
    meta(FRAME, REGION, Size::square(2), vec![0, 1, 2, 3]).attach(buffer.get_mut().unwrap());
    let custom = gst::meta::CustomMeta::from_buffer(&buffer, "MasamMask").unwrap();
    let kind = |name: &str| custom.structure().value(name).unwrap().type_().name().to_string();
    assert_eq!(
        [
            "schema",
            "running-time",
            "mask",
            "classes",
            "palette",
            "model-id",
            "untrained"
        ]
        .map(kind),
        [
            "guint",
            "guint64",
            "GBytes",
            "GVariant",
            "GVariant",
            "gchararray",
            "gboolean"
        ]
    );
}
