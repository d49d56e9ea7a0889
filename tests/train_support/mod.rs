//! A tiny model and tiny data for the tests of training.
#![allow(dead_code, reason = "each test file uses its own part")]

use candle_core::{DType, Device};
use masam::model::Adapters;
use masam::runtime::Place;
use masam::segmenter::ModelFrame;
use masam::train::augment::AugmentConfig;
use masam::train::config::{Clips, ModelChoice, Prepared, Scenes};
use masam::train::footage::Labelled;
use masam::train::schedule::Schedule;
use masam::train::{Footage, TrainConfig, Trained};

/// Side of the tiny model's square, pixels.
pub const SIDE: usize = 64;
/// Background, disc, bar.
pub const CLASSES: usize = 3;

pub fn cpu(dtype: DType) -> Place {
    Place {
        device: Device::Cpu,
        dtype,
        description: format!("cpu {dtype:?}"),
    }
}

/// A few steps of a two-block model; everything else as the paper has it.
pub fn tiny() -> TrainConfig {
    let mut config = TrainConfig::parse("[data.phantom]\nsequences = 1").unwrap();
    config.name = "tiny".into();
    config.trained = Trained::Full;
    config.preprocessing = Prepared::Live;
    config.model = ModelChoice {
        preset: "demo".into(),
        image_side_px: Some(SIDE),
        adapters: Some(Adapters::Both),
        adapter_width: Some(16),
        classes: Some(CLASSES),
        encoder_depth: Some(2),
        encoder_width: Some(96),
        global_blocks: Some(vec![1]),
        ..ModelChoice::default()
    };
    config.data.phantom = Some(Scenes::default());
    config.clips = Clips {
        frames: 3,
        batch: 2,
        ..Clips::default()
    };
    config.schedule = Schedule {
        steps: 1000,
        rate: 1e-3,
        warm_up: 1,
        power: 0.0,
    };
    config.augment = AugmentConfig::none();
    config.validate().unwrap();
    config
}

/// Two sequences of five frames: a disc and a bar that move over a ground of stripes.
pub fn two_clips() -> Footage {
    let sequences = (0..2)
        .map(|sequence| (0..5).map(|t| scene(sequence, t)).collect())
        .collect();
    Footage::new(SIDE, CLASSES, sequences).unwrap()
}

fn scene(sequence: usize, t: usize) -> Labelled {
    let (mut rgb, mut labels) = (Vec::new(), Vec::new());
    let (cx, cy) = (16 + 5 * t, 40 - 4 * t + 10 * sequence);
    for y in 0..SIDE {
        for x in 0..SIDE {
            let disc = (x.abs_diff(cx)).pow(2) + (y.abs_diff(cy)).pow(2) < 121;
            let bar = (44..58).contains(&(x + 2 * sequence)) && y > 8 + 2 * t && y < 50;
            let (label, color) = match (disc, bar) {
                (true, _) => (1, [190, 180, 200]),
                (false, true) => (2, [90, 150, 60]),
                _ => (0, [140, 60, 50]),
            };
            let stripe = ((x * 3 + y * (5 + sequence)) % 32) as u8;
            rgb.extend(color.map(|c: u8| c + stripe));
            labels.push(label);
        }
    }
    Labelled {
        frame: ModelFrame { rgb: rgb.into() },
        labels: labels.into(),
    }
}
