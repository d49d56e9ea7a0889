//! `masam train`: a run from its configuration to a model file.
//!
//! The run's folder holds `state.safetensors` (to go on from), `model.safetensors` (the newest), `best.safetensors`
//! (by validation) and the log: tables, curves, events.

use crate::checkpoint::model_file::{self, Storage};
use crate::data::{LabelReport, Split};
use crate::labels::ClassSet;
use crate::runtime::{DeviceChoice, Place};
use crate::train::batches::{Batches, Recipe};
use crate::train::config::Scenes;
use crate::train::folder::Reading;
use crate::train::groups::Groups;
use crate::train::log::RunLog;
use crate::train::{Footage, TrainConfig, Trainer};
use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Train a model.
#[derive(Debug, Args)]
pub struct Train {
    /// The configuration, TOML; `configs/` holds examples.
    config: PathBuf,
    /// Folder of the run, instead of the configuration's.
    #[arg(short, long, value_name = "FOLDER")]
    output: Option<PathBuf>,
    /// Go on from the state in the run's folder.
    #[arg(long)]
    resume: bool,
    /// Where to train: auto, cpu, cuda or cuda:N.
    #[arg(long, default_value_t)]
    device: DeviceChoice,
    /// Accept labels with more than 0.1 % of pixels of unknown colors or values; those pixels are ignored.
    #[arg(long)]
    accept_unknown_labels: bool,
    /// End after this many minutes, with the state saved.
    #[arg(long, value_name = "MINUTES")]
    minutes: Option<f64>,
}

/// Newest state, newest model, best model and log of a run.
struct Folder(PathBuf);

impl Folder {
    fn state(&self) -> PathBuf {
        self.0.join("state.safetensors")
    }

    fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    fn best(&self) -> PathBuf {
        self.0.join("best.safetensors")
    }
}

impl Train {
    pub(super) fn run(self) -> Result<ExitCode> {
        let mut config = TrainConfig::read(&self.config)?;
        config.data.accept_unknown_labels |= self.accept_unknown_labels;
        let folder = Folder(self.output.clone().unwrap_or_else(|| config.folder()));
        let place = Place::for_training(&self.device, config.precision)?;
        let mut trainer = match (self.resume, folder.state().exists()) {
            (true, true) => Trainer::resume(&config, &folder.state(), &place)?,
            (true, false) => bail!("{}: nothing to go on from", folder.state().display()),
            (false, true) => bail!(
                "{}: there is a run already; --resume goes on with it",
                folder.0.display()
            ),
            (false, false) => Trainer::new(&config, &place)?,
        };
        std::fs::create_dir_all(&folder.0).with_context(|| folder.0.display().to_string())?;
        // What a run that was killed had half written.
        model_file::remove_parts(&folder.0);
        let Material {
            footage,
            validation,
            labels,
        } = footage(&config, &mut trainer)?;
        let footage = Arc::new(footage);
        if let Some(labels) = &labels {
            let _ = writeln!(std::io::stderr(), "masam: {labels}"); // nobody who reads is no failure
            let path = folder.0.join("labels.json");
            std::fs::write(&path, format!("{:#}\n", serde_json::to_value(labels)?))
                .with_context(|| path.display().to_string())?;
        }
        let labels = labels.map(|labels| labels.to_string());
        let mut log = RunLog::open(
            &folder.0,
            &config.name,
            &trainer.card().classes,
            trainer.progress().step,
        )?;
        let stopped = Arc::new(AtomicBool::new(false));
        stop_on_signals(stopped.clone())?;

        let (steps, first) = (config.schedule.steps, trainer.progress().step);
        let bar = ProgressBar::new(steps).with_style(ProgressStyle::with_template(
            "{bar:32} {pos}/{len} steps, {msg}, {eta} left",
        )?);
        bar.set_position(first);
        bar.reset_eta();
        let recipe = Recipe::new(&config, trainer.card().preprocessing.normalisation);
        let batches = Batches::start(recipe, footage, first, config.clips.accumulate)?;
        let began = Instant::now();
        let in_time = || {
            self.minutes
                .is_none_or(|minutes| began.elapsed().as_secs_f64() < minutes * 60.0)
        };
        let mut loss = Smooth::default();
        let mut scored = None;
        // The bar's own lines are lost where there is no terminal; that nobody reads any more does not end a run.
        let say = |line: String| bar.suspend(|| drop(writeln!(std::io::stderr(), "{line}")));
        if let Some(taken) = trainer.taken_over() {
            say(taken.to_string());
        }
        while trainer.progress().step < steps && !stopped.load(Ordering::Relaxed) && in_time() {
            let parts = (0..config.clips.accumulate)
                .map(|_| batches.next())
                .collect::<crate::Result<Vec<_>>>()?;
            let step = trainer.step(&parts)?;
            log.step(&step)?;
            loss.add(step.loss);
            bar.set_message(format!(
                "loss {:.4}, rate {:.2e}",
                loss.0.unwrap_or(f64::NAN),
                step.rate
            ));
            bar.inc(1);
            let done = trainer.progress().step;
            let last = done == steps;
            if let Some(validation) = validation
                .as_ref()
                .filter(|_| last || done % config.save.validate_every == 0)
            {
                let confusion = trainer.validate(validation, VALIDATE_EVERY)?;
                let score = confusion.mean_iou().unwrap_or(0.0);
                scored = Some((done, score));
                log.validation(done, &confusion)?;
                log.draw()?;
                say(format!(
                    "step {done}: validation mean IoU {score:.4}, loss {:.4}",
                    loss.0.unwrap_or(f64::NAN)
                ));
                if trainer.is_best(score) {
                    match self.write(&trainer, &config, &labels, Some(score), &folder.best()) {
                        Ok(()) => trainer.note_best(score),
                        Err(error) => say(format!("step {done}: the best model is not saved: {error}")),
                    }
                }
            }
            if !last && done % config.save.every == 0 {
                // A disk may be full for a while: the state that is there stays, and the run goes on.
                if let Err(error) = trainer.save(&folder.state()) {
                    say(format!("step {done}: the state is not saved: {error}"));
                }
                log.draw()?;
            }
        }
        bar.finish_and_clear();
        trainer.save(&folder.state())?;
        log.draw()?;
        let own = scored.filter(|(step, _)| *step == trainer.progress().step);
        self.write(
            &trainer,
            &config,
            &labels,
            own.map(|(_, score)| score),
            &folder.model(),
        )?;
        let progress = trainer.progress();
        // Everything is saved: nobody who reads is no failure.
        let mut lines = format!(
            "{} steps ({} skipped) in {:.0} s, {}\n",
            progress.step - first,
            progress.skipped,
            began.elapsed().as_secs_f64(),
            folder.0.display()
        );
        if progress.step < steps {
            lines += &format!(
                "stopped at step {} of {steps}; go on with --resume\n",
                progress.step
            );
        }
        drop(std::io::stdout().write_all(lines.as_bytes()));
        Ok(ExitCode::SUCCESS)
    }

