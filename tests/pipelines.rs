//! Every file of pipelines/, run with test sources in place of hardware: all frames come out, masks are on them, and
//! the picture has changed where a mask is.

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use masam::gst::meta::MaskMeta;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const FRAMES: usize = 8;
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");

/// What `gst-launch-1.0` would be given: comments and the call taken off, variables and arguments put in.
fn description(script: &str, values: &HashMap<&str, String>) -> String {
    let lines = script
        .lines()
        .filter(|l| !l.starts_with('#') && !l.starts_with("set "));
    let text = lines
        .map(|l| l.trim_end_matches('\\').trim())
        .collect::<Vec<_>>()
        .join(" ");
    let mut rest = text
        .trim()
        .strip_prefix("exec gst-launch-1.0 -e")
        .expect("one call of gst-launch-1.0")
        .to_owned();
    while let Some(start) = rest.find("${") {
        let end = start + rest[start..].find('}').expect("a closing brace");
        let (name, default) = rest[start + 2..end].split_once(":-").expect("a default");
        let value = values.get(name).cloned().unwrap_or_else(|| default.to_owned());
        rest.replace_range(start..=end, &value);
    }
    for (name, value) in values {
        rest = rest.replace(&format!("${name}"), value);
    }
    assert!(!rest.contains('$'), "{rest}");
    rest.trim().to_owned()
}

struct Run {
    /// Bytes of each frame that left the element called `overlay`, and of the frame that went into it.
    frames: Vec<(Vec<u8>, Vec<u8>)>,
    /// Frames into `overlay` that carried a mask.
    masked: usize,
}

/// Whether the source ends by itself.
#[derive(Clone, Copy, PartialEq)]
enum Source {
    /// After `FRAMES` frames.
    Recorded,
    /// Never: the test ends it when masks have come, so that a slow machine only makes it longer.
    Live,
}

/// Longest a pipeline may take.
const PATIENCE: Duration = Duration::from_secs(120);

fn play(description: &str, source: Source) -> Run {
    gst::init().unwrap();
    masam::gst::register().unwrap();
    let pipeline = gst::parse::launch(description).unwrap_or_else(|e| panic!("{description}: {e}"));
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let overlay = pipeline.by_name("overlay").unwrap();
    if source == Source::Live {
        // How old a mask may be is tested elsewhere; here the machine may be as slow as it likes.
        for element in pipeline.iterate_elements().into_iter().flatten() {
            for property in ["max-mask-age", "expire-after"] {
                if element.has_property(property) {
                    element.set_property(property, PATIENCE.as_nanos() as u64);
                }
            }
        }
    }
    let (entered, left, masked) = (
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(Mutex::new(Vec::new())),
        Arc::new(Mutex::new(0)),
    );
    let bytes = |buffer: &gst::BufferRef| buffer.map_readable().unwrap().to_vec();
    let (noted, counted) = (entered.clone(), masked.clone());
    overlay
        .static_pad("sink")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            let buffer = info.buffer().unwrap();
            noted.lock().unwrap().push(bytes(buffer));
            *counted.lock().unwrap() += usize::from(MaskMeta::from_buffer(buffer).is_some());
            gst::PadProbeReturn::Ok
        });
    let noted = left.clone();
    overlay
        .static_pad("src")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, info| {
            noted.lock().unwrap().push(bytes(info.buffer().unwrap()));
            gst::PadProbeReturn::Ok
        });
    pipeline.set_state(gst::State::Playing).unwrap();
    let (wanted, bus) = (
        [gst::MessageType::Eos, gst::MessageType::Error],
        pipeline.bus().unwrap(),
    );
    let (started, mut ending) = (Instant::now(), source == Source::Recorded);
    let message = loop {
        let message = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(50), &wanted);
        if message.is_some() || started.elapsed() > PATIENCE {
            break message;
        }
        // A mask that came with one frame is drawn by the next at the latest.
        let seen = *masked.lock().unwrap() >= 2 && left.lock().unwrap().len() >= FRAMES;
        if seen && !ending {
            ending = true;
            pipeline.send_event(gst::event::Eos::new());
        }
    };
    pipeline.set_state(gst::State::Null).unwrap();
    match message.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Eos(_)) => {}
        Some(gst::MessageView::Error(e)) => panic!("{description}: {} {:?}", e.error(), e.debug()),
        _ => panic!("{description}: it does not end"),
    }
    let (entered, left) = (
        std::mem::take(&mut *entered.lock().unwrap()),
        std::mem::take(&mut *left.lock().unwrap()),
    );
    assert_eq!(entered.len(), left.len(), "{description}: what goes in comes out");
    let frames = entered.into_iter().zip(left).collect();
    let masked = *masked.lock().unwrap();
    Run { frames, masked }
}

/// A folder with a short video and pictures, made by GStreamer itself.
fn material() -> tempfile::TempDir {
    gst::init().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let make = |chain: String| {
        let head = format!(
            "videotestsrc num-buffers={FRAMES} pattern=ball ! video/x-raw,width=160,height=120,framerate=10/1"
        );
        let pipeline = gst::parse::launch(&format!("{head} ! videoconvert ! {chain}")).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let bus = pipeline.bus().unwrap();
        let wanted = [gst::MessageType::Eos, gst::MessageType::Error];
        let message = bus
            .timed_pop_filtered(gst::ClockTime::from_seconds(60), &wanted)
            .unwrap();
        assert_eq!(message.type_(), gst::MessageType::Eos, "{chain}");
        pipeline.set_state(gst::State::Null).unwrap();
    };
    let path = |name: &str| folder.path().join(name).display().to_string();
    make(format!(
        "x264enc ! h264parse ! mp4mux ! filesink location={}",
        path("in.mp4")
    ));
    make(format!(
        "pngenc snapshot=false ! multifilesink location={}",
        path("in%03d.png")
    ));
    folder
}

