//! `masam convert`: checkpoints to a model file and back.

mod original;

use super::memory;
use crate::checkpoint::card::MAX_FRAME_INTERVAL_NANOS;
use crate::checkpoint::model_file::Storage;
use crate::checkpoint::{CardFile, ModelCard, ModelFile, Preprocessing, Weights};
use crate::checkpoint::{names, pth, regular_file};
use crate::error::Error;
use crate::geometry::Orientation;
use crate::labels::ClassSet;
use crate::model::{FormulaWeights, ModelConfig};
use crate::segmenter::{Normalisation, Resize, Temporal};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Longest file of class names and colours, in bytes: far beyond the 255 a model may have.
const MAX_CLASSES_BYTES: u64 = 1 << 20;

/// Make a model file from SAM and MA-SAM checkpoints, or checkpoints from a model file.
///
/// `masam convert --sam sam_vit_h.pth --masam epoch_300.pth -o model.safetensors`. Files are told by their content:
/// .pth, .pt, .bin and .ckpt of any PyTorch, and safetensors; prefixes of wrappers are taken off.
#[derive(Debug, Args)]
pub struct Convert {
    /// SAM's release. Alone it becomes a model whose other parts are untrained: a start for `masam train`.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "untrained"])]
    sam: Option<PathBuf>,
    /// MA-SAM's checkpoint; a whole model of the original software needs no --sam.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "untrained"])]
    masam: Option<PathBuf>,
    /// Take averaged weights (EMA) where a checkpoint has them beside the others.
    #[arg(long, conflicts_with_all = ["model", "untrained", "key"])]
    ema: bool,
    /// Take the state dict under this key where a checkpoint holds several.
    #[arg(long, value_name = "KEY", conflicts_with_all = ["model", "untrained"])]
    key: Option<String>,
    /// The card of an export, in place of the FILE.card.json beside it.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["model", "untrained"])]
    card: Option<PathBuf>,
    /// Convert from a model file: to another storage type, or back with --to-sam and --to-masam.
    #[arg(long, value_name = "FILE", conflicts_with = "untrained")]
    model: Option<PathBuf>,
    /// A placeholder with the weights of nothing, of this preset: vit_b, vit_l, vit_h or demo.
    #[arg(long, value_name = "PRESET")]
    untrained: Option<String>,
    /// The model file to write.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write SAM's part under the original software's names, and a card beside it for the way back.
    #[arg(long, value_name = "FILE", requires = "model")]
    to_sam: Option<PathBuf>,
    /// Write MA-SAM's part under the original software's names, and a card beside it for the way back.
    #[arg(long, value_name = "FILE", requires = "model")]
    to_masam: Option<PathBuf>,
    /// Side of the model's input, pixels [default: that of SAM's position table, 512 for SAM's own release, or the preset's
    /// own].
    #[arg(long, conflicts_with = "model")]
    size: Option<usize>,
    /// Replace a field of the configuration that shapes cannot tell, for example decoder_heads=4.
    #[arg(long = "set", value_name = "FIELD=VALUE", conflicts_with = "model")]
    set: Vec<String>,
    /// The checkpoint was trained with causal taps.
    #[arg(long, conflicts_with = "model")]
    causal: bool,
    /// Names and colours of the classes: a JSON list of {"name": …, "color": [r, g, b]}.
    #[arg(long, value_name = "FILE", conflicts_with = "model")]
    classes: Option<PathBuf>,
    /// How frames were resized in training [default: reference, or area with --untrained].
    #[arg(long, value_enum, conflicts_with = "model")]
    resize: Option<ResizeChoice>,
    /// How frames were turned in training [default: transposed, or upright with --untrained].
    #[arg(long, value_enum, conflicts_with = "model")]
    orientation: Option<OrientationChoice>,
    /// How bytes became numbers in training: clip-min-max (the range of the clip, as published), bytes (over 255), or
    /// SCALE,OFFSET of bytes [default: clip-min-max, or bytes with --untrained].
    #[arg(long, value_name = "HOW", conflicts_with = "model", value_parser = normalization)]
    normalization: Option<Normalisation>,
    /// Time between two frames of a clip in training, milliseconds: 1 to 3600000, or `every` frame [default: 1000, or every
    /// frame with --untrained].
    #[arg(long, value_name = "MS", conflicts_with = "model", value_parser = frame_interval)]
    frame_interval_ms: Option<FrameInterval>,
    /// Store weights in half precision.
    #[arg(long, requires = "output")]
    half: bool,
}