    /// Writes a model; `score` is its own on the validation data, where it is known.
    fn write(
        &self,
        trainer: &Trainer,
        config: &TrainConfig,
        labels: &Option<String>,
        score: Option<f64>,
        path: &Path,
    ) -> Result<()> {
        let mut data = match (&config.data.folder, &config.data.phantom) {
            (Some(folder), _) => format!(
                "{}, {}",
                folder.file_name().unwrap_or(folder.as_os_str()).to_string_lossy(),
                config.data.splits()?.0
            ),
            (None, Some(s)) => format!(
                "phantom scenes: {} sequences of {} frames at {} frames/s, seed {}",
                s.sequences, s.frames, s.fps, s.seed
            ),
            (None, None) => String::new(),
        };
        if let Some(labels) = labels {
            data += &format!("; {labels}");
        }
        let mut file = trainer.model_file(&data, &today())?;
        if let Some(score) = score {
            file.card
                .scores
                .insert("validation.miou_at_model_side".into(), score);
        }
        Ok(file.write(path, Storage::F16)?)
    }
}

/// Frames from one that is validated to the next.
const VALIDATE_EVERY: usize = 4;

/// Frames and labels at the model's side.
struct Material {
    /// Of training.
    footage: Footage,
    /// Of validation.
    validation: Option<Footage>,
    /// What the labels of a data set on disk were read as.
    labels: Option<LabelReport>,
}

