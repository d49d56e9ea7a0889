//! From files of the original software to a model file: which file is which, the card beside it, and what is assumed
//! where there is none.

use super::{Convert, memory};
use crate::checkpoint::model_file::{Storage, is_model_file};
use crate::checkpoint::{CardFile, Checkpoint, Kind, ModelCard, ModelFile, Preprocessing, Provenance};
use crate::checkpoint::{Selection, Source, Weights, adopt, source};
use crate::segmenter::Normalisation;
use crate::train::initial;
use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Side of the position table in SAM's own releases, and of the input that MA-SAM was published with, in pixels.
const SAM_SIDE_PX: usize = 1024;
const PUBLISHED_SIDE_PX: usize = 512;

/// A file of the original software that has been opened.
struct Input<'a> {
    option: &'static str,
    path: &'a Path,
    checkpoint: Checkpoint,
    /// It had the averaged weights or the key that were asked for.
    chosen: bool,
}

/// The card that is used, where one was found.
struct Found {
    card: ModelCard,
    storage: Storage,
    /// All files are still those that it was written for.
    unchanged: bool,
}

impl Convert {
    /// The model of --sam and --masam, and how its weights were stored where a card says.
    pub(super) fn read_checkpoints(&self) -> Result<(ModelFile, Option<Storage>)> {
        let inputs = [("--sam", &self.sam), ("--masam", &self.masam)];
        let mut opened = Vec::new();
        for (option, path) in inputs {
            if let Some(path) = path.as_deref() {
                opened.push(self.open(option, path)?);
            }
        }
        if let (false, Some(last)) = (opened.iter().any(|input| input.chosen), opened.last()) {
            // Neither file has it: the error says what there is.
            Checkpoint::open(last.path, &self.selection())?;
        }
        self.check_roles(&opened)?;
        for input in &opened {
            input.report();
        }
        let paths: Vec<PathBuf> = opened.iter().map(|input| input.path.to_owned()).collect();
        let named = || {
            let names: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
            names.join(" with ")
        };
        let found = self.find_card(&paths)?;
        let whole = |input: &Input| matches!(input.checkpoint.kind(), Kind::Whole(_));
        let is_whole = opened.iter().any(whole);
        let (mut sam, mut masam) = (None, None);
        for input in opened {
            if is_whole && !whole(&input) {
                println!(
                    "{} is not used: the other file is a whole model",
                    input.path.display()
                );
                continue;
            }
            match input.option {
                "--sam" => sam = Some(input.checkpoint.read()?.0),
                _ => masam = Some(whole_of(input.checkpoint.read()?)),
            }
        }
        let sam = match sam {
            None if is_whole => masam.clone(),
            sam => sam,
        };
        let sam = sam.context("give --sam")?;
        let (mut card, storage) = match found {
            Some(found) => (
                self.carded(&found, &paths, masam.is_some()).with_context(named)?,
                Some(found.storage),
            ),
            None => {
                let mut card = self.assumed(&sam, masam.as_ref(), is_whole).with_context(named)?;
                card.provenance.sources = sources(&paths)?;
                (card, None)
            }
        };
        self.describe(&mut card)?;
        let config = &card.model;
        let Some(masam) = masam else {
            memory::require("a model of this size", 2 * config.weight_bytes(4))?;
            let initial = initial::weights(config, 0)?;
            let weights = adopt::on_top(config, &sam, initial).with_context(named)?;
            println!(
                "only SAM's weights are trained: adapters, FacT, class tokens and the decoder's last steps are random, and \
                 its masks mean nothing before `masam train`"
            );
            return Ok((ModelFile { card, weights }, storage));
        };
        let adopted = adopt::combine(config, Some(&sam), Some(&masam)).with_context(named)?;
        for line in &adopted.resized {
            println!("resized {line}");
        }
        if !is_whole && !adopted.unused.is_empty() {
            println!(
                "{} tensors of SAM are not used (class tokens, another decoder)",
                adopted.unused.len()
            );
        }
        if !adopted.beside.is_empty() {
            let names: Vec<String> = adopted.beside.iter().take(8).map(crate::error::name).collect();
            let count = adopted.beside.len();
            println!(
                "{count} tensors are no weights of the model and not used: {}",
                names.join(", ")
            );
        }
        let weights = adopted.weights;
        Ok((ModelFile { card, weights }, storage))
    }

    fn selection(&self) -> Selection {
        match (&self.key, self.ema) {
            (Some(key), _) => Selection::Key(key.clone()),
            (None, true) => Selection::Ema,
            (None, false) => Selection::Usual,
        }
    }

