//! Prompts from the user's pixels to the model's, in the element and in the program.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::{Orientation, Size};
use masam::gst::infer::Infer;
use masam::gst::meta::MaskMeta;
use masam::labels::NO_MASK;
use masam::runtime::{self, OpenOptions};
use masam::segmenter::{
    Plane, Prompt, Reply, Request, Resize, SegmentError, Segmenter, SegmenterSpec, StreamId, Want,
};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Instant;
use stream_support::{Bench, Fake, Noise, class_of, gray_frame, init, rgb_caps, status_of};

const SIZE: Size = Size {
    width_px: 32,
    height_px: 16,
};
const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");

/// Passes requests on, and keeps a copy.
struct Watched {
    inner: Box<dyn Segmenter>,
    asked: Arc<Mutex<Vec<Request>>>,
}

impl Segmenter for Watched {
    fn spec(&self) -> &SegmenterSpec {
        self.inner.spec()
    }

    fn segment(
        &mut self,
        requests: &[Request],
        deadline: Option<Instant>,
    ) -> Vec<Result<Reply, SegmentError>> {
        self.asked.lock().unwrap().extend(requests.iter().cloned());
        self.inner.segment(requests, deadline)
    }
}

fn watched<F>(open: F, properties: &[(&str, &str)]) -> (gst::Element, Arc<Mutex<Vec<Request>>>)
where
    F: Fn() -> masam::Result<Box<dyn Segmenter>> + Send + Sync + 'static,
{
    init();
    let element = gst::ElementFactory::make("masaminfer").build().unwrap();
    let asked: Arc<Mutex<Vec<Request>>> = Arc::default();
    let into = Arc::clone(&asked);
    element.downcast_ref::<Infer>().unwrap().set_segmenter(move || {
        let (inner, asked) = (open()?, Arc::clone(&into));
        Ok(Box::new(Watched { inner, asked }))
    });
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    (element, asked)
}

fn fake_bench(fake: &Fake, properties: &[(&str, &str)]) -> (Bench, Arc<Mutex<Vec<Request>>>) {
    let fake = fake.clone();
    let (element, asked) = watched(move || Ok(Box::new(fake.clone())), properties);
    let bench = Bench::new(element, false);
    bench.begin(&rgb_caps(SIZE, 25));
    (bench, asked)
}

fn box_of(prompt: &Prompt) -> [f32; 4] {
    prompt.box_px.expect("a box")
}

#[test]
fn prompts_reach_the_model_in_its_own_pixels() {
    // The region's 16 columns and 8 rows become 8 x 8 pixels.
    let cases = [
        (
            "exact",
            Resize::Area,
            Orientation::Upright,
            [0.75, 1.0, 5.75, 5.0],
        ),
        (
            "exact",
            Resize::Area,
            Orientation::Transposed,
            [2.0, 1.25, 6.0, 6.25],
        ),
        (
            "exact",
            Resize::Reference,
            Orientation::Upright,
            [14.0 / 15.0, 1.0, 5.6, 5.0],
        ),
        (
            "exact",
            Resize::Reference,
            Orientation::Transposed,
            [2.0, 1.4, 6.0, 7.0 - 14.0 / 15.0],
        ),
        // Live video is resized by area whatever the model.
        (
            "live",
            Resize::Reference,
            Orientation::Upright,
            [0.75, 1.0, 5.75, 5.0],
        ),
    ];
    for (mode, resize, orientation, expected) in cases {
        let mut fake = Fake::new();
        (fake.spec.resize, fake.spec.orientation) = (resize, orientation);
        let prompt = "box=10,5,20,9 point=10,5 outside=20,9";
        let (bench, asked) = fake_bench(&fake, &[("roi", "8,4,16,8"), ("prompt", prompt), ("mode", mode)]);
        bench.push(gray_frame(SIZE, 1, 0)).unwrap();
        bench.wait_for_passes(1);
        let prompt = asked.lock().unwrap()[0].prompt.clone();
        for (got, wanted) in box_of(&prompt).iter().zip(expected) {
            assert!(
                (got - wanted).abs() < 1e-5,
                "{resize:?} {orientation:?}: {prompt:?}"
            );
        }
        let corners = |x: usize, y: usize| [expected[x], expected[y]];
        let points = match orientation {
            Orientation::Upright => [corners(0, 1), corners(2, 3)],
            Orientation::Transposed => [corners(2, 3), corners(0, 1)],
        };
        for ((got, inside), (wanted, is_inside)) in
            prompt.points_px.iter().zip(points.iter().zip([true, false]))
        {
            assert_eq!(*inside, is_inside);
            for axis in 0..2 {
                assert!(
                    (got[axis] - wanted[axis]).abs() < 1e-5,
                    "{resize:?} {orientation:?}: {prompt:?}"
                );
            }
        }
        assert_eq!(prompt.points_px.len(), 2);
        assert_eq!(bench.complaints(), Vec::<String>::new());
    }
}

