//! The front door beside the elements: the same frames give the same masks, to the byte.

#![cfg(feature = "gst")]

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use masam::checkpoint::model_file::Storage;
use masam::checkpoint::{ModelCard, ModelFile, Preprocessing, Weights};
use masam::geometry::{Orientation, Rect, Roi};
use masam::image::{Rgb, RgbImage};
use masam::labels::NO_MASK;
use masam::model::{FormulaWeights, ModelConfig};
use masam::segmenter::{Normalisation, Resize, Temporal};
use masam::stream::Emit;
use masam::{Predictor, PredictorConfig, RgbFrame};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// 25 frames a second, of which two and a half lie between two frames of the model's clips.
const FRAME: Duration = Duration::from_millis(40);
const INTERVAL_NANOS: u64 = 100_000_000;

/// Two small models that prepare frames in all the ways there are.
struct Models {
    _folder: tempfile::TempDir,
    /// Causal, upright, area resize, fixed normalization.
    causal: PathBuf,
    /// As the authors': centered, transposed, reference resize, normalized by the clip.
    centered: PathBuf,
}

impl Models {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let live = Preprocessing {
            frame_interval_nanos: Some(INTERVAL_NANOS),
            ..Preprocessing::live()
        };
        let authors = Preprocessing {
            resize: Resize::Reference,
            normalisation: Normalisation::ClipMinMax,
            orientation: Orientation::Transposed,
            frame_interval_nanos: None,
        };
        Self {
            causal: write_model(folder.path(), Temporal::Causal, live),
            centered: write_model(folder.path(), Temporal::Centered, authors),
            _folder: folder,
        }
    }
}

fn write_model(folder: &Path, temporal: Temporal, preprocessing: Preprocessing) -> PathBuf {
    let config = ModelConfig {
        name: format!("{temporal:?}"),
        temporal,
        image_side_px: 64,
        encoder_width: 16,
        encoder_depth: 2,
        encoder_heads: 2,
        global_blocks: vec![1],
        partition_side: 2,
        adapter_width: 4,
        fact_rank: 2,
        prompt_width: 64,
        decoder_mlp_width: 8,
        ..ModelConfig::vit_b()
    };
    let mut weights = Weights::default();
    for spec in config.weights() {
        let values = FormulaWeights::values(&spec.name, &spec.shape);
        let tensor = candle_core::Tensor::from_vec(values, spec.shape, &candle_core::Device::Cpu).unwrap();
        weights.insert(spec.name, tensor);
    }
    let path = folder.join(format!("{temporal:?}.safetensors"));
    let card = ModelCard::new(config, preprocessing).unwrap();
    ModelFile { card, weights }.write(&path, Storage::F32).unwrap();
    path
}

/// A bright picture that moves, on black borders that get narrower from frame to frame.
fn frames(count: u32, width: u32, height: u32) -> Vec<RgbImage> {
    let frame = |index: u32| {
        let border = 12u32.saturating_sub(3 * index);
        RgbImage::from_fn(width, height, |x, y| {
            if x < border || x + border / 2 >= width {
                return Rgb([1, 2, 0]);
            }
            let byte = |factor: u32| (40 + (x * factor + y * (7 - factor) + index * 29) % 200) as u8;
            Rgb([byte(5), byte(3), byte(2)])
        })
    };
    (0..count).map(frame).collect()
}

/// What `masaminfer mode=exact` and `masammask` make of frames at 25 Hz.
fn by_elements(model: &Path, frames: &[RgbImage], properties: &str) -> Vec<Vec<u8>> {
    gst::init().unwrap();
    masam::gst::register().unwrap();
    let description = format!(
        "appsrc name=in format=time ! masaminfer name=infer mode=exact {properties} ! masammask ! appsink name=out sync=false"
    );
    let pipeline = gst::parse::launch(&description).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let infer = pipeline.by_name("infer").unwrap();
    infer.set_property("model", model.to_str().unwrap());
    let source = pipeline.by_name("in").unwrap();
    let source = source.downcast::<gst_app::AppSrc>().unwrap();
    let sink = pipeline.by_name("out").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for (index, frame) in frames.iter().enumerate() {
        let format = gst_video::VideoFormat::Rgb;
        let info = gst_video::VideoInfo::builder(format, frame.width(), frame.height())
            .fps(gst::Fraction::new(25, 1))
            .build()
            .unwrap();
        let mut bytes = vec![0; info.size()];
        let row_bytes = frame.width() as usize * 3;
        let rows = frame.as_raw().chunks(row_bytes);
        for (to, from) in bytes.chunks_mut(info.stride()[0] as usize).zip(rows) {
            to[..row_bytes].copy_from_slice(from);
        }
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        let time = gst::ClockTime::from_nseconds(index as u64 * FRAME.as_nanos() as u64);
        buffer.get_mut().unwrap().set_pts(time);
        let caps = info.to_caps().unwrap();
        let sample = gst::Sample::builder().buffer(&buffer).caps(&caps).build();
        source.push_sample(&sample).unwrap();
    }
    source.end_of_stream().unwrap();
    let mut masks = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
        let map = sample.buffer().unwrap().map_readable().unwrap();
        let rows = map.chunks(info.stride()[0] as usize);
        let rows = rows.take(info.height() as usize);
        masks.push(
            rows.flat_map(|row| row[..info.width() as usize].to_vec())
                .collect(),
        );
    }
    pipeline.set_state(gst::State::Null).unwrap();
    masks
}