fn script(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Runs one file on `values` and checks what left the element called `overlay`.
fn check(name: &str, source: Source, values: &[(&'static str, String)]) {
    let mut values: HashMap<&str, String> = values.iter().cloned().collect();
    values.insert("MODEL", MODEL.into());
    let run = play(&description(&script(name), &values), source);
    if source == Source::Recorded {
        assert_eq!(run.frames.len(), FRAMES, "{name}: every frame comes out");
    }
    assert!(run.masked > 0, "{name}: no frame carries a mask");
    let changed = run
        .frames
        .iter()
        .filter(|(before, after)| before != after)
        .count();
    assert!(changed > 0, "{name}: no picture has changed");
}

/// A source in place of a camera.
fn live(extra: &str) -> String {
    format!(
        "videotestsrc is-live=true pattern=smpte ! video/x-raw,width=160,height=120,framerate=10/1{extra}"
    )
}

#[test]
fn recorded_video_runs_through() {
    let folder = material();
    let path = |name: &str| folder.path().join(name).display().to_string();
    check(
        "file-to-file.sh",
        Source::Recorded,
        &[("1", path("in.mp4")), ("2", path("out.mp4"))],
    );
    check(
        "record-masks.sh",
        Source::Recorded,
        &[
            ("1", path("in.mp4")),
            ("2", path("raw.mkv")),
            ("3", path("masks.mkv")),
        ],
    );
    check(
        "side-by-side.sh",
        Source::Recorded,
        &[
            ("1", path("in.mp4")),
            ("2", path("both.mp4")),
            ("WIDTH", "160".into()),
        ],
    );
    check(
        "images-to-masks.sh",
        Source::Recorded,
        &[("1", path("in%03d.png")), ("2", path("mask%03d.png"))],
    );
    for name in [
        "out.mp4",
        "raw.mkv",
        "masks.mkv",
        "both.mp4",
        "mask000.png",
        "mask007.png",
    ] {
        assert!(std::fs::metadata(path(name)).unwrap().len() > 100, "{name}");
    }
    let mask = image::open(path("mask003.png")).unwrap();
    assert_eq!(mask.color(), image::ColorType::L8, "class ids have one channel");
}

#[test]
fn live_video_runs_through() {
    let sink = ("SINK", "fakesink sync=true".to_owned());
    for name in ["camera-to-display.sh", "rtsp-to-display.sh", "keyed-masks.sh"] {
        check(name, Source::Live, &[("SOURCE", live("")), sink.clone()]);
    }
    let interlaced = live(" ! interlace field-pattern=1:1");
    check("sdi-interlaced.sh", Source::Live, &[("SOURCE", interlaced), sink]);
}

#[test]
fn every_file_is_known_to_these_tests() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines");
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .filter(|n| n.ends_with(".sh"))
        .collect();
    names.sort();
    let known = [
        "camera-to-display",
        "file-to-file",
        "images-to-masks",
        "keyed-masks",
        "record-masks",
        "rtsp-to-display",
        "sdi-interlaced",
        "side-by-side",
    ];
    assert_eq!(names, known.map(|n| format!("{n}.sh")));
}

#[test]
fn the_plugin_runs_in_gst_launch() {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_masam"));
    let plugins = program.parent().unwrap();
    assert!(
        plugins.join("libmasam.so").exists(),
        "build the plugin first: make plugin"
    );
    let folder = material();
    let path = |name: &str| folder.path().join(name);
    let output = Command::new("sh")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("pipelines/file-to-file.sh"))
        .args([path("in.mp4"), path("out.mp4")])
        .env("GST_PLUGIN_PATH", plugins)
        .env("GST_REGISTRY", path("registry.bin"))
        .env("MODEL", MODEL)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(std::fs::metadata(path("out.mp4")).unwrap().len() > 1000);
    for element in ["masaminfer", "masamoverlay", "masammask"] {
        let inspect = Command::new("gst-inspect-1.0")
            .arg(element)
            .env("GST_PLUGIN_PATH", plugins)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&inspect.stdout).into_owned();
        assert!(
            inspect.status.success() && said.contains("Element Properties"),
            "{element}: {said}"
        );
    }
}

#[test]
fn masks_survive_to_an_application() {
    gst::init().unwrap();
    masam::gst::register().unwrap();
    let chain = format!(
        "videotestsrc num-buffers=3 ! masaminfer model={MODEL} mode=exact ! appsink name=out sync=false"
    );
    let pipeline = gst::parse::launch(&chain)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let sink = pipeline
        .by_name("out")
        .unwrap()
        .downcast::<gst_app::AppSink>()
        .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let card = masam::checkpoint::ModelFile::read_card(MODEL.as_ref()).unwrap();
    let mut masks = 0;
    while let Ok(sample) = sink.pull_sample() {
        let mask = MaskMeta::from_buffer(sample.buffer().unwrap()).expect("a mask");
        assert_eq!((mask.mask.width_px, mask.mask.height_px), (256, 256));
        assert_eq!((mask.frame.width_px, mask.frame.height_px), (320, 240));
        assert_eq!(mask.untrained, !card.provenance.trained);
        masks += 1;
    }
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(masks, 3);
}