#[test]
fn a_prompt_set_while_playing_begins_an_epoch() {
    for (mode, emit) in [("exact", "newest"), ("exact", "ensemble"), ("live", "newest")] {
        let fake = Fake::new();
        let first = "box=0,0,31,15";
        let properties = [("roi", "none"), ("mode", mode), ("emit", emit), ("prompt", first)];
        let (bench, asked) = fake_bench(&fake, &properties);
        for index in 0..6 {
            bench.push(gray_frame(SIZE, index, index.into())).unwrap();
        }
        let before = bench.stat("epoch");
        bench.element.set_property("prompt", "point=16,8");
        for index in 6..9 {
            bench.push(gray_frame(SIZE, index, index.into())).unwrap();
        }
        bench.end();
        assert_eq!(bench.stat("epoch"), before + 2, "{mode}: the prompt, and the end");
        assert_eq!(bench.frames().len(), 9, "{mode} {emit}");
        if mode == "live" {
            let passes = asked.lock().unwrap().len() as u64;
            bench.wait_for_passes(passes);
        }
        for request in asked.lock().unwrap().iter() {
            let bytes: Vec<u8> = request.frames.iter().map(|f| f.rgb[0]).collect();
            let is_new = bytes.iter().all(|&byte| byte >= 6);
            assert!(
                is_new || bytes.iter().all(|&byte| byte < 6),
                "{mode} {emit}: {bytes:?}"
            );
            assert_eq!(
                request.prompt.box_px.is_none(),
                is_new,
                "{bytes:?}: {:?}",
                request.prompt
            );
            assert_eq!(request.prompt.points_px.len(), usize::from(is_new));
        }
        if mode == "exact" {
            assert!(asked.lock().unwrap().iter().any(|r| r.prompt.box_px.is_none()));
        }
    }
}

#[test]
fn a_prompt_that_cannot_be_followed_is_refused_and_the_old_one_stays() {
    let fake = Fake::new();
    let (bench, asked) = fake_bench(&fake, &[("roi", "none"), ("prompt", "point=3,4")]);
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    let epoch = bench.stat("epoch");
    for (bad, why) in [
        ("box=1,2,3", "made of box="),
        ("box=9,2,3,4", "above x0"),
        ("point=NaN,1", "made of box="),
        ("point=32,1", "inside the frame of 32x16"),
    ] {
        bench.element.set_property("prompt", bad);
        let complaints = bench.complaints();
        assert_eq!(complaints.len(), 1, "{complaints:?}");
        let said = &complaints[0];
        assert!(said.starts_with("warning: the prompt stays as it was"), "{said}");
        assert!(said.contains(bad) && said.contains(why), "{said}");
        assert_eq!(bench.element.property::<String>("prompt"), "point=3,4");
    }
    bench.push(gray_frame(SIZE, 2, 1)).unwrap();
    assert_eq!(bench.stat("epoch"), epoch);
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0].prompt, asked[1].prompt);
    assert_eq!(asked[1].prompt.points_px.len(), 1);
}

