//! `masam doctor`: what this machine has, what is missing, and the cure.

mod plugin;

use super::demo_model::{DEMO_MODEL, present};
use crate::checkpoint::ModelFile;
use crate::kernels::simd;
use crate::runtime::{DeviceChoice, Place, PrecisionChoice};
use anyhow::Result;
use clap::Args;
use gstreamer as gst;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Say what this machine has, what is missing, and the cure.
///
/// Exits with 1 when something that `masam run` needs is MISSING, or when something is BROKEN: the plugin that
/// gst-launch-1.0 finds does not load or is of another build than this program. What is absent may be wanted or not.
#[derive(Debug, Args)]
pub struct Doctor {
    /// Print version and package of a plugin file, or why it does not load.
    #[arg(long, hide = true, value_name = "FILE")]
    load_plugin: Option<PathBuf>,
}

/// Elements that parts of the program rest on, any one of each list; the Debian package that has the first; what they are
/// for; and whether `masam run` needs them.
const ELEMENTS: [(&[&str], &str, &str, bool); 20] = [
    (&["decodebin"], "gstreamer1.0-plugins-base", "reading video", true),
    (
        &["videoconvert"],
        "gstreamer1.0-plugins-base",
        "color conversion",
        true,
    ),
    (
        &["appsrc"],
        "gstreamer1.0-plugins-base",
        "folders of pictures",
        true,
    ),
    (
        &["qtdemux"],
        "gstreamer1.0-plugins-good",
        "reading .mp4 and .mov",
        true,
    ),
    (&["mp4mux"], "gstreamer1.0-plugins-good", "writing .mp4", true),
    (
        &["matroskademux"],
        "gstreamer1.0-plugins-good",
        "reading .mkv and .webm",
        true,
    ),
    (
        &["matroskamux"],
        "gstreamer1.0-plugins-good",
        "writing .mkv",
        true,
    ),
    (&["h264parse"], "gstreamer1.0-plugins-bad", "H.264", true),
    (
        &["avdec_h264", "openh264dec"],
        "gstreamer1.0-libav",
        "decoding H.264",
        true,
    ),
    (
        &["x264enc", "openh264enc"],
        "gstreamer1.0-plugins-ugly",
        "encoding H.264",
        true,
    ),
    (
        &["avdec_h265", "libde265dec"],
        "gstreamer1.0-libav",
        "decoding H.265",
        false,
    ),
    (
        &["vp9dec", "avdec_vp9"],
        "gstreamer1.0-plugins-good",
        "decoding VP9",
        false,
    ),
    (
        &["jpegdec", "avdec_mjpeg"],
        "gstreamer1.0-plugins-good",
        "Motion JPEG, many cameras",
        false,
    ),
    (
        &["avdec_mpeg2video", "mpeg2dec"],
        "gstreamer1.0-libav",
        "decoding MPEG-2",
        false,
    ),
    (&["tsdemux"], "gstreamer1.0-plugins-bad", "reading .ts", false),
    (&["avidemux"], "gstreamer1.0-plugins-good", "reading .avi", false),
    (&["vp8enc"], "gstreamer1.0-plugins-good", "writing .webm", false),
    (&["v4l2src"], "gstreamer1.0-plugins-good", "cameras", false),
    (
        &["rtspsrc"],
        "gstreamer1.0-plugins-good",
        "rtsp:// streams",
        false,
    ),
    (&["autovideosink"], "gstreamer1.0-plugins-good", "windows", false),
];

/// Lines on standard output, and whether any of them is an alarm.
#[derive(Debug, Default)]
struct Report {
    missing: usize,
    broken: usize,
}

impl Report {
    fn section(&self, title: &str) {
        println!("\n{title}");
    }

    fn ok(&mut self, line: String) {
        println!("  ok      {line}");
    }

    /// What some do without.
    fn absent(&mut self, line: String) {
        println!("  absent  {line}");
    }

    /// What `masam run` needs.
    fn missing(&mut self, line: String) {
        self.missing += 1;
        println!("  MISSING {line}");
    }

    /// What is there and does not do what it should.
    fn broken(&mut self, line: String) {
        self.broken += 1;
        println!("  BROKEN  {line}");
    }
}

impl Doctor {
    pub(super) fn run(self) -> Result<ExitCode> {
        if let Some(file) = &self.load_plugin {
            return Ok(plugin::load_here(file));
        }
        println!(
            "masam {} build {} ({})",
            env!("CARGO_PKG_VERSION"),
            crate::BUILD,
            std::env::consts::ARCH
        );
        let mut report = Report::default();
        if let Err(error) = gst::init() {
            report.missing(format!("GStreamer does not start: {error}"));
            return Ok(ExitCode::FAILURE);
        }
        report.section(&gst::version_string());
        for (names, package, purpose, needed) in ELEMENTS {
            let found = names
                .iter()
                .find(|name| gst::ElementFactory::find(name).is_some());
            match (found, needed) {
                (Some(name), _) => report.ok(format!("{name:14} {purpose}")),
                (None, true) => report.missing(format!("{:14} {purpose}; cure: install {package}", names[0])),
                (None, false) => {
                    report.absent(format!("{:14} {purpose}; if wanted: install {package}", names[0]))
                }
            }
        }
        report.section("plugin, as gst-launch-1.0 finds it");
        plugin::examine(&mut report);
        report.section("program");
        match crate::gst::register() {
            Ok(()) => report.ok("masam's own elements, which masam run uses".into()),
            Err(error) => report.missing(format!("masam's own elements: {error}")),
        }
        model(&mut report);
        report.section("processor");
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        report.ok(format!("{threads} threads, vectors: {}", simd::instruction_set()));
        match Place::choose(&DeviceChoice::Cpu, PrecisionChoice::Auto) {
            Ok(place) => report.ok(format!("device=cpu runs: {}", place.description)),
            Err(error) => report.missing(format!("device=cpu: {error}")),
        }
        match Place::choose(&DeviceChoice::Cpu, PrecisionChoice::Bf16) {
            Ok(place) => report.ok(format!("precision=bf16 runs: {}", place.description)),
            Err(error) => report.absent(error.to_string()),
        }
        report.section("CUDA");
        match Place::choose(&DeviceChoice::Cuda(0), PrecisionChoice::Auto) {
            Ok(place) => report.ok(format!("device=cuda runs: {}", place.description)),
            Err(error) => report.absent(error.to_string()),
        }
        report.section(match (report.missing, report.broken) {
            (0, 0) => "everything that masam run needs is there",
            (0, _) => "something is broken, see above",
            _ => "something is missing, see above",
        });
        Ok(match report.missing + report.broken {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        })
    }
}

/// The model that serves whoever names none.
fn model(report: &mut Report) {
    let path = present(Path::new(DEMO_MODEL));
    if !path.exists() {
        return report.absent(format!(
            "{DEMO_MODEL}, the default of --model: neither here nor beside the program; make install copies it"
        ));
    }
    match ModelFile::read_card(&path) {
        Ok(card) => report.ok(format!(
            "model {}: {}, {} classes",
            path.display(),
            card.model.name,
            card.classes.len()
        )),
        Err(error) => report.broken(error.to_string()),
    }
}