    /// Opens a file, with the choice among state dicts where it has it.
    fn open<'a>(&self, option: &'static str, path: &'a Path) -> Result<Input<'a>> {
        let wanted = Checkpoint::open(path, &self.selection());
        let chosen = wanted.is_ok();
        let checkpoint = wanted.or_else(|_| Checkpoint::open(path, &Selection::Usual))?;
        if is_model_file(&checkpoint) {
            bail!(
                "invalid {option} {} (expected a file of the original software, found a masam model file). \
                 Give it as --model",
                path.display()
            );
        }
        Ok(Input {
            option,
            path,
            checkpoint,
            chosen,
        })
    }

    /// Refuses files that are not what their options want, and says what they are.
    fn check_roles(&self, inputs: &[Input]) -> Result<()> {
        let is_sam = |kind: Kind| matches!(kind, Kind::Sam(_) | Kind::SamHq(_));
        if let [sam, masam] = inputs
            && !is_sam(sam.checkpoint.kind())
            && is_sam(masam.checkpoint.kind())
            && matches!(sam.checkpoint.kind(), Kind::Masam | Kind::Whole(_))
        {
            bail!(
                "--sam {} is {}, and --masam {} is {}. Exchange them: --sam {} --masam {}",
                sam.path.display(),
                sam.checkpoint.kind(),
                masam.path.display(),
                masam.checkpoint.kind(),
                masam.path.display(),
                sam.path.display()
            );
        }
        for Input {
            option,
            path,
            checkpoint,
            ..
        } in inputs
        {
            let kind = checkpoint.kind();
            let (fits, expected) = match *option {
                "--sam" => (is_sam(kind), "SAM's release"),
                _ => (
                    matches!(kind, Kind::Masam | Kind::Whole(_)),
                    "a MA-SAM checkpoint",
                ),
            };
            let path = path.display();
            if !fits {
                let cure = kind.cure().replace("FILE", &path.to_string());
                bail!(
                    "invalid {option} {path} (expected {expected}, found {kind}). {}",
                    sentence(&cure)
                );
            }
            if kind == Kind::Masam && inputs.len() == 1 {
                let width = checkpoint.shape("image_encoder.fact_u.weight");
                let sam = match width.as_deref() {
                    Some([_, 768]) => "sam_vit_b_01ec64.pth",
                    Some([_, 1024]) => "sam_vit_l_0b3195.pth",
                    Some([_, 1280]) => "sam_vit_h_4b8939.pth",
                    _ => "SAM.pth",
                };
                bail!(
                    "--masam {path} is {kind}. Give the release that it was trained on too: --sam {sam} --masam {path}"
                );
            }
        }
        Ok(())
    }

    /// The card of --card, or the one beside a file, MA-SAM's first.
    fn find_card(&self, paths: &[PathBuf]) -> Result<Option<Found>> {
        if let Some(path) = &self.card {
            let CardFile { card, storage, .. } = CardFile::read(path)?;
            println!("card read from {}", path.display());
            let unchanged = false;
            return Ok(Some(Found {
                card,
                storage,
                unchanged,
            }));
        }
        let mut found: Option<CardFile> = None;
        let mut unchanged = true;
        for path in paths.iter().rev() {
            let Some(beside) = CardFile::read_beside(path)? else {
                unchanged = false;
                continue;
            };
            unchanged &= beside.export.sha256 == source::sha256(path)?;
            match &found {
                None => {
                    println!("card read from {}", CardFile::beside(path).display());
                    found = Some(beside);
                }
                Some(first) if first.card == beside.card => {}
                Some(_) => {
                    unchanged = false;
                    println!(
                        "{} is not used: it is the card of another model",
                        CardFile::beside(path).display()
                    );
                }
            }
        }
        Ok(found.map(|CardFile { card, storage, .. }| Found {
            card,
            storage,
            unchanged,
        }))
    }

    /// The card that was found, with what the options say of the configuration; where the files have changed since it was
    /// written, they are the sources, and scores are not carried over.
    fn carded(&self, found: &Found, paths: &[PathBuf], trained: bool) -> Result<ModelCard> {
        let mut card = found.card.clone();
        if let Some(size) = self.size {
            card.model.image_side_px = size;
        }
        card.model = self.configured(card.model)?;
        if !found.unchanged || !trained {
            println!(
                "the card was not written for exactly these files: its sources and scores are not carried over"
            );
            card.scores.clear();
            card.provenance = Provenance {
                trained,
                sources: sources(paths)?,
                ..Provenance::default()
            };
        }
        Ok(card)
    }

