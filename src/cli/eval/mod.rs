//! `masam eval`: a model against a data set's labels, by every published way of averaging.
//!
//! Frames take the way they take through `masaminfer mode=exact`: the same square, the same engine, the same worker.

mod ahead;
mod evaluation;
mod html;
mod pictures;
mod report;

pub use evaluation::{Plan, Seen, SequenceScores, evaluate};

use crate::data::{Dataset, DatasetConfig, LabelReport, Role, Sequence, Split, Task2017};
use crate::labels::ClassSet;
use crate::predictor::open_worker;
use crate::runtime::{DeviceChoice, OpenOptions, PrecisionChoice};
use crate::stream::{Emit, Offline, Window};
use anyhow::{Context, Result, bail};
use clap::Args;
use image::RgbImage;
use indicatif::{ProgressBar, ProgressStyle};
use pictures::Album;
use report::Report;
use std::path::{Component, Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Score a model on labelled sequences.
///
/// masam eval --model model.safetensors --data endovis2018 --split val
///
/// Scores are printed; --json, --html and --contact-sheet write them down. Each way of averaging has its own name:
/// challenge-2018, ch-iou, iou, mc-iou, ma-sam, dataset-wide.
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub struct Eval {
    /// The model file.
    #[arg(short, long, value_name = "FILE")]
    model: PathBuf,
    /// A folder as EndoVis 2018 or 2017 was released, as masam phantom writes it, or of your own images and masks.
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// all, train, val, challenge-train, test, fold2017:N, fold:N/FOLDS, or one of the folds with :train.
    #[arg(long, default_value = "all")]
    split: Split,
    /// What the classes of EndoVis 2017 are: binary, parts or type.
    #[arg(long, default_value = "parts")]
    task: Task2017,
    /// Accept labels with more than 0.1 % of pixels of unknown colors or values; those pixels are ignored.
    #[arg(long)]
    accept_unknown_labels: bool,
    /// Which output of a clip is scored: newest, center, ensemble or step; auto is step for a causal model and newest
    /// for any other. The reference protocol is ensemble.
    #[arg(long, default_value = "auto")]
    emit: String,
    /// Source frames between two frames of a clip: 1 where the data has the rate that the model was trained at.
    #[arg(long, default_value_t = 1)]
    frame_stride: usize,
    /// Only the first N frames of each sequence.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    limit: Option<u32>,
    /// auto, cpu or cuda:N.
    #[arg(long, default_value = "auto")]
    device: DeviceChoice,
    /// auto, f32, bf16 or f16.
    #[arg(long, default_value = "auto")]
    precision: PrecisionChoice,
    /// Threads of the model on the CPU; 0 for one per core.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Write all scores as JSON; `-` prints them instead of the tables.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Write a report with tables, curves and pictures as one HTML file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Write the best, median and worst frames as one PNG: a row for each with input, ground truth and prediction.
    #[arg(long, value_name = "FILE")]
    contact_sheet: Option<PathBuf>,
    /// Write every mask at its frame's size in the classes' colours, DIR/SEQUENCE/FRAME.png, as the challenge wants them.
    #[arg(long, value_name = "DIR")]
    submission: Option<PathBuf>,
    /// Write a picture of the errors of every labelled frame: missed blue, invented red, confused yellow, right green.
    #[arg(long, value_name = "DIR")]
    error_maps: Option<PathBuf>,
}

/// Exit code after Ctrl-C, as shells have it.
const INTERRUPTED: u8 = 130;

/// How long a forward pass under way may hold up the end.
const STOP_WITHIN: Duration = Duration::from_millis(500);

impl Eval {
    pub(super) fn run(self) -> Result<ExitCode> {
        // Everything that can be wrong is said before the first frame.
        let config = DatasetConfig {
            task_2017: self.task,
            accept_unknown_labels: self.accept_unknown_labels,
        };
        let data = Dataset::open_with(&self.data, config)?;
        let limit = self.limit.map(|limit| limit as usize);
        let plan = Plan {
            sequences: data.split(&self.split)?,
            limit,
            with_images: self.error_maps.is_some(),
        };
        if !plan.sequences.iter().any(|sequence| has_labels(&plan, sequence)) {
            bail!(
                "{}: no frame of split {} has labels to score against",
                self.data.display(),
                self.split
            );
        }
        let emit = self.emit()?;
        let frames = plan
            .sequences
            .iter()
            .map(|&sequence| (sequence, plan.frames(sequence)));
        let labels = LabelReport::of(&data, frames)?;
        labels.require()?;
        let card = crate::checkpoint::ModelFile::read_card(&self.model)?;
        same_classes(&card.classes, &data.classes)
            .with_context(|| format!("{} and {}", self.model.display(), self.data.display()))?;
        for folder in self.submission.iter().chain(&self.error_maps) {
            make_empty(folder)?;
        }
        for file in self.json.iter().chain(&self.html).chain(&self.contact_sheet) {
            let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty());
            if folder.is_some_and(|folder| !folder.is_dir()) || file.is_dir() {
                bail!("{}: no file can be written there", file.display());
            }
        }
        let mut offline = self.open(emit)?;
        for note in &data.notes {
            eprintln!("masam: {note}");
        }
        let album = (self.html.is_some() || self.contact_sheet.is_some()).then(Album::default);
        let Some((sequences, album)) = self.evaluate(&mut offline, &plan, album)? else {
            offline.stop(STOP_WITHIN);
            return Ok(ExitCode::from(INTERRUPTED));
        };
        let report = self.report(&data, labels, &plan, &offline, sequences);
        self.write(&report, &plan, album)?;
        offline.stop(STOP_WITHIN);
        Ok(ExitCode::SUCCESS)
    }

    /// The output to score; none for the one that suits the model.
    fn emit(&self) -> Result<Option<Emit>> {
        match self.emit.as_str() {
            "auto" => Ok(None),
            text => text.parse().map(Some).context("--emit"),
        }
    }

    /// The model behind an engine, as the elements open it.
    fn open(&self, emit: Option<Emit>) -> Result<Offline> {
        let options = OpenOptions {
            device: self.device,
            precision: self.precision,
            threads: (self.threads > 0).then_some(self.threads),
        };
        let worker = open_worker(&self.model, options)?;
        let window = Window {
            clip_frames: worker.spec().clip_frames,
            emit: emit.unwrap_or_else(|| Emit::for_taps(worker.spec().temporal)),
            hop_frames: 1,
            stride_frames: self.frame_stride,
        };
        Ok(Offline::new(worker, window)?)
    }

    /// Runs through the plan with a progress bar, writing masks and error maps on the way; `None` after Ctrl-C.
    fn evaluate(
        &self,
        offline: &mut Offline,
        plan: &Plan<'_>,
        mut album: Option<Album>,
    ) -> Result<Option<(Vec<SequenceScores>, Option<Album>)>> {
        let spec = offline.spec().clone();
        let bar = ProgressBar::new(plan.total() as u64).with_style(ProgressStyle::with_template(
            "{bar:32} {pos}/{len} frames, {msg}, {per_sec}, {eta} left",
        )?);
        let stop = stop_on_interrupt()?;
        let sequences = evaluate(offline, plan, &stop, &mut |seen| {
            bar.set_message(seen.sequence.name.clone());
            if let Some(folder) = &self.submission {
                save(
                    folder,
                    seen,
                    &pictures::colors(seen.predicted, seen.size, &spec.classes)?,
                )?;
            }
            if let (Some(folder), Some(image), Some(truth)) = (&self.error_maps, seen.image, seen.truth) {
                save(folder, seen, &pictures::error_map(image, truth, seen.predicted))?;
            }
            if let Some(album) = &mut album {
                album.keep(seen, spec.side_px)?;
            }
            bar.inc(1);
            Ok(())
        })?;
        let done = bar.position();
        bar.finish_and_clear();
        if sequences.is_none() {
            eprintln!(
                "masam: stopped after {done} of {} frames; no scores were written",
                plan.total()
            );
        }
        Ok(sequences.map(|sequences| (sequences, album)))
    }

    fn report(
        &self,
        data: &Dataset,
        labels: LabelReport,
        plan: &Plan<'_>,
        offline: &Offline,
        sequences: Vec<SequenceScores>,
    ) -> Report {
        let repaired = plan.sequences.iter().flat_map(|sequence| {
            let frames = sequence.frames.iter().take(plan.frames(sequence));
            frames.filter(|frame| frame.repaired)
        });
        Report {
            model: self.model.clone(),
            data: self.data.clone(),
            kind: data.kind.to_string(),
            split: self.split.to_string(),
            emit: offline.window().emit.to_string(),
            frame_stride: self.frame_stride,
            limit: plan.limit,
            repaired: repaired.count(),
            labels,
            spec: offline.spec().clone(),
            is_challenge_test: data.kind == crate::data::Kind::EndoVis2018
                && self.split == Split::Challenge(Role::Test)
                && plan.limit.is_none(),
            sequences,
        }
    }

    /// Prints the tables and writes the files that were asked for.
    fn write(&self, report: &Report, plan: &Plan<'_>, album: Option<Album>) -> Result<()> {
        let json = || format!("{:#}\n", report.json());
        match &self.json {
            Some(path) if path == Path::new("-") => print!("{}", json()),
            file => {
                for line in report.conditions() {
                    println!("{line}");
                }
                for table in report.tables() {
                    println!("\n{}", table.text());
                }
                if let Some(path) = file {
                    std::fs::write(path, json()).with_context(|| path.display().to_string())?;
                }
            }
        }
        let Some(album) = album else { return Ok(()) };
        let shown = album.choose(&plan.sequences, report.classes())?;
        if let Some(path) = &self.html {
            let page = html::html(report, &shown)?;
            std::fs::write(path, page).with_context(|| path.display().to_string())?;
        }
        if let Some(path) = &self.contact_sheet {
            let sheet = pictures::contact_sheet(&shown);
            sheet
                .save_with_format(path, image::ImageFormat::Png)
                .with_context(|| path.display().to_string())?;
        }
        Ok(())
    }
}

