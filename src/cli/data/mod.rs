//! `masam data`: what a folder of recordings and labels holds, and what is odd about it.

mod import;

use crate::data::check::{Oddity, Report, check};
use crate::data::{Dataset, DatasetConfig, Note, Role, Task2017};
use crate::geometry::Size;
use anyhow::Result;
use clap::{Args, Subcommand};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::PathBuf;
use std::process::ExitCode;

/// Lines of a list that are printed; --json has all of them.
const SHOWN: usize = 20;

/// Look at data sets, and make them.
#[derive(Debug, Args)]
pub struct Data {
    #[command(subcommand)]
    command: DataCommand,
}

#[derive(Debug, Subcommand)]
enum DataCommand {
    /// Read every file of a data set and say what is odd.
    Check(Check),
    Import(import::Import),
}

/// Read every file of a data set and say what is odd.
///
/// DIR holds EndoVis 2018 or 2017 as unpacked, one release, one sequence, what `masam phantom` wrote, or images and
/// masks of your own (docs/datasets.md). Exits with 0 when every file can be used and the labels are understood, and
/// with 1 when not.
#[derive(Debug, Args)]
pub struct Check {
    /// The folder.
    dir: PathBuf,
    /// Print the whole report as JSON.
    #[arg(long)]
    json: bool,
    /// What the labels of EndoVis 2017 are read as: binary, parts or type.
    #[arg(long, default_value = "parts")]
    task: Task2017,
    /// Accept labels with more than 0.1 % of pixels of unknown colors or values; those pixels are ignored.
    #[arg(long)]
    accept_unknown_labels: bool,
}

impl Data {
    pub(super) fn run(self) -> Result<ExitCode> {
        match self.command {
            DataCommand::Check(check) => check.run(),
            DataCommand::Import(import) => import.run(),
        }
    }
}

impl Check {
    fn run(self) -> Result<ExitCode> {
        let config = DatasetConfig {
            task_2017: self.task,
            accept_unknown_labels: self.accept_unknown_labels,
        };
        let data = Dataset::open_with(&self.dir, config)?;
        let frames = data.sequences.iter().map(|s| s.frames.len() as u64).sum();
        let bar = ProgressBar::new(frames).with_style(ProgressStyle::with_template(
            "{bar:32} {pos}/{len} frames, {per_sec}, {eta} left",
        )?);
        let report = check(&data, &|| bar.inc(1));
        bar.finish_and_clear();
        if self.json {
            println!("{}", serde_json::to_string_pretty(&report)?);
        } else {
            print(&report);
        }
        Ok(if report.usable {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}

fn print(report: &Report) {
    println!(
        "{}: {}, {} sequences, {} frames, {} labelled",
        report.root.display(),
        report.kind,
        report.sequences.len(),
        report.frames,
        report.labelled
    );
    println!("{}", report.labels);
    println!("\nsequences");
    for sequence in &report.sequences {
        let sizes: Vec<String> = sequence.sizes.iter().map(|s| size(*s)).collect();
        let role = match sequence.role {
            Role::Train => "training",
            Role::Validation => "validation",
            Role::Test => "test",
        };
        println!(
            "  {:24} {:>5} frames {:>5} labelled  {role:10} {}",
            sequence.name,
            sequence.frames,
            sequence.labelled,
            sizes.join(", ")
        );
    }
    let all: u64 = report.classes.iter().map(|c| c.pixels).sum::<u64>() + report.ignored_pixels;
    if all > 0 {
        println!("\nclasses {:>38} {:>14}", "frames", "pixels");
        for class in &report.classes {
            let share = 100.0 * class.pixels as f64 / all as f64;
            println!(
                "  {:3} {:24} {:>15} {:>14} {share:7.3} %",
                class.id, class.name, class.frames, class.pixels
            );
        }
        println!("      {:24} {:>15} {:>14}", "ignored", "", report.ignored_pixels);
    }
    let odd = report.odd_colors.iter().map(|c| {
        let [red, green, blue] = c.color;
        let fate = if c.repaired {
            "taken for"
        } else {
            "unknown, nearest"
        };
        format!(
            "#{red:02x}{green:02x}{blue:02x} {:>10} pixels in {:>5} frames, {fate} {} ({} away)",
            c.pixels, c.frames, c.nearest, c.distance
        )
    });
    list(
        &format!(
            "colors or values of no class (taken for one at most {} away)",
            report.color_distance
        ),
        odd.collect(),
    );
    if report.further_odd_pixels > 0 {
        println!("  and {} pixels of further colors", report.further_odd_pixels);
    }
    let repairs = &report.repairs;
    let line = |r: &crate::data::Repair| format!("{} {}: {}", r.sequence, r.frame, r.path.display());
    list("corrected labels applied", repairs.iter().map(line).collect());
    let counts = [
        (report.missing_labels, "frames without a label"),
        (report.missing_frames, "labels without a frame"),
        (report.macosx_trees, "__MACOSX trees, skipped"),
        (report.sidecar_files, "._* files, skipped"),
    ];
    let counted = counts.iter().filter(|(count, _)| *count > 0);
    list(
        "counted",
        counted.map(|(count, what)| format!("{count} {what}")).collect(),
    );
    let duplicates = report.duplicates.iter().map(|names| names.join(", "));
    list("identical pictures", duplicates.collect());
    let suspicious = report.suspicious.iter().map(|s| {
        let why = match &s.what {
            Oddity::Black => "the picture is black".into(),
            Oddity::Size { size: own } => format!("{}, unlike its sequence", size(*own)),
            Oddity::OneClass { class } => format!("the whole label is {class}"),
            Oddity::AllIgnored => "no pixel of the label has a class".into(),
        };
        format!("{} {}: {why}", s.sequence, s.frame)
    });
    list("suspicious frames", suspicious.collect());
    let counted = |n: &&Note| !matches!(n, Note::Sidecars { .. });
    list(
        "remarks",
        report.notes.iter().filter(counted).map(Note::to_string).collect(),
    );
    list("errors", report.errors.clone());
    println!(
        "\n{}",
        if report.usable {
            "usable"
        } else {
            "NOT usable as it is: see the errors above"
        }
    );
}

fn size(size: Size) -> String {
    format!("{}x{}", size.width_px, size.height_px)
}

/// A heading and the first lines of what is under it; nothing where there is nothing.
fn list(heading: &str, lines: Vec<String>) {
    if lines.is_empty() {
        return;
    }
    println!("\n{heading}: {}", lines.len());
    for line in lines.iter().take(SHOWN) {
        println!("  {line}");
    }
    if lines.len() > SHOWN {
        println!("  and {} more; --json lists all", lines.len() - SHOWN);
    }
}