/// [`Resize`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum ResizeChoice {
    Reference,
    Area,
}

/// [`Orientation`] on the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum OrientationChoice {
    Upright,
    Transposed,
}

/// Nanoseconds between two frames of a clip; none for every frame of the stream.
#[derive(Debug, Clone, Copy)]
struct FrameInterval(Option<u64>);

fn frame_interval(text: &str) -> Result<FrameInterval, String> {
    const MAX_MS: u64 = MAX_FRAME_INTERVAL_NANOS / 1_000_000;
    match (text, text.parse::<u64>()) {
        ("every", _) => Ok(FrameInterval(None)),
        (_, Ok(ms)) if (1..=MAX_MS).contains(&ms) => Ok(FrameInterval(Some(ms * 1_000_000))),
        _ => Err(format!("expected 1 to {MAX_MS}, or every")),
    }
}

fn normalization(text: &str) -> Result<Normalisation, String> {
    let fixed = |scale, offset| Normalisation::Fixed { scale, offset };
    match text {
        "clip-min-max" => return Ok(Normalisation::ClipMinMax),
        "bytes" => return Ok(fixed(1.0 / 255.0, 0.0)),
        _ => {}
    }
    let pair = text.split_once(',');
    let pair = pair.and_then(|(scale, offset)| Some((scale.parse().ok()?, offset.parse().ok()?)));
    match pair {
        Some((scale, offset)) if f32::is_finite(scale) && f32::is_finite(offset) => Ok(fixed(scale, offset)),
        _ => Err("expected clip-min-max, bytes or SCALE,OFFSET".into()),
    }
}