/// Whether any frame of `sequence` that the plan reaches has labels.
fn has_labels(plan: &Plan<'_>, sequence: &Sequence) -> bool {
    let frames = sequence.frames.iter().take(plan.frames(sequence));
    frames.into_iter().any(|frame| frame.label.is_some())
}

/// Ids mean the same on both sides, or scores would mean nothing.
fn same_classes(model: &ClassSet, data: &ClassSet) -> Result<()> {
    if model.len() != data.len() {
        bail!(
            "the model has {} classes, the data set {}",
            model.len(),
            data.len()
        );
    }
    for (id, (a, b)) in model.iter().zip(data.iter()).enumerate() {
        if a.name != b.name {
            bail!(
                "class {id} is {} in the model and {} in the data set",
                a.name,
                b.name
            );
        }
    }
    Ok(())
}

/// Makes a folder, or takes one that is there and empty.
fn make_empty(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    let mut entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    if entries.next().is_some() {
        bail!("{}: the folder is not empty", folder.display());
    }
    Ok(())
}

/// Writes a frame's picture below `folder`, under the names of its sequence and its own.
fn save(folder: &Path, seen: &Seen<'_>, picture: &RgbImage) -> Result<()> {
    // Names come from folders; nothing but plain names may lead on from here.
    let name = Path::new(&seen.sequence.name);
    let plain = name
        .components()
        .filter(|part| matches!(part, Component::Normal(_)));
    let folder = folder.join(plain.collect::<PathBuf>());
    std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    let path = folder.join(format!("{}.png", seen.sequence.frame(seen.index)?.name));
    picture.save(&path).with_context(|| path.display().to_string())
}

