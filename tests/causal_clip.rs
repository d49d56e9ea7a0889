//! The demo model over sixty frames, one at a time, against one causal pass over all of them: a generated scene, and the
//! video that `MASAM_CLIP` names.

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use masam::checkpoint::ModelFile;
use masam::data::phantom::{PhantomConfig, Sequence};
use masam::geometry::Size;
use masam::kernels::picture::convert::{ColorSpace, Picture, PixelFormat, PlaneRef};
use masam::runtime::{DeviceChoice, ModelSegmenter, Place, PrecisionChoice};
use masam::segmenter::{ModelFrame, Plane, Prompt, Request, Segmenter, Step, StreamId, Want};
use masam::stream::Squarer;
use std::path::{Path, PathBuf};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");
const FRAMES: usize = 60;
/// Largest difference of a probability: sums in another order, through a trained model of six blocks.
const TOLERANCE: f32 = 1e-4;

fn model(build: impl Fn(ModelFile, Place) -> masam::Result<ModelSegmenter>) -> ModelSegmenter {
    let place = Place::choose(&DeviceChoice::Cpu, PrecisionChoice::F32).unwrap();
    build(ModelFile::read(Path::new(MODEL)).unwrap(), place).unwrap()
}

fn square(squarer: &mut Squarer, size: Size, rgb: &[u8], stride_bytes: usize) -> ModelFrame {
    let plane = PlaneRef {
        data: rgb,
        stride_bytes,
    };
    let picture = Picture::new(PixelFormat::Rgb, size, &[plane], ColorSpace::RGB).unwrap();
    squarer.square(&picture, size.rect()).unwrap()
}

fn check(what: &str, frames: &[ModelFrame]) {
    assert_eq!(frames.len(), FRAMES, "{what}");
    let stream = StreamId(1);
    let request = Request {
        stream,
        frames: frames.to_vec(),
        outputs: (0..FRAMES).collect(),
        want: Want::Probabilities,
        prompt: Prompt::default(),
        step: None,
    };
    let mut plain = model(|file, place| ModelSegmenter::plain(file, place, None));
    let wanted = plain.segment(&[request], None).remove(0).unwrap().planes;
    drop(plain);
    let mut stepping = model(|file, place| ModelSegmenter::new(file, place, None));
    let (mut worst, mut seen) = (0f32, [false; 256]);
    for (index, (frame, wanted)) in frames.iter().zip(&wanted).enumerate() {
        let step = Step {
            stream,
            frame: frame.clone(),
            want: Want::Probabilities,
            prompt: Prompt::default(),
        };
        let got = stepping.step(&[step], None).remove(0).unwrap();
        let (Plane::Probabilities(got), Plane::Probabilities(wanted)) = (&got, wanted) else {
            panic!("probabilities were asked for")
        };
        assert_eq!(got.len(), wanted.len());
        for (a, b) in got.iter().zip(wanted) {
            let apart = (a - b).abs();
            assert!(apart <= TOLERANCE, "{what}, frame {index}: {a} and {b}");
            worst = worst.max(apart);
        }
        let area = got.len() / 12;
        for pixel in 0..area {
            let at = |class: usize| got[class * area + pixel];
            let highest = (0..12).max_by(|a, b| at(*a).total_cmp(&at(*b))).unwrap();
            seen[highest] = true;
        }
    }
    let classes = seen.iter().filter(|seen| **seen).count();
    println!("{what}: {FRAMES} frames, {classes} classes, largest difference of a probability {worst:.1e}");
    // Masks of one class would be equal whatever the model did.
    assert!(classes >= 3, "{what}: {classes} classes");
}

#[test]
fn steps_over_a_scene_equal_one_causal_pass() {
    let config = PhantomConfig {
        seed: 21,
        size: Size::checked(320, 256).unwrap(),
        frames: FRAMES,
        ..PhantomConfig::default()
    };
    let scene = Sequence::new(&config, 0).unwrap();
    let mut squarer = Squarer::of(model(|file, place| ModelSegmenter::new(file, place, Some(1))).spec());
    let frames: Vec<ModelFrame> = (0..FRAMES)
        .map(|index| {
            let frame = scene.render(index);
            square(
                &mut squarer,
                frame.size,
                &frame.rgb,
                frame.size.width_px as usize * 3,
            )
        })
        .collect();
    check("a generated scene", &frames);
}

#[test]
fn steps_over_a_video_equal_one_causal_pass() {
    let Some(video) = std::env::var_os("MASAM_CLIP").map(PathBuf::from) else {
        println!("SKIPPED: MASAM_CLIP does not name a video");
        return;
    };
    gst::init().unwrap();
    let chain =
        "filesrc name=in ! decodebin ! videoconvert ! video/x-raw,format=RGB ! appsink name=out sync=false";
    let pipeline = gst::parse::launch(chain)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    pipeline.by_name("in").unwrap().set_property("location", &video);
    let sink = pipeline
        .by_name("out")
        .unwrap()
        .downcast::<gst_app::AppSink>()
        .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut squarer = Squarer::of(model(|file, place| ModelSegmenter::new(file, place, Some(1))).spec());
    let mut frames = Vec::new();
    while frames.len() < FRAMES
        && let Ok(sample) = sink.pull_sample()
    {
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let map = sample.buffer().unwrap().map_readable().unwrap();
        let size = Size::checked(info.width(), info.height()).unwrap();
        frames.push(square(&mut squarer, size, &map, info.stride()[0] as usize));
    }
    pipeline.set_state(gst::State::Null).unwrap();
    check(&video.display().to_string(), &frames);
}