impl Convert {
    pub(super) fn run(self) -> Result<ExitCode> {
        self.refuse_overwriting()?;
        let mut storage = if self.half { Storage::F16 } else { Storage::F32 };
        let file = match (&self.model, &self.untrained) {
            (Some(model), None) => ModelFile::read(model)?,
            (None, Some(preset)) => self.placeholder(preset)?,
            _ if self.sam.is_some() || self.masam.is_some() => {
                let (file, stored) = self.read_checkpoints()?;
                storage = stored.filter(|_| !self.half).unwrap_or(storage);
                file
            }
            _ => bail!("give --sam and --masam, --model, or --untrained; see `masam convert --help`"),
        };
        if self.output.is_none() && self.to_sam.is_none() && self.to_masam.is_none() {
            bail!("nothing to write: give --output, --to-sam or --to-masam");
        }
        if let Some(path) = &self.output {
            file.write(path, storage)?;
            println!("{}: {} parameters", path.display(), file.card.model.parameters());
        }
        let original = |path: &Path, key_of: &dyn Fn(&str) -> Option<String>| -> Result<()> {
            let tensors: Vec<(String, &Tensor)> = file
                .weights
                .iter()
                .filter_map(|(name, t)| key_of(name).map(|key| (key, t)))
                .collect();
            pth::write(path, tensors.iter().map(|(key, tensor)| (key.as_str(), *tensor)))?;
            let card = CardFile::write(path, file.storage(), &file.card)?;
            println!(
                "{}: {} tensors; keep {} beside it for the way back",
                path.display(),
                tensors.len(),
                card.display()
            );
            Ok(())
        };
        if let Some(path) = &self.to_sam {
            original(path, &|name| names::is_sam(name).then(|| name.to_owned()))?;
        }
        if let Some(path) = &self.to_masam {
            original(path, &|name| names::masam_key(name))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Every output is a file of its own, and none of them an input.
    fn refuse_overwriting(&self) -> Result<()> {
        let named = |option: &'static str, path: &'_ Option<PathBuf>| path.clone().map(|path| (option, path));
        let card = |path: &Option<PathBuf>| path.as_deref().map(CardFile::beside);
        let outputs = [
            named("--output", &self.output),
            named("--to-sam", &self.to_sam),
            named("the card of --to-sam", &card(&self.to_sam)),
            named("--to-masam", &self.to_masam),
            named("the card of --to-masam", &card(&self.to_masam)),
        ];
        let mut taken: Vec<(&str, PathBuf)> = [
            named("--sam", &self.sam),
            named("--masam", &self.masam),
            named("--model", &self.model),
            named("--classes", &self.classes),
            named("--card", &self.card),
        ]
        .into_iter()
        .flatten()
        .collect();
        for (option, path) in outputs.into_iter().flatten() {
            if let Some((other, used)) = taken.iter().find(|(_, used)| regular_file::same(used, &path)) {
                bail!(
                    "{option} {} and {other} {} are the same file",
                    path.display(),
                    used.display()
                );
            }
            taken.push((option, path));
        }
        Ok(())
    }

    /// A model of formula weights that says of itself that it is untrained.
    fn placeholder(&self, preset: &str) -> Result<ModelFile> {
        let mut config = ModelConfig::preset(preset)?;
        if let Some(size) = self.size {
            config.image_side_px = size;
        }
        let config = self.configured(config)?;
        let card = self.card(config, Preprocessing::live())?;
        // The weights, and their bytes on the way to the file.
        memory::require("a model of this size", 2 * card.model.weight_bytes(4))?;
        let mut weights = Weights::default();
        for spec in card.model.weights() {
            let values = FormulaWeights::values(&spec.name, &spec.shape);
            weights.insert(spec.name, Tensor::from_vec(values, spec.shape, &Device::Cpu)?);
        }
        Ok(ModelFile { card, weights })
    }

    /// `config` with what the options say of it.
    fn configured(&self, mut config: ModelConfig) -> Result<ModelConfig> {
        if self.causal {
            config.temporal = Temporal::Causal;
        }
        set_fields(config, &self.set)
    }

    /// A card for `config`, with what the options say of classes and frames in place of `preprocessing`.
    fn card(&self, config: ModelConfig, preprocessing: Preprocessing) -> Result<ModelCard> {
        let mut card = ModelCard::new(config, preprocessing)?;
        self.describe(&mut card)?;
        Ok(card)
    }

    /// Puts what the options say of classes and frames into `card`.
    fn describe(&self, card: &mut ModelCard) -> Result<()> {
        let preprocessing = &mut card.preprocessing;
        match self.resize {
            Some(ResizeChoice::Reference) => preprocessing.resize = Resize::Reference,
            Some(ResizeChoice::Area) => preprocessing.resize = Resize::Area,
            None => {}
        }
        match self.orientation {
            Some(OrientationChoice::Upright) => preprocessing.orientation = Orientation::Upright,
            Some(OrientationChoice::Transposed) => preprocessing.orientation = Orientation::Transposed,
            None => {}
        }
        if let Some(normalization) = self.normalization {
            preprocessing.normalisation = normalization;
        }
        if let Some(FrameInterval(nanos)) = self.frame_interval_ms {
            preprocessing.frame_interval_nanos = nanos;
        }
        if let Some((path, classes)) = self.read_classes()? {
            card.classes = classes;
            card.validate().map_err(|e| Error::file(path, e))?;
        }
        Ok(())
    }

    /// The classes that --classes names.
    fn read_classes(&self) -> Result<Option<(&Path, ClassSet)>> {
        let Some(path) = self.classes.as_deref() else {
            return Ok(None);
        };
        let text = regular_file::read_text(path, MAX_CLASSES_BYTES)?;
        let classes = serde_json::from_str::<ClassSet>(&text).map_err(|e| Error::file(path, e))?;
        Ok(Some((path, classes)))
    }
}

/// Replaces fields by name, through the same JSON that model files carry.
fn set_fields(config: ModelConfig, fields: &[String]) -> Result<ModelConfig> {
    let mut value = serde_json::to_value(&config)?;
    for field in fields {
        let (name, text) = field
            .split_once('=')
            .with_context(|| format!("--set {field}: it reads FIELD=VALUE"))?;
        let slot = value
            .get_mut(name)
            .with_context(|| format!("--set {field}: no field {name}"))?;
        *slot = serde_json::from_str(text).unwrap_or_else(|_| serde_json::Value::String(text.into()));
    }
    let config: ModelConfig = serde_json::from_value(value).context("--set")?;
    config.validate()?;
    Ok(config)
}