/// The same by a predictor, as a whole and frame by frame.
fn by_predictor(model: &Path, frames: &[RgbImage], config: &PredictorConfig) -> Vec<Vec<u8>> {
    let mut predictor = Predictor::open_with(model, config).unwrap();
    let whole: Vec<_> = predictor.predict(frames).map(Result::unwrap).collect();
    for (index, mask) in whole.iter().enumerate() {
        assert_eq!(mask.frame, index as u64);
        assert_eq!(mask.ids.dimensions(), frames[index].dimensions());
    }
    let mut single = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        let mask = predictor.push(frame).unwrap();
        assert_eq!(mask.is_some(), index >= predictor.delay_frames(), "frame {index}");
        single.extend(mask);
    }
    single.extend(predictor.finish().map(Result::unwrap));
    assert_eq!(single, whole);
    whole.into_iter().map(|mask| mask.ids.into_raw()).collect()
}

#[track_caller]
fn compare(model: &Path, frames: &[RgbImage], config: &PredictorConfig, properties: &str) -> Vec<Vec<u8>> {
    let expected = by_elements(model, frames, properties);
    let got = by_predictor(model, frames, config);
    assert_eq!(expected.len(), frames.len(), "{properties}");
    assert_eq!(got.len(), frames.len(), "{properties}");
    for (index, (got, expected)) in got.iter().zip(&expected).enumerate() {
        assert!(
            got == expected,
            "frame {index} of {} differs: {properties}",
            frames.len()
        );
    }
    got
}

#[test]
fn masks_are_those_of_the_elements_in_every_window() {
    let models = Models::new();
    let mut classes = BTreeSet::new();
    for (model, emits) in [
        (&models.causal, &[Emit::Step, Emit::Newest, Emit::Ensemble][..]),
        (&models.centered, &[Emit::Newest, Emit::Centre, Emit::Ensemble]),
    ] {
        for &emit in emits {
            for stride in [1, 2] {
                for count in [1, 2, 5, 11] {
                    let config = PredictorConfig {
                        emit: Some(emit),
                        frame_stride: Some(stride),
                        ..PredictorConfig::default()
                    };
                    let properties = format!("emit={emit} frame-stride={stride}");
                    let masks = compare(model, &frames(count, 75, 51), &config, &properties);
                    classes.extend(masks.concat());
                }
            }
        }
    }
    assert!(classes.len() > 3, "masks worth a comparison: {classes:?}");
}

#[test]
fn masks_are_those_of_the_elements_in_every_region() {
    let models = Models::new();
    let given = Rect {
        x_px: 9,
        y_px: 4,
        width_px: 40,
        height_px: 31,
    };
    for model in [&models.causal, &models.centered] {
        for roi in [Roi::None, Roi::Auto, Roi::Given(given)] {
            for prompt in ["", "box=14,8,40,30 point=20,12 outside=41,29"] {
                let config = PredictorConfig {
                    emit: Some(Emit::Newest),
                    frame_stride: Some(1),
                    roi,
                    prompt: prompt.parse().unwrap(),
                    ..PredictorConfig::default()
                };
                // Two sizes in one sequence, and back.
                let mut sequence = frames(6, 75, 51);
                sequence.extend(frames(3, 60, 64));
                sequence.extend(frames(2, 75, 51));
                let properties = format!("emit=newest frame-stride=1 roi={roi} prompt=\"{prompt}\"");
                let masks = compare(model, &sequence, &config, &properties);
                let outside = masks.concat().iter().filter(|&&id| id == NO_MASK).count();
                assert_eq!(outside > 0, roi != Roi::None, "{roi}");
            }
        }
    }
}