    /// A card without one: what shapes tell, what the options say, and assumptions for the rest, each printed with its
    /// option.
    fn assumed(&self, sam: &Weights, masam: Option<&Weights>, whole: bool) -> Result<ModelCard> {
        let assume = |what: String, option: &str| println!("assumed {what} ({option})");
        let table = adopt::table_side_px(sam)?;
        let side = match self.size {
            Some(size) => size,
            None if table == SAM_SIDE_PX && !whole => {
                assume(format!("an input side of {PUBLISHED_SIDE_PX} px"), "--size");
                PUBLISHED_SIDE_PX
            }
            None => {
                assume(
                    format!("an input side of {table} px, as of the position table"),
                    "--size",
                );
                table
            }
        };
        let mut config = adopt::infer_config(sam, masam, side)?;
        if let (None, Some((_, classes))) = (masam, self.read_classes()?) {
            config.classes = classes.len();
        }
        let is_set = |field: &str| self.set.iter().any(|set| set.split('=').next() == Some(field));
        let config = self.configured(config)?;
        if !self.causal && !is_set("temporal") {
            assume(
                format!("{} taps", name_of(&config.temporal)),
                "--causal, --set temporal=",
            );
        }
        let fields = [
            (
                "name",
                format!("the name {}", config.name),
                config.name == "custom",
            ),
            (
                "decoder_heads",
                format!("{} heads in the decoder", config.decoder_heads),
                true,
            ),
            (
                "fact_scale",
                format!("a FacT scale of {}", config.fact_scale),
                true,
            ),
            (
                "classes",
                format!("{} classes", config.classes),
                masam.is_none() && self.classes.is_none(),
            ),
            (
                "fact_rank",
                format!("a FacT rank of {}", config.fact_rank),
                masam.is_none(),
            ),
            (
                "adapter_width",
                format!("adapters of width {}", config.adapter_width),
                masam.is_none(),
            ),
            (
                "decoder",
                format!("the decoder {}", name_of(&config.decoder)),
                masam.is_none(),
            ),
        ];
        for (field, what, applies) in fields {
            if applies && !is_set(field) {
                assume(what, &format!("--set {field}="));
            }
        }
        let preprocessing = match masam {
            Some(_) => Preprocessing::reference(),
            None => Preprocessing::live(),
        };
        if self.resize.is_none() {
            assume(
                format!("the resize {}", name_of(&preprocessing.resize)),
                "--resize",
            );
        }
        if self.normalization.is_none() {
            let how = match preprocessing.normalisation {
                Normalisation::ClipMinMax => "clip-min-max",
                Normalisation::Fixed { .. } => "bytes",
            };
            assume(format!("the normalization {how}"), "--normalization");
        }
        if self.orientation.is_none() {
            assume(
                format!("{} frames", name_of(&preprocessing.orientation)),
                "--orientation",
            );
        }
        if self.frame_interval_ms.is_none() {
            let interval = match preprocessing.frame_interval_nanos {
                Some(nanos) => format!("{} ms between frames", nanos / 1_000_000),
                None => "every frame".into(),
            };
            assume(interval, "--frame-interval-ms");
        }
        let mut card = ModelCard::new(config, preprocessing)?;
        if self.classes.is_none() {
            let names: Vec<&str> = card.classes.iter().map(|class| class.name.as_str()).collect();
            let names = match names.as_slice() {
                [first, .., last] => format!("{} classes from {first} to {last}", names.len()),
                _ => names.join(", "),
            };
            assume(names, "--classes");
        }
        card.provenance.trained = masam.is_some();
        Ok(card)
    }
}

impl Input<'_> {
    /// Says what was found, and which of several state dicts is taken.
    fn report(&self) {
        let under = match self.checkpoint.taken() {
            Some(key) => format!(" under `{}`", crate::error::name(key)),
            None => String::new(),
        };
        println!(
            "{}: {}, {} tensors{under}",
            self.path.display(),
            self.checkpoint.kind(),
            self.checkpoint.len()
        );
        for other in self.checkpoint.others() {
            let option = match other.averaged {
                true => "--ema takes it",
                false => "--key takes it",
            };
            println!("{}: not taken: {other}; {option}", self.path.display());
        }
    }
}

/// A model whose SAM lies apart, in one: MA-SAM's own weights take the place of SAM's.
fn whole_of((own, sam): (Weights, Option<Weights>)) -> Weights {
    let mut whole = sam.unwrap_or_default();
    for (name, tensor) in own.iter() {
        whole.insert(name, tensor.clone());
    }
    whole
}

fn sources(paths: &[PathBuf]) -> Result<Vec<Source>> {
    let sources = paths.iter().map(|path| Source::of(path));
    Ok(sources.collect::<crate::error::Result<Vec<_>>>()?)
}

/// The name of a choice as the card and the options write it.
fn name_of(choice: &impl serde::Serialize) -> String {
    match serde_json::to_value(choice) {
        Ok(serde_json::Value::String(name)) => name,
        other => format!("{other:?}"),
    }
}

/// A command on a line of its own words, or a sentence with its first letter large.
fn sentence(text: &str) -> String {
    match text.strip_prefix("masam ") {
        Some(_) => format!("This takes it: {text}"),
        None => text
            .chars()
            .take(1)
            .flat_map(char::to_uppercase)
            .chain(text.chars().skip(1))
            .collect(),
    }
}
