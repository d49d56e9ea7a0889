//! What tests of recordings share: a quick model, and what can be played of a file.
#![allow(dead_code)] // each test uses a part

use candle_core::{Device, Tensor};
use gstreamer as gst;
use gstreamer::prelude::*;
use masam::checkpoint::model_file::Storage;
use masam::checkpoint::{ModelCard, ModelFile, Preprocessing, Weights};
use masam::model::{FormulaWeights, ModelConfig};
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A model whose pass takes a few milliseconds: live masks are to come in time on a busy machine, too.
pub fn write_small_model(path: &Path) {
    let config = ModelConfig {
        name: "small".into(),
        image_side_px: 64,
        encoder_width: 16,
        encoder_depth: 2,
        encoder_heads: 2,
        global_blocks: vec![1],
        partition_side: 2,
        mlp_ratio: 1,
        adapter_width: 4,
        fact_rank: 2,
        prompt_width: 32,
        decoder_depth: 1,
        decoder_heads: 2,
        decoder_mlp_width: 8,
        ..ModelConfig::vit_b()
    };
    let mut weights = Weights::default();
    for spec in config.weights() {
        let values = FormulaWeights::values(&spec.name, &spec.shape);
        let tensor = Tensor::from_vec(values, spec.shape, &Device::Cpu).unwrap();
        weights.insert(spec.name, tensor);
    }
    let card = ModelCard::new(config, Preprocessing::live()).unwrap();
    ModelFile { card, weights }.write(path, Storage::F32).unwrap();
}

/// Times, in seconds, at which what can be played of a file begins and ends.
#[derive(Debug, Default, Clone)]
pub struct Played {
    /// Of each frame, where it begins.
    pub video: Vec<f64>,
    /// Of each piece of sound, where it begins.
    pub sound: Vec<f64>,
}

/// Decodes a file to its end.
pub fn played(path: &Path) -> Result<Played, String> {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={} ! decodebin name=decoder",
        path.display()
    ))
    .unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let found = Arc::new(Mutex::new(Played::default()));
    let (noted, bin) = (found.clone(), pipeline.downgrade());
    let decoder = pipeline.by_name("decoder").unwrap();
    decoder.connect_pad_added(move |_, pad| {
        let Some(pipeline) = bin.upgrade() else { return };
        let sink = gst::ElementFactory::make("fakesink").property("sync", false);
        let sink = sink.build().unwrap();
        pipeline.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        let is_video = pad.current_caps().unwrap().to_string().starts_with("video/");
        let noted = noted.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
            let segment = segment.segment().downcast_ref::<gst::ClockTime>().unwrap();
            let pts = info.buffer().unwrap().pts();
            if let Some(time) = pts.and_then(|pts| segment.to_running_time(pts)) {
                let mut noted = noted.lock().unwrap();
                let times = if is_video {
                    &mut noted.video
                } else {
                    &mut noted.sound
                };
                times.push(time.nseconds() as f64 / 1e9);
            }
            gst::PadProbeReturn::Ok
        });
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap();
    let message = message.timed_pop_filtered(gst::ClockTime::from_seconds(60), &ends);
    pipeline.set_state(gst::State::Null).unwrap();
    match message.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Eos(_)) => Ok(std::mem::take(&mut *found.lock().unwrap())),
        Some(gst::MessageView::Error(e)) => Err(format!("{}: {} {:?}", path.display(), e.error(), e.debug())),
        _ => Err(format!("{}: does not end", path.display())),
    }
}

/// How often the long form of a test repeats what the short form does a few times: MASAM_LONG=1.
pub fn repeats(short: usize, long: usize) -> usize {
    if std::env::var_os("MASAM_LONG").is_some() {
        long
    } else {
        short
    }
}

/// Numbers that look random; the seed is printed where a test fails.
pub struct Random(pub u64);

impl Random {
    /// A number from zero to below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}
