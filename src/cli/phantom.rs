//! `masam phantom`: writes generated sequences with labels, in EndoVis 2018's layout.

use crate::data::phantom::writer::{RELEASE, write_dataset};
use crate::data::phantom::{Eyes, PhantomConfig, Sequence};
use crate::geometry::Size;
use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};

/// Generate surgical scenes with exact labels.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Directory to write to; it has to be empty or absent.
    #[arg(long)]
    pub out: PathBuf,
    /// How many sequences; a multiple of 8 shows every class.
    #[arg(long, default_value_t = 8)]
    pub sequences: usize,
    /// Frames in each sequence.
    #[arg(long, default_value_t = 60)]
    pub frames: usize,
    /// Everything follows from it.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Size of the pictures, WIDTHxHEIGHT in pixels, each of 32 to 4096.
    #[arg(long, default_value = "1280x1024", value_parser = parse_size)]
    pub size: Size,
    /// Frames per second: a number such as 30 or 0.5, or a fraction such as 30000/1001.
    #[arg(long, default_value = "30", value_parser = parse_rate)]
    pub fps: (u32, u32),
    /// Rays per pixel each way, 1 to 4: use 2 or 4 for small pictures that look like large ones scaled down.
    #[arg(long, default_value_t = 1)]
    pub supersample: u32,
    /// Also write the frames of the right camera.
    #[arg(long)]
    pub stereo: bool,
    /// Also write each sequence as a video, seq_N.mp4.
    #[arg(long)]
    pub video: bool,
}

/// Encodes one sequence as a video file; set by the program, which knows the encoder.
pub type VideoWriter<'a> = &'a dyn Fn(&Path, &Sequence) -> Result<()>;

/// Runs the command; `video` is used for `--video`.
///
/// # Errors
/// Settings out of bounds, a directory in use, a file that cannot be written, no encoder.
pub fn run(args: &Args, video: Option<VideoWriter<'_>>) -> Result<()> {
    let config = PhantomConfig {
        seed: args.seed,
        size: args.size,
        frames: args.frames,
        frame_rate: args.fps,
        supersample: args.supersample,
        eyes: if args.stereo { Eyes::Both } else { Eyes::Left },
    };
    config.validate()?;
    if args.video && video.is_none() {
        bail!("--video needs a build with the feature `gst`");
    }
    let total = args.sequences.saturating_mul(args.frames) as u64;
    let bar = ProgressBar::new(total).with_style(ProgressStyle::with_template(
        "{bar:32} {pos}/{len} frames, {per_sec}, {eta} left",
    )?);
    write_dataset(&args.out, &config, args.sequences, &|| bar.inc(1))?;
    bar.finish();
    if let Some(video) = video.filter(|_| args.video) {
        for index in 0..args.sequences {
            let path = args.out.join(format!("seq_{}.mp4", index + 1));
            video(&path, &Sequence::new(&config, index as u64)?)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    println!(
        "{} sequences of {} frames in {}",
        args.sequences,
        args.frames,
        args.out.join(RELEASE).display()
    );
    Ok(())
}

/// Reads `1280x1024`.
fn parse_size(text: &str) -> Result<Size> {
    let parts = text
        .split_once('x')
        .and_then(|(w, h)| Some((w.parse().ok()?, h.parse().ok()?)));
    let (width, height) = parts.with_context(|| format!("{text} is not a size such as 1280x1024"))?;
    Ok(Size::checked(width, height)?)
}

/// Reads `30`, `0.5` or `30000/1001`.
fn parse_rate(text: &str) -> Result<(u32, u32)> {
    let wrong = || format!("{text} is not a frame rate such as 30, 0.5 or 30000/1001");
    if let Some((numerator, denominator)) = text.split_once('/') {
        let rate: (u32, u32) = (
            numerator.parse().with_context(wrong)?,
            denominator.parse().with_context(wrong)?,
        );
        if rate.0 == 0 || rate.1 == 0 {
            bail!(wrong());
        }
        return Ok(rate);
    }
    let rate: f64 = text.parse().with_context(wrong)?;
    if !(0.01..=1000.0).contains(&rate) {
        bail!("{text} frames per second is not between 0.01 and 1000");
    }
    // Thousandths, in lowest terms.
    let thousandths = (rate * 1000.0 + 0.5) as u32;
    let (mut a, mut b) = (thousandths, 1000);
    while b > 0 {
        (a, b) = (b, a % b);
    }
    Ok((thousandths / a, 1000 / a))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_rates_are_read_strictly() {
        assert_eq!(
            parse_size("640x512").unwrap(),
            Size {
                width_px: 640,
                height_px: 512
            }
        );
        for bad in ["640", "640x", "x512", "0x10", "640x512x3", "-1x4"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_rate("30").unwrap(), (30, 1));
        assert_eq!(parse_rate("0.5").unwrap(), (1, 2));
        assert_eq!(parse_rate("59.94").unwrap(), (2997, 50));
        assert_eq!(parse_rate("30000/1001").unwrap(), (30_000, 1001));
        for bad in ["", "0", "-1", "30/0", "nan", "inf", "1e9"] {
            assert!(parse_rate(bad).is_err(), "{bad}");
        }
    }
}
