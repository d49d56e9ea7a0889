//! `masam convert`: checkpoints to a model file and back.

use super::memory;
use crate::checkpoint::card::MAX_FRAME_INTERVAL_NANOS;
use crate::checkpoint::model_file::Storage;
use crate::checkpoint::{ModelCard, ModelFile, Preprocessing, Source, Weights};
use crate::checkpoint::{adopt, names, pth, regular_file, source};
use crate::error::Error;
use crate::geometry::Orientation;
use crate::labels::ClassSet;
use crate::model::{FormulaWeights, ModelConfig};
use crate::segmenter::{Resize, Temporal};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Longest file of class names and colours, in bytes: far beyond the 255 a model may have.
const MAX_CLASSES_BYTES: u64 = 1 << 20;

/// Make a model file from SAM and MA-SAM checkpoints, or checkpoints from a model file.
///
/// `masam convert --sam sam_vit_h.pth --masam epoch_300.pth -o model.safetensors`
#[derive(Debug, Args)]
pub struct Convert {
    /// SAM's release, .pth or .safetensors.
    #[arg(long, value_name = "FILE", requires = "masam", conflicts_with_all = ["model", "untrained"])]
    sam: Option<PathBuf>,
    /// MA-SAM's checkpoint, .pth or .safetensors.
    #[arg(long, value_name = "FILE", requires = "sam")]
    masam: Option<PathBuf>,
    /// Convert from a model file: to another storage type, or back with --to-sam and --to-masam.
    #[arg(long, value_name = "FILE", conflicts_with = "untrained")]
    model: Option<PathBuf>,
    /// A placeholder with the weights of nothing, of this preset: vit_b, vit_l, vit_h or demo.
    #[arg(long, value_name = "PRESET")]
    untrained: Option<String>,
    /// The model file to write.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Write SAM's part under the original software's names.
    #[arg(long, value_name = "FILE", requires = "model")]
    to_sam: Option<PathBuf>,
    /// Write MA-SAM's part under the original software's names.
    #[arg(long, value_name = "FILE", requires = "model")]
    to_masam: Option<PathBuf>,
    /// Side of the model's input, pixels [default: 512, or the preset's own].
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
    /// Time between two frames of a clip in training, milliseconds: 1 to 3600000 [default: 1000, or every frame with
    /// --untrained].
    #[arg(long, value_name = "MS", conflicts_with = "model",
          value_parser = clap::value_parser!(u64).range(1..=MAX_FRAME_INTERVAL_NANOS / 1_000_000))]
    frame_interval_ms: Option<u64>,
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

impl Convert {
    pub(super) fn run(self) -> Result<ExitCode> {
        self.refuse_overwriting()?;
        let file = match (&self.sam, &self.masam, &self.model, &self.untrained) {
            (Some(sam), Some(masam), None, None) => self.read_checkpoints(sam, masam)?,
            (None, None, Some(model), None) => ModelFile::read(model)?,
            (None, None, None, Some(preset)) => self.placeholder(preset)?,
            _ => bail!("give --sam and --masam, --model, or --untrained; see `masam convert --help`"),
        };
        if self.output.is_none() && self.to_sam.is_none() && self.to_masam.is_none() {
            bail!("nothing to write: give --output, --to-sam or --to-masam");
        }
        if let Some(path) = &self.output {
            let storage = if self.half { Storage::F16 } else { Storage::F32 };
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
            println!("{}: {} tensors", path.display(), tensors.len());
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
        let outputs = [
            named("--output", &self.output),
            named("--to-sam", &self.to_sam),
            named("--to-masam", &self.to_masam),
        ];
        let mut taken: Vec<(&str, PathBuf)> = [
            named("--sam", &self.sam),
            named("--masam", &self.masam),
            named("--model", &self.model),
            named("--classes", &self.classes),
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

    fn read_checkpoints(&self, sam_path: &Path, masam_path: &Path) -> Result<ModelFile> {
        let sam = source::read(sam_path)?;
        let masam = source::read(masam_path)?;
        let both = || format!("{} with {}", sam_path.display(), masam_path.display());
        let inferred = adopt::infer_config(&sam, &masam, self.size.unwrap_or(512)).with_context(both)?;
        let config = self.configured(inferred).with_context(both)?;
        let adopted = adopt::combine(&config, Some(&sam), Some(&masam)).with_context(both)?;
        for line in &adopted.resized {
            println!("resized {line}");
        }
        if !adopted.unused.is_empty() {
            println!(
                "{} tensors of SAM are not used (class tokens, another decoder)",
                adopted.unused.len()
            );
        }
        let mut card = self.card(config, Preprocessing::reference())?;
        card.provenance.trained = true;
        for path in [sam_path, masam_path] {
            let file = path
                .file_name()
                .map(|n| n.to_string_lossy().into_owned())
                .unwrap_or_default();
            card.provenance.sources.push(Source {
                file,
                sha256: source::sha256(path)?,
            });
        }
        Ok(ModelFile {
            card,
            weights: adopted.weights,
        })
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
    fn card(&self, config: ModelConfig, mut preprocessing: Preprocessing) -> Result<ModelCard> {
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
        if let Some(interval) = self.frame_interval_ms {
            preprocessing.frame_interval_nanos = Some(interval * 1_000_000);
        }
        let mut card = ModelCard::new(config, preprocessing)?;
        if let Some(path) = &self.classes {
            let text = regular_file::read_text(path, MAX_CLASSES_BYTES)?;
            card.classes = serde_json::from_str::<ClassSet>(&text).map_err(|e| Error::file(path, e))?;
            card.validate().map_err(|e| Error::file(path, e))?;
        }
        Ok(card)
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
