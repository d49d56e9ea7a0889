//! `masam doctor`: what this machine has, what is missing, and the cure.

use crate::kernels::simd;
use crate::runtime::{DeviceChoice, Place, PrecisionChoice};
use anyhow::Result;
use clap::Args;
use gstreamer as gst;
use std::process::ExitCode;

/// Say what this machine has, what is missing, and the cure.
///
/// Exits with 1 when something that `masam run` needs is missing.
#[derive(Debug, Args)]
pub struct Doctor {}

/// Elements that parts of the program rest on, the Debian package that has them, and what they are for.
const ELEMENTS: [(&str, &str, &str, bool); 12] = [
    ("decodebin", "gstreamer1.0-plugins-base", "reading video", true),
    (
        "videoconvert",
        "gstreamer1.0-plugins-base",
        "colour conversion",
        true,
    ),
    ("appsrc", "gstreamer1.0-plugins-base", "folders of pictures", true),
    ("qtdemux", "gstreamer1.0-plugins-good", "reading .mp4", true),
    ("mp4mux", "gstreamer1.0-plugins-good", "writing .mp4", true),
    ("h264parse", "gstreamer1.0-plugins-bad", "H.264", true),
    ("avdec_h264", "gstreamer1.0-libav", "decoding H.264", true),
    ("x264enc", "gstreamer1.0-plugins-ugly", "encoding H.264", true),
    ("matroskamux", "gstreamer1.0-plugins-good", "writing .mkv", false),
    ("vp8enc", "gstreamer1.0-plugins-good", "writing .webm", false),
    ("v4l2src", "gstreamer1.0-plugins-good", "cameras", false),
    ("rtspsrc", "gstreamer1.0-plugins-good", "rtsp:// streams", false),
];

impl Doctor {
    pub(super) fn run(self) -> Result<ExitCode> {
        println!("masam {} ({})", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
        let mut healthy = true;
        if let Err(error) = gst::init() {
            println!("  MISSING GStreamer does not start: {error}");
            return Ok(ExitCode::FAILURE);
        }
        println!("\n{}", gst::version_string());
        for (name, package, purpose, needed) in ELEMENTS {
            let found = gst::ElementFactory::find(name).is_some();
            healthy &= found || !needed;
            match (found, needed) {
                (true, _) => println!("  ok      {name:14} {purpose}"),
                (false, true) => println!("  MISSING {name:14} {purpose}; cure: install {package}"),
                (false, false) => println!("  absent  {name:14} {purpose}; if wanted: install {package}"),
            }
        }
        match crate::gst::register() {
            Ok(()) => println!("  ok      masam's own elements"),
            Err(error) => {
                healthy = false;
                println!("  MISSING masam's own elements: {error}");
            }
        }
        println!("\nprocessor");
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        println!(
            "  ok      {threads} threads, vectors: {}",
            simd::instruction_set()
        );
        match Place::choose(&DeviceChoice::Cpu, PrecisionChoice::Auto) {
            Ok(place) => println!("  ok      device=cpu runs: {}", place.description),
            Err(error) => {
                healthy = false;
                println!("  MISSING device=cpu: {error}");
            }
        }
        match Place::choose(&DeviceChoice::Cpu, PrecisionChoice::Bf16) {
            Ok(place) => println!("  ok      precision=bf16 runs: {}", place.description),
            Err(error) => println!("  absent  {error}"),
        }
        println!("\nCUDA");
        match Place::choose(&DeviceChoice::Cuda(0), PrecisionChoice::Auto) {
            Ok(place) => println!("  ok      device=cuda runs: {}", place.description),
            Err(error) => println!("  absent  {error}"),
        }
        println!(
            "\n{}",
            if healthy {
                "everything that is needed is there"
            } else {
                "something is missing, see above"
            }
        );
        Ok(if healthy {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        })
    }
}