/// Set by the first Ctrl-C; the second ends the program at once.
fn stop_on_interrupt() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let wish = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let (ready, is_ready) = std::sync::mpsc::sync_channel(1);
    let listen = async move {
        let mut signals = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt());
        // The owner waits for exactly this message.
        let _ = ready.send(());
        while let Ok(signals) = &mut signals {
            signals.recv().await;
            if wish.swap(true, Ordering::Relaxed) {
                std::process::exit(i32::from(INTERRUPTED));
            }
        }
    };
    std::thread::Builder::new()
        .name("masam-interrupt".into())
        .spawn(move || runtime.block_on(listen))?;
    is_ready.recv().context("no way to hear Ctrl-C")?;
    Ok(stop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_have_to_mean_the_same() {
        let endovis = ClassSet::endovis_2018();
        assert!(same_classes(&endovis, &endovis.with_safe_colors()).is_ok());
        let said = |model: &ClassSet| same_classes(model, &endovis).unwrap_err().to_string();
        let few = ClassSet::numbered(4).unwrap();
        assert_eq!(said(&few), "the model has 4 classes, the data set 12");
        let others = ClassSet::numbered(12).unwrap();
        assert_eq!(
            said(&others),
            "class 0 is class-0 in the model and background-tissue in the data set"
        );
    }
}