/// Reads or generates the frames of training and validation; the model takes over the data's classes.
fn footage(config: &TrainConfig, trainer: &mut Trainer) -> Result<Material> {
    let side = trainer.card().model.image_side_px;
    let preprocessing = trainer.card().preprocessing.clone();
    let bar = |unit: &str, what: &str| -> Result<ProgressBar> {
        let style = format!("{{msg}} {{bar:32}} {{pos}}/{{len}} {unit}, {{eta}} left");
        let bar = ProgressBar::new(0).with_style(ProgressStyle::with_template(&style)?);
        bar.set_message(what.to_owned());
        Ok(bar)
    };
    if let Some(data) = config.data.open()? {
        let groups = groups(config, trainer, &data.classes)?;
        let read = |split: &Split, what: &str| -> Result<Footage> {
            let bar = bar("frames", what)?;
            let reading = Reading {
                split,
                side,
                preprocessing: &preprocessing,
                memory_gib: config.data.memory_gib(),
            };
            let footage = Footage::read(&data, &reading, &|frames| match frames {
                Some(frames) => bar.set_length(frames as u64),
                None => bar.inc(1),
            })?;
            bar.finish_and_clear();
            regrouped(&groups, footage)
        };
        let (split, validation) = config.data.splits()?;
        if let Some(validation) = &validation {
            let held_out: Vec<&str> = data.split(validation)?.iter().map(|s| s.name.as_str()).collect();
            if let Some(both) = data
                .split(&split)?
                .iter()
                .find(|s| held_out.contains(&s.name.as_str()))
            {
                bail!(
                    "data.split is {split}, data.validation_split is {validation}, but {} is in both",
                    both.name
                );
            }
        }
        let footage = read(&split, "training frames")?;
        let used = data.split(&split)?;
        let labels = LabelReport::of(&data, used.into_iter().map(|s| (s, s.frames.len())))?;
        let validation = validation
            .map(|split| read(&split, "validation frames"))
            .transpose()?;
        return Ok(Material {
            footage,
            validation,
            labels: Some(labels),
        });
    }
    let groups = groups(config, trainer, &ClassSet::endovis_2018())?;
    let generate = |scenes: &Scenes, what: &str| -> Result<Footage> {
        let bar = bar("sequences", what)?;
        bar.set_length(scenes.sequences as u64);
        let footage = Footage::generate(scenes, side, &preprocessing, &|| bar.inc(1))?;
        bar.finish_and_clear();
        regrouped(&groups, footage)
    };
    let Some(scenes) = &config.data.phantom else {
        bail!("data: neither a folder nor a phantom");
    };
    let footage = generate(scenes, "scenes for training")?;
    let validation = config.data.validation_phantom.as_ref();
    let validation = validation
        .map(|scenes| generate(scenes, "scenes for validation"))
        .transpose()?;
    Ok(Material {
        footage,
        validation,
        labels: None,
    })
}

/// The groups that the configuration takes classes together into; the trainer is told which classes there are.
fn groups(config: &TrainConfig, trainer: &mut Trainer, classes: &ClassSet) -> Result<Option<Groups>> {
    let names = config.data.groups.as_ref();
    let groups = names.map(|names| Groups::new(names, classes)).transpose()?;
    trainer.set_classes(groups.as_ref().map_or(classes, Groups::classes))?;
    Ok(groups)
}

/// Frames with the groups as labels, where there are groups.
fn regrouped(groups: &Option<Groups>, footage: Footage) -> Result<Footage> {
    Ok(match groups {
        Some(groups) => groups.apply(&footage)?,
        None => footage,
    })
}

/// Sets `stopped` at the first Ctrl-C, wish to end or end of the terminal; the second ends the program.
fn stop_on_signals(stopped: Arc<AtomicBool>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let within = runtime.enter();
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    drop(within);
    std::thread::Builder::new()
        .name("masam-signals".into())
        .spawn(move || {
            runtime.block_on(async {
                loop {
                    // The shell's statuses for a program that these ended.
                    let status = tokio::select! {
                        Some(()) = interrupted.recv() => 130,
                        Some(()) = terminated.recv() => 143,
                        Some(()) = hung_up.recv() => 129,
                        else => return,
                    };
                    if stopped.swap(true, Ordering::Relaxed) {
                        std::process::exit(status);
                    }
                    drop(writeln!(
                        std::io::stderr(),
                        "finishing the step and saving; once more to give up"
                    ));
                }
            });
        })?;
    Ok(())
}

/// Today, ISO 8601, UTC.
fn today() -> String {
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO)
        .as_secs();
    let (year, month, day) = date_of((seconds / 86_400) as i64);
    format!("{year:04}-{month:02}-{day:02}")
}

/// Year, month and day of a number of days since 1970-01-01 in the Gregorian calendar, whose pattern repeats every
/// 400 years; years are counted from March, so that the leap day comes last.
fn date_of(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// A running mean for the eye.
#[derive(Default)]
struct Smooth(Option<f64>);

impl Smooth {
    fn add(&mut self, value: f64) {
        if value.is_finite() {
            self.0 = Some(self.0.map_or(value, |mean| mean + (value - mean) * 0.05));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_their_dates() {
        for (days, date) in [
            (0, (1970, 1, 1)),
            (59, (1970, 3, 1)),
            (11_016, (2000, 2, 29)),
            (20_782, (2026, 11, 25)),
        ] {
            assert_eq!(date_of(days), date);
        }
    }
}