/// The demo model, all defaults.
#[test]
fn the_demo_model_gives_the_elements_masks() {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("weights/demo.safetensors");
    let config = PredictorConfig {
        frame_interval: Some(FRAME),
        ..PredictorConfig::default()
    };
    compare(&model, &frames(7, 320, 240), &config, "emit=step");
    // A step every three frames of 40 ms is what comes closest to 100 ms.
    let predictor = Predictor::open_with(&model, &config).unwrap();
    assert_eq!(
        (predictor.window().stride_frames, predictor.window().emit),
        (3, Emit::Step)
    );
    let predictor = Predictor::open(&model).unwrap();
    assert_eq!(predictor.window().stride_frames, 1);
}

#[test]
fn a_prompt_that_changes_begins_the_window_again() {
    let models = Models::new();
    let frames = frames(7, 75, 51);
    let config = PredictorConfig {
        emit: Some(Emit::Ensemble),
        roi: Roi::None,
        ..PredictorConfig::default()
    };
    let prompt = "box=14,8,40,30";
    let first = by_predictor(&models.centered, &frames[..4], &config);
    let prompted = PredictorConfig {
        prompt: prompt.parse().unwrap(),
        ..config.clone()
    };
    let second = by_predictor(&models.centered, &frames[4..], &prompted);
    let mut predictor = Predictor::open_with(&models.centered, &config).unwrap();
    let mut masks = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        if index == 4 {
            predictor.set_prompt(prompt.parse().unwrap());
        }
        masks.extend(predictor.push(frame).unwrap());
    }
    masks.extend(predictor.finish().map(Result::unwrap));
    let indices: Vec<u64> = masks.iter().map(|mask| mask.frame).collect();
    assert_eq!(indices, [0, 1, 2, 3, 4, 5, 6]);
    let ids: Vec<Vec<u8>> = masks.into_iter().map(|mask| mask.ids.into_raw()).collect();
    assert_eq!(ids, [first, second].concat());
}

#[test]
fn what_cannot_be_shown_is_refused_by_name_and_costs_no_other_frame() {
    let models = Models::new();
    let good = frames(3, 75, 51);
    let config = PredictorConfig {
        roi: "10,0,60,51".parse().unwrap(),
        ..PredictorConfig::default()
    };
    let mut predictor = Predictor::open_with(&models.causal, &config).unwrap();
    let alone: Vec<_> = predictor.predict(&good).map(Result::unwrap).collect();
    let bytes = [0; 20];
    let mut masks = vec![predictor.push(&good[0]).unwrap().unwrap()];
    for (bytes, width_px, height_px, said) in [
        (
            &bytes[..],
            2,
            3,
            "frame is 20 bytes, but 2 x 3 pixels of RGB have to be 18 bytes",
        ),
        (&bytes[..0], 0, 3, "width is 0"),
        (
            &bytes[..18],
            2,
            3,
            "roi is 10,0,60,51, but it has to lie inside the frame of 2x3",
        ),
    ] {
        let frame = RgbFrame {
            bytes,
            width_px,
            height_px,
        };
        let error = predictor.push(frame).unwrap_err().to_string();
        assert!(error.contains(said), "{error}");
    }
    masks.push(predictor.push(&good[1]).unwrap().unwrap());
    masks.push(predictor.push(&good[2]).unwrap().unwrap());
    assert_eq!(masks, alone);

    let wide = RgbImage::new(4, 4);
    let mut broken = predictor.predict([&good[0], &wide, &good[1]]);
    assert!(broken.any(|mask| mask.is_err()) && broken.next().is_none());
    drop(broken);
    assert_eq!(predictor.push(&good[0]).unwrap().unwrap(), alone[0]);

    predictor.set_prompt("point=74,3".parse().unwrap());
    let error = predictor.push(&good[0]).unwrap_err().to_string();
    assert!(error.contains("region of interest 10,0,60,51"), "{error}");
    predictor.set_prompt("point=20,3".parse().unwrap());
    assert!(predictor.push(&good[0]).unwrap().is_some());
}

#[test]
fn what_does_not_fit_the_model_is_refused_when_it_is_opened() {
    let models = Models::new();
    let open = |model: &Path, config: PredictorConfig| match Predictor::open_with(model, &config) {
        Ok(_) => panic!("{config:?} was accepted"),
        Err(error) => error.to_string(),
    };
    let step = PredictorConfig {
        emit: Some(Emit::Step),
        ..PredictorConfig::default()
    };
    assert!(open(&models.centered, step).contains("emit is step"));
    let stride = PredictorConfig {
        frame_stride: Some(0),
        ..PredictorConfig::default()
    };
    assert!(open(&models.causal, stride).contains("frame-stride is 0"));
    let missing = open(Path::new("no/such/model.safetensors"), PredictorConfig::default());
    assert!(missing.contains("no/such/model.safetensors"), "{missing}");
}