#[test]
fn a_prompt_outside_the_frame_costs_the_masks_until_a_better_one_comes() {
    let fake = Fake::new();
    let (bench, _) = fake_bench(&fake, &[("roi", "none"), ("prompt", "box=10,5,40,9")]);
    bench.push(gray_frame(SIZE, 1, 0)).unwrap();
    let said = bench.complaints().join("; ");
    assert!(
        said.contains("no masks for this stream: prompt is box=10,5,40,9"),
        "{said}"
    );
    bench.element.set_property("prompt", "box=10,5,20,9");
    bench.push(gray_frame(SIZE, 2, 1)).unwrap();
    let frames = bench.frames();
    assert_eq!(frames.iter().map(class_of).collect::<Vec<_>>(), [None, Some(2)]);
    let status = status_of(&frames[0]).unwrap_or_default();
    assert!(
        status.starts_with("no masks: prompt is box=10,5,40,9"),
        "{status}"
    );
    assert_eq!(bench.complaints(), Vec::<String>::new());

    // A text that is no prompt is an error before the first frame.
    let element = watched(|| Ok(Box::new(Fake::new())), &[("prompt", "box=1,2,3")]).0;
    let bus = gst::Bus::new();
    element.set_bus(Some(&bus));
    assert!(element.set_state(gst::State::Ready).is_err());
    let message = bus.pop_filtered(&[gst::MessageType::Error]).unwrap();
    let gst::MessageView::Error(error) = message.view() else {
        unreachable!()
    };
    assert!(error.error().to_string().contains("prompt is box=1,2,3"));
    element.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_prompt_follows_the_region_that_is_found() {
    let size = Size {
        width_px: 64,
        height_px: 64,
    };
    // Lit from column 16 to 47 and from row 8 to 55, at first less.
    let frame = |index: u64| {
        let mut pixels = vec![0_u8; size.area() * 3];
        let dark = if index < 2 { 4 } else { 0 };
        for y in 8 + dark..56 - dark {
            pixels[(y * 64 + 16 + dark) * 3..(y * 64 + 48 - dark) * 3].fill(99);
        }
        let mut buffer = gst::Buffer::from_mut_slice(pixels);
        buffer
            .get_mut()
            .unwrap()
            .set_pts(gst::ClockTime::from_mseconds(40) * index);
        buffer
    };
    for (prompt, is_seen) in [("point=32,32", true), ("point=3,3", false)] {
        let (element, asked) = watched(
            || Ok(Box::new(Fake::new())),
            &[("roi", "auto"), ("prompt", prompt)],
        );
        let bench = Bench::new(element, false);
        bench.begin(&rgb_caps(size, 25));
        for index in 0..60 {
            bench.push(frame(index)).unwrap();
        }
        let last = bench.frames().pop().unwrap();
        let said = bench.complaints().join("; ");
        if !is_seen {
            assert!(
                said.contains("the model sees only the region of interest"),
                "{said}"
            );
            // The viewer hears of it as well.
            let status = status_of(&last).unwrap_or_default();
            assert!(status.starts_with("no masks: "), "{status}");
            assert_eq!(class_of(&last), None);
            continue;
        }
        assert_eq!(said, "");
        let region = MaskMeta::from_buffer(&last).unwrap().region;
        assert!(region.width_px < 64, "{region:?}");
        let asked = asked.lock().unwrap();
        let point = asked.last().unwrap().prompt.points_px[0].0;
        assert_ne!(point, asked[0].prompt.points_px[0].0, "the region has grown");
        let along = |start: u32, length: u32| (32.5 - start as f32) * 8.0 / length as f32 - 0.5;
        for (got, wanted) in point.iter().zip([
            along(region.x_px, region.width_px),
            along(region.y_px, region.height_px),
        ]) {
            assert!((got - wanted).abs() < 1e-5, "{point:?} in {region:?}");
        }
    }
}

/// One frame of seeded noise blown up to blobs, through the real model in the element, and through the plain model by
/// itself with the same prompt written down by hand.
#[test]
fn the_mask_is_the_one_the_plain_model_gives_for_the_same_prompt() {
    let size = Size {
        width_px: 128,
        height_px: 96,
    };
    let seed = 20;
    println!("seed {seed}");
    let mut noise = Noise(seed);
    let blobs: Vec<u8> = (0..16 * 12 * 3).map(|_| noise.below(256) as u8).collect();
    let mut pixels = vec![0_u8; size.area() * 3];
    for (at, pixel) in pixels.chunks_exact_mut(3).enumerate() {
        let (x, y) = (at % 128, at / 128);
        pixel.copy_from_slice(&blobs[(y / 8 * 16 + x / 8) * 3..][..3]);
    }
    let through = |prompt: &str| {
        let open = || runtime::open(MODEL.as_ref(), &OpenOptions::default());
        let (element, asked) = watched(
            open,
            &[
                ("roi", "none"),
                ("mode", "exact"),
                ("emit", "newest"),
                ("prompt", prompt),
            ],
        );
        let bench = Bench::new(element, false);
        bench.begin(&rgb_caps(size, 25));
        bench.push(gst::Buffer::from_mut_slice(pixels.clone())).unwrap();
        bench.end();
        let frame = bench.frames().remove(0);
        let request = asked.lock().unwrap().last().unwrap().clone();
        (
            MaskMeta::from_buffer(&frame).expect("a mask").plane.to_vec(),
            request,
        )
    };
    let (plain_mask, request) = through("");
    assert!(request.prompt.is_empty());
    let (mask, request) = through("box=24,18,103,77 point=60,40 outside=5,90");

    let mut model = runtime::open(MODEL.as_ref(), &OpenOptions::default()).unwrap();
    let spec = model.spec().clone();
    let side = spec.side_px as f32;
    let place = |[x, y]: [f32; 2]| {
        let [x, y] = match spec.resize {
            Resize::Area => [(x + 0.5) * side / 128.0 - 0.5, (y + 0.5) * side / 96.0 - 0.5],
            Resize::Reference => [x * (side - 1.0) / 127.0, y * (side - 1.0) / 95.0],
        };
        match spec.orientation {
            Orientation::Upright => [x, y],
            Orientation::Transposed => [side - 1.0 - y, side - 1.0 - x],
        }
    };
    let (a, b) = (place([24.0, 18.0]), place([103.0, 77.0]));
    let prompt = Prompt {
        box_px: Some([a[0].min(b[0]), a[1].min(b[1]), a[0].max(b[0]), a[1].max(b[1])]),
        points_px: vec![(place([60.0, 40.0]), true), (place([5.0, 90.0]), false)],
    };
    let by_hand = Request {
        stream: StreamId(1),
        frames: request.frames,
        outputs: request.outputs,
        want: Want::Labels,
        prompt,
        step: None,
    };
    let reply = model.segment(&[by_hand], None).remove(0).unwrap();
    let [Plane::Labels(model_mask)] = &reply.planes[..] else {
        panic!("one plane of labels")
    };
    let side = spec.side_px as usize;
    let mut expected = vec![NO_MASK; side * side];
    for (at, id) in model_mask.iter().enumerate() {
        let (x, y) =
            spec.orientation
                .upright_from_model((at % side) as u32, (at / side) as u32, spec.side_px);
        expected[y as usize * side + x as usize] = *id;
    }
    let differing = |other: &[u8]| mask.iter().zip(other).filter(|(a, b)| a != b).count();
    // Two roundings of a position may tip a pixel whose two best classes are level.
    assert!(
        differing(&expected) <= 5,
        "{} pixels differ",
        differing(&expected)
    );
    let moved = differing(&plain_mask);
    assert!(moved > 500, "the prompt changes only {moved} pixels");
    println!(
        "{} pixels differ from the plain model, {moved} from no prompt",
        differing(&expected)
    );
}

#[test]
fn the_program_takes_prompts() {
    let folder = tempfile::tempdir().unwrap();
    let (frames, seed) = (folder.path().join("frames"), 5);
    std::fs::create_dir(&frames).unwrap();
    let mut noise = Noise(seed);
    for index in 0..2 {
        let picture = image::RgbImage::from_fn(64, 48, |_, _| {
            image::Rgb([0; 3].map(|_: i32| noise.below(256) as u8))
        });
        picture.save(frames.join(format!("{index}.png"))).unwrap();
    }
    let run = |output: &Path, prompts: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_masam"));
        command
            .arg("run")
            .arg(&frames)
            .arg("-o")
            .arg(output)
            .args(["--model", MODEL]);
        for prompt in prompts {
            command.args(["--prompt", prompt]);
        }
        let output = command.output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let masks = |name: &str, prompts: &[&str]| {
        let output = folder.path().join(name);
        let (code, said) = run(&output, prompts);
        assert_eq!(code, Some(0), "{said}");
        image::open(output.join("1.png")).unwrap().to_luma8().into_raw()
    };
    let (without, with) = (
        masks("without", &[]),
        masks("with", &["box=8,6,40,30", "point=20,20"]),
    );
    assert_ne!(without, with, "seed {seed}");
    for (bad, why) in [
        ("box=8,6,40", "prompt is box=8,6,40, but it has to be made of"),
        ("box=8,6,70,30", "inside the frame of 64x48"),
        ("box=40,6,8,30", "x1 has to be above x0"),
        ("point=nan,3", "prompt is point=nan,3"),
    ] {
        let output = folder.path().join("never.mp4");
        let (code, said) = run(&output, &[bad]);
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(why) && !said.contains("panicked"), "{said}");
        assert!(!output.exists(), "{bad}");
    }
}
