//! `masam latency`: what the elements cost a live video, and how old its masks really are.
//!
//! ```text
//! source -> [clock code drawn] -> … -> masaminfer -> masamoverlay -> … -> [clock code read] sink
//! delay     = time at the sink - code                 mask age = code of the frame - code in its mask
//! ```
//! The model reads the code out of the picture it is shown and writes it into its mask, so the age of a mask is
//! measured and not believed. The pipeline is run in turns with our elements and with `capsfilter` in their place.

mod code;
mod description;
mod play;
mod report;
mod tally;
mod witness;

use super::demo_model::{DEMO_MODEL, present};
use anyhow::{Context, Result, bail};
use clap::Args;
use description::Pair;
use gstreamer as gst;
use play::{Models, play};
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measure what our elements cost a live video, and the true age of the masks shown.
///
/// A clock code in the top right corner of each frame is drawn where raw frames first appear and read at the sink.
/// The pipeline runs in turns with our elements and with a caps filter in their place.
#[derive(Debug, Args)]
pub struct Latency {
    /// The pipeline, as gst-launch-1.0 reads it, with masaminfer in it: for example
    /// "v4l2src ! videoconvert ! masaminfer model=m.safetensors ! masamoverlay ! autovideosink". By default a live
    /// test picture.
    #[arg(long, value_name = "DESCRIPTION", conflicts_with_all = ["model", "size", "format", "fps"])]
    pipeline: Option<String>,
    /// The model file; the demo model, where it was installed, serves for the default too.
    #[arg(short, long, value_name = "FILE", default_value = DEMO_MODEL)]
    model: PathBuf,
    /// Size of the test picture, at least 256x144.
    #[arg(long, default_value = "1920x1080")]
    size: String,
    /// Its pixel format.
    #[arg(long, default_value = "NV12")]
    format: String,
    /// Its frames per second.
    #[arg(long, default_value_t = 30)]
    fps: u32,
    /// Seconds measured with our elements, and as many without.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Turns that the seconds are divided into.
    #[arg(long, default_value_t = 5)]
    pairs: u32,
    /// Print one JSON object instead of the tables.
    #[arg(long)]
    json: bool,
}

impl Latency {
    pub(super) fn run(self) -> Result<ExitCode> {
        if self.seconds == 0 || self.seconds > 86_400 || self.pairs == 0 {
            bail!("--seconds has to be 1 to 86400, and --pairs at least 1");
        }
        gst::init().context("GStreamer")?;
        crate::gst::register().context("masam's elements")?;
        let description = match &self.pipeline {
            Some(description) => description.clone(),
            None => self.test_pipeline()?,
        };
        let pair = Pair::parse(&description)?;
        let turn = Duration::from_secs(self.seconds) / self.pairs;
        let (mut models, mut report) = (Models::default(), Report::new(&description));
        for number in 0..self.pairs {
            // Whatever else the machine does falls on both alike.
            let order = if number % 2 == 0 {
                [false, true]
            } else {
                [true, false]
            };
            let mut tallies = [None, None];
            for with in order {
                let text = if with { &pair.with } else { &pair.without };
                let tally = play(text, &pair.names, &mut models, turn)?;
                if tally.delays.is_empty() {
                    bail!("no frame with a readable code came to the sink of {text}");
                }
                tallies[usize::from(with)] = Some(tally);
            }
            if let [Some(without), Some(with)] = tallies {
                report.add(&without, &with);
            }
        }
        if self.json {
            println!("{}", report.json());
        } else {
            print!("{}", report.text());
        }
        Ok(ExitCode::SUCCESS)
    }

    fn test_pipeline(&self) -> Result<String> {
        let sides = self
            .size
            .split_once('x')
            .and_then(|(width, height)| Some((width.parse::<u32>().ok()?, height.parse::<u32>().ok()?)));
        let Some((width, height)) = sides.filter(|&(width, height)| {
            (code::LEAST.width_px..=crate::geometry::MAX_FRAME_SIDE_PX).contains(&width)
                && (code::LEAST.height_px..=crate::geometry::MAX_FRAME_SIDE_PX).contains(&height)
        }) else {
            bail!(
                "--size {}: it has to be WIDTHxHEIGHT, at least 256x144",
                self.size
            );
        };
        let (format, fps) = (&self.format, self.fps);
        if fps == 0 || fps > 1000 || !format.chars().all(|c| c.is_ascii_alphanumeric()) {
            bail!("--fps {fps} --format {format}: a rate of 1 to 1000 and a format such as NV12 or RGBA");
        }
        let model = present(&self.model);
        let model = model.to_string_lossy();
        if model.contains(['"', '!']) {
            bail!("{model}: this name cannot be part of a pipeline");
        }
        Ok(format!(
            "videotestsrc is-live=true pattern=ball background-color=0xff402020 \
             ! video/x-raw,format={format},width={width},height={height},framerate={fps}/1 \
             ! masaminfer model=\"{model}\" roi=none ! masamoverlay ! fakesink sync=true"
        ))
    }
}
