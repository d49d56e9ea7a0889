//! `masam convert`: checkpoints to a model file and back.

use crate::checkpoint::model_file::Storage;
use crate::checkpoint::{ModelCard, ModelFile, Preprocessing, Source, Weights, adopt, names, pth, source};
use crate::geometry::Orientation;
use crate::labels::ClassSet;
use crate::model::{FormulaWeights, ModelConfig};
use crate::segmenter::{Resize, Temporal};
use anyhow::{Context, Result, bail};
use candle_core::{Device, Tensor};
use clap::{Args, ValueEnum};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
    /// Side of the model's input, pixels.
    #[arg(long, default_value_t = 512)]
    size: usize,
    /// Replace a field of the configuration that shapes cannot tell, for example decoder_heads=4.
    #[arg(long = "set", value_name = "FIELD=VALUE")]
    set: Vec<String>,
    /// The checkpoint was trained with causal taps.
    #[arg(long)]
    causal: bool,
    /// Names and colours of the classes: a JSON list of {"name": …, "color": [r, g, b]}.
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// How frames were resized in training.
    #[arg(long, value_enum, default_value_t = ResizeChoice::Reference)]
    resize: ResizeChoice,
    /// How frames were turned in training.
    #[arg(long, value_enum, default_value_t = OrientationChoice::Transposed)]
    orientation: OrientationChoice,
    /// Time between two frames of a clip in training, milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000)]
    frame_interval_ms: u64,
    /// Store weights in half precision.
    #[arg(long)]
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
        let file = match (&self.sam, &self.masam, &self.model, &self.untrained) {
            (Some(sam), Some(masam), None, None) => self.read_checkpoints(sam, masam)?,
            (None, None, Some(model), None) => ModelFile::read(model)?,
            (None, None, None, Some(preset)) => placeholder(preset)?,
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

    fn read_checkpoints(&self, sam_path: &Path, masam_path: &Path) -> Result<ModelFile> {
        let sam = source::read(sam_path)?;
        let masam = source::read(masam_path)?;
        let mut config = adopt::infer_config(&sam, &masam, self.size)?;
        if self.causal {
            config.temporal = Temporal::Causal;
        }
        let config = set_fields(config, &self.set)?;
        let adopted = adopt::combine(&config, Some(&sam), Some(&masam))?;
        for line in &adopted.resized {
            println!("resized {line}");
        }
        if !adopted.unused.is_empty() {
            println!(
                "{} tensors of SAM are not used (class tokens, another decoder)",
                adopted.unused.len()
            );
        }
        let preprocessing = Preprocessing {
            resize: match self.resize {
                ResizeChoice::Reference => Resize::Reference,
                ResizeChoice::Area => Resize::Area,
            },
            orientation: match self.orientation {
                OrientationChoice::Upright => Orientation::Upright,
                OrientationChoice::Transposed => Orientation::Transposed,
            },
            frame_interval_nanos: Some(self.frame_interval_ms * 1_000_000),
            ..Preprocessing::reference()
        };
        let mut card = ModelCard::new(config, preprocessing)?;
        if let Some(path) = &self.classes {
            let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
            card.classes =
                serde_json::from_str::<ClassSet>(&text).with_context(|| path.display().to_string())?;
            card.validate()?;
        }
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
}

/// A model of formula weights that says of itself that it is untrained.
fn placeholder(preset: &str) -> Result<ModelFile> {
    let config = ModelConfig::preset(preset)?;
    let mut weights = Weights::default();
    for spec in config.weights() {
        let values = FormulaWeights::values(&spec.name, &spec.shape);
        weights.insert(spec.name, Tensor::from_vec(values, spec.shape, &Device::Cpu)?);
    }
    Ok(ModelFile {
        card: ModelCard::new(config, Preprocessing::live())?,
        weights,
    })
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
