//! Commands of a document, and a folder to run them in.

use candle_core::{Device, Tensor};
use gstreamer as gst;
use gstreamer::prelude::*;
use masam::checkpoint::model_file::Storage;
use masam::checkpoint::{ModelCard, ModelFile, Preprocessing, Weights};
use masam::model::{FormulaWeights, ModelConfig};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// Something a document says and a test cannot do.
pub struct Change {
    pub from: &'static str,
    pub to: &'static str,
    pub why: &'static str,
}

/// The commands in the fenced shell blocks of `text`, each on one line, without comments.
pub fn commands_of(text: &str) -> Vec<String> {
    let mut commands = Vec::new();
    let (mut inside, mut open) = (false, String::new());
    for line in text.lines().map(str::trim) {
        if let Some(fence) = line.strip_prefix("```") {
            inside = !inside && matches!(fence, "sh" | "bash" | "console" | "shell");
            continue;
        }
        let code = line.split(" #").next().unwrap_or_default().trim();
        if !inside || code.is_empty() || code.starts_with('#') {
            continue;
        }
        match code.strip_suffix('\\') {
            Some(more) => open.push_str(more),
            None => commands.push(std::mem::take(&mut open) + code),
        }
    }
    assert!(!inside && open.is_empty(), "an open block or line: {open:?}");
    commands
}

/// What a command has left behind.
pub struct Ran {
    pub success: bool,
    /// Standard output alone.
    pub printed: String,
    /// Both streams.
    pub text: String,
}

/// A folder that looks like the repository after `make build plugin`, with a user's files in it.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    /// With videos of `frames` frames and as many pictures.
    pub fn new(frames: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        for entry in std::fs::read_dir(root).unwrap() {
            let name = entry.unwrap().file_name();
            if name != "demo" && name != "target" && name != ".git" {
                std::os::unix::fs::symlink(root.join(&name), folder.path().join(&name)).unwrap();
            }
        }
        let release = Path::new(env!("CARGO_BIN_EXE_masam")).parent().unwrap();
        let target = release.parent().unwrap();
        for built in ["libmasam.so", "examples/mask_sink"] {
            assert!(
                release.join(built).exists(),
                "{built}: run `make plugin` and `cargo build --release --examples`"
            );
        }
        std::os::unix::fs::symlink(target, folder.path().join("target")).unwrap();
        let scratch = Self(folder);
        scratch.make_videos(frames);
        scratch.make_checkpoints();
        scratch.make_data_set();
        scratch
    }

    /// A data set in EndoVis 2018's layout: enough sequences for one of the validation split.
    fn make_data_set(&self) {
        let ran =
            self.shell("masam phantom --out endovis2018 --sequences 2 --frames 2 --size 320x256 --seed 5");
        assert!(ran.success, "{}", ran.text);
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs a script here, with `masam` on the path as after `make install`.
    pub fn shell(&self, script: &str) -> Ran {
        let release = Path::new(env!("CARGO_BIN_EXE_masam")).parent().unwrap();
        let path = format!(
            "{}:/usr/bin:{}",
            release.display(),
            std::env::var("PATH").unwrap()
        );
        let output = Command::new("sh")
            .args(["-c", script])
            .current_dir(self.0.path())
            .env("PATH", path)
            // Their defaults are part of what the documents say.
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .env("GST_REGISTRY", concat!(env!("CARGO_TARGET_TMPDIR"), "/registry.bin"))
            .output()
            .unwrap();
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let text = format!("{printed}{}", String::from_utf8_lossy(&output.stderr));
        println!("{text}");
        Ran {
            success: output.status.success(),
            printed,
            text,
        }
    }

    fn make_videos(&self, frames: usize) {
        let head =
            format!("videotestsrc num-buffers={frames} ! video/x-raw,width=320,height=240,framerate=10/1");
        let file = |name: &str| self.path(name).display().to_string();
        play(&format!(
            "{head} ! videoconvert ! x264enc ! h264parse ! mp4mux ! filesink location={}",
            file("input.mp4")
        ));
        play(&format!(
            "{head} ! pngenc snapshot=false ! multifilesink index=1 location={}",
            file("frame%d.png")
        ));
        std::fs::copy(self.path("input.mp4"), self.path("video.mp4")).unwrap();
    }

    /// Small files under the names of the large ones.
    fn make_checkpoints(&self) {
        let config = ModelConfig {
            name: "small".into(),
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
            let tensor = Tensor::from_vec(values, spec.shape, &Device::Cpu).unwrap();
            weights.insert(spec.name, tensor);
        }
        let card = ModelCard::new(config, Preprocessing::live()).unwrap();
        let model = self.path("model.safetensors");
        ModelFile { card, weights }.write(&model, Storage::F32).unwrap();
        let made = self.shell(
            "masam convert --model model.safetensors --to-sam sam_vit_h_4b8939.pth --to-masam epoch_300.pth",
        );
        assert!(made.success, "{}", made.text);
    }

    /// Frames of a video, decoded.
    pub fn frames_of(&self, video: &str) -> usize {
        let path = self.path(video).display().to_string();
        play(&format!(
            "filesrc location={path} ! decodebin ! fakesink name=counted"
        ))
    }
}

/// Plays to the end; the number of buffers that the element called `counted` got.
fn play(description: &str) -> usize {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(description)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let count = Arc::new(Mutex::new(0));
    if let Some(counted) = pipeline.by_name("counted") {
        let count = count.clone();
        let pad = counted.static_pad("sink").unwrap();
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            *count.lock().unwrap() += 1;
            gst::PadProbeReturn::Ok
        });
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let patience = gst::ClockTime::from_seconds(120);
    let message = pipeline.bus().unwrap().timed_pop_filtered(patience, &ends);
    pipeline.set_state(gst::State::Null).unwrap();
    match message.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Eos(_)) => {}
        Some(gst::MessageView::Error(e)) => panic!("{description}: {} {:?}", e.error(), e.debug()),
        _ => panic!("{description}: it does not end"),
    }
    *count.lock().unwrap()
}
