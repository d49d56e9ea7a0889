//! `masam data import`: exports of COCO and CVAT, and videos with mask videos, as folders of images and masks.

use crate::cli::video::{Stop, describe, each_frame};
use crate::data::import::{self, Export};
use anyhow::{Context, Result, anyhow, bail};
use clap::Args;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use image::DynamicImage;
use indicatif::{ProgressBar, ProgressStyle};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Make a data set from an export of COCO or CVAT, or from videos with mask videos.
///
/// SOURCE is a folder or file of COCO (instances_*.json with its pictures), of CVAT (annotations.xml of "CVAT for images
/// 1.1" with its pictures), or a folder with videos in `images`, lossless videos of masks with the same names in `masks`
/// (FFV1 or PNG), and a class table. OUT gets images/, masks/ and classes.json; see docs/datasets.md. CVAT's
/// "segmentation mask" exports need no import.
#[derive(Debug, Args)]
pub struct Import {
    /// What is read.
    source: PathBuf,
    /// Folder to write; it has to be empty or absent.
    out: PathBuf,
}

/// Codecs of mask videos that give back the pixels they were given.
const LOSSLESS: [&str; 6] = [
    "video/x-ffv",
    "image/png",
    "video/x-huffyuv",
    "video/x-utvideo",
    "video/x-qt-rle",
    "video/x-raw",
];

impl Import {
    pub(super) fn run(self) -> Result<ExitCode> {
        let videos = videos(&self.source)?;
        if !videos.is_empty() {
            return self.videos(&videos);
        }
        let export = Export::find(&self.source)?;
        let bar = bar()?;
        let imported = export.write(&self.source, &self.out, &|frames| match frames {
            Some(frames) => bar.set_length(frames as u64),
            None => bar.inc(1),
        })?;
        bar.finish_and_clear();
        println!(
            "{} frames ({} without objects), {} objects, {} classes in {}",
            imported.frames,
            imported.empty,
            imported.objects,
            imported.classes,
            self.out.display()
        );
        Ok(ExitCode::SUCCESS)
    }

    fn videos(&self, videos: &[Pair]) -> Result<ExitCode> {
        let tables = std::fs::read_dir(&self.source)?.filter_map(|entry| Some(entry.ok()?.path()));
        let table = tables.filter(|path| path.is_file()).find(|path| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .to_lowercase();
            [
                "classes.json",
                "labels.json",
                "classes.csv",
                "labels.csv",
                "class_dict.csv",
                "labelmap.txt",
            ]
            .contains(&name.as_str())
        });
        let table =
            table.with_context(|| format!("{}: no class table (classes.json)", self.source.display()))?;
        crate::data::class_table::read(&table)?;
        import::prepare(&self.out)?;
        let bar = bar()?;
        let mut all = 0;
        for pair in videos {
            bar.set_message(pair.name.clone());
            let frames = |kind: &str| -> Result<PathBuf> {
                let folder = self.out.join(kind).join(&pair.name);
                std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
                Ok(folder)
            };
            let (images, masks) = (frames("images")?, frames("masks")?);
            let save = |folder: &Path, index: usize, picture: &DynamicImage| {
                let path = folder.join(format!("frame{index:06}.png"));
                picture.save(&path).with_context(|| path.display().to_string())
            };
            let (mut count, mut size, mut failed) = (0, None, Ok(()));
            each_frame(&pair.video, &mut |frame| {
                size = Some(frame.dimensions());
                failed = save(&images, count, &DynamicImage::ImageRgb8(frame.clone()));
                count += 1;
                bar.inc(1);
                failed.is_ok()
            })?;
            failed?;
            let mut masked = 0;
            each_mask(&pair.masks, &mut |mask| {
                if Some((mask.width(), mask.height())) != size {
                    let (video, masks) = (pair.video.display(), pair.masks.display());
                    bail!(
                        "{masks}: the masks are {}x{}, {video} is {size:?}",
                        mask.width(),
                        mask.height()
                    );
                }
                save(&masks, masked, &mask)?;
                masked += 1;
                Ok(())
            })?;
            if masked != count {
                bail!(
                    "{}: {masked} masks, but {count} frames in {}",
                    pair.masks.display(),
                    pair.video.display()
                );
            }
            all += count;
        }
        bar.finish_and_clear();
        let name = table.file_name().unwrap_or_default();
        std::fs::copy(&table, self.out.join(name)).with_context(|| table.display().to_string())?;
        println!(
            "{all} frames of {} videos in {}",
            videos.len(),
            self.out.display()
        );
        Ok(ExitCode::SUCCESS)
    }
}

fn bar() -> Result<ProgressBar> {
    let style = ProgressStyle::with_template("{bar:32} {pos}/{len} frames, {msg}, {eta} left")?;
    Ok(ProgressBar::new(0).with_style(style))
}

/// A video and the video of its masks.
struct Pair {
    name: String,
    video: PathBuf,
    masks: PathBuf,
}

/// The videos in `images` (or `videos`) and `masks` of `source`; none where it has no such folders.
fn videos(source: &Path) -> Result<Vec<Pair>> {
    let list = |names: &[&str]| -> Result<Vec<PathBuf>> {
        let Some(folder) = names
            .iter()
            .map(|name| source.join(name))
            .find(|path| path.is_dir())
        else {
            return Ok(Vec::new());
        };
        let files = std::fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
        let mut files: Vec<PathBuf> = files.filter_map(|entry| Some(entry.ok()?.path())).collect();
        let is_video = |path: &PathBuf| {
            let suffix = path
                .extension()
                .unwrap_or_default()
                .to_string_lossy()
                .to_lowercase();
            [
                "mp4", "mov", "m4v", "mkv", "avi", "webm", "mpg", "mpeg", "ts", "nut",
            ]
            .contains(&suffix.as_str())
        };
        files.retain(is_video);
        files.sort();
        Ok(files)
    };
    let stem = |path: &Path| {
        path.file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    };
    let (videos, masks) = (list(&["images", "videos"])?, list(&["masks"])?);
    let pair = |video: PathBuf| {
        let name = stem(&video);
        let own = |mask: &&PathBuf| {
            [name.clone(), format!("{name}_mask"), format!("{name}_masks")].contains(&stem(mask))
        };
        let masks = masks.iter().find(own).cloned();
        let masks = masks.with_context(|| format!("{}: no video of that name in masks", video.display()))?;
        Ok(Pair { name, video, masks })
    };
    videos.into_iter().map(pair).collect()
}

/// Decodes a lossless video of masks without converting a pixel.
fn each_mask(video: &Path, see: &mut dyn FnMut(DynamicImage) -> Result<()>) -> Result<()> {
    gst::init()?;
    let pipeline = gst::parse::launch(
        "filesrc name=in ! decodebin name=decoder ! appsink name=out sync=false max-buffers=2",
    )?;
    let pipeline = pipeline
        .downcast::<gst::Pipeline>()
        .map_err(|_| anyhow!("no pipeline"))?;
    pipeline
        .by_name("in")
        .context("filesrc")?
        .set_property("location", video);
    let sink = pipeline
        .by_name("out")
        .and_then(|e| e.downcast::<gst_app::AppSink>().ok())
        .context("appsink")?;
    let _stop = Stop(pipeline.clone());
    pipeline
        .set_state(gst::State::Playing)
        .with_context(|| video.display().to_string())?;
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    let mut checked = false;
    loop {
        let Some(sample) = sink.try_pull_sample(gst::ClockTime::from_mseconds(100)) else {
            if let Some(message) = bus.pop_filtered(&[gst::MessageType::Error])
                && let gst::MessageView::Error(error) = message.view()
            {
                return Err(anyhow!(describe(error)).context(video.display().to_string()));
            }
            if sink.is_eos() {
                return Ok(());
            }
            continue;
        };
        if !checked {
            lossless(&pipeline).with_context(|| video.display().to_string())?;
            checked = true;
        }
        let info = gst_video::VideoInfo::from_caps(sample.caps().context("a sample has caps")?)?;
        let buffer = sample.buffer().context("a sample has a buffer")?;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)?;
        see(picture(&frame).with_context(|| video.display().to_string())?)?;
    }
}

/// Fails where a video was compressed by a codec that changes pixels.
fn lossless(pipeline: &gst::Pipeline) -> Result<()> {
    for element in pipeline.iterate_recurse().into_iter().flatten() {
        let is_decoder = element.factory().is_some_and(|factory| {
            let class = factory.metadata("klass").unwrap_or_default();
            class.contains("Decoder") && (class.contains("Video") || class.contains("Image"))
        });
        let caps = element.static_pad("sink").and_then(|pad| pad.current_caps());
        if let (true, Some(caps)) = (is_decoder, caps) {
            let codec = caps.structure(0).map_or("", |s| s.name().as_str()).to_owned();
            if !LOSSLESS.contains(&codec.as_str()) {
                bail!("invalid codec {codec} of masks (expected FFV1 or PNG, which change no pixel)");
            }
        }
    }
    Ok(())
}

/// A decoded frame as it is: gray of 8 or 16 bits, or RGB.
fn picture(frame: &gst_video::VideoFrameRef<&gst::BufferRef>) -> Result<DynamicImage> {
    let format = frame.format_info();
    let (width, height) = (frame.width(), frame.height());
    let samples = |component: u32, bytes: usize| -> Result<Vec<u8>> {
        let (stride, step) = (frame.comp_stride(component), frame.comp_pstride(component));
        let (stride, step) = (usize::try_from(stride)?, usize::try_from(step)?);
        let data = frame.comp_data(component)?;
        let mut samples = Vec::with_capacity(width as usize * height as usize * bytes);
        for y in 0..height as usize {
            for x in 0..width as usize {
                let at = y * stride + x * step;
                samples.extend_from_slice(data.get(at..at + bytes).context("a frame that is cut short")?);
            }
        }
        Ok(samples)
    };
    let picture = match frame.format() {
        gst_video::VideoFormat::Gray8 => {
            image::GrayImage::from_raw(width, height, samples(0, 1)?).map(DynamicImage::from)
        }
        gst_video::VideoFormat::Gray16Le => {
            let bytes = samples(0, 2)?;
            let values = bytes
                .as_chunks()
                .0
                .iter()
                .map(|pair| u16::from_le_bytes(*pair))
                .collect();
            image::ImageBuffer::<image::Luma<u16>, _>::from_raw(width, height, values).map(DynamicImage::from)
        }
        _ if format.is_rgb() && format.depth().iter().all(|bits| *bits == 8) => {
            let (red, green, blue) = (samples(0, 1)?, samples(1, 1)?, samples(2, 1)?);
            let rgb = red
                .iter()
                .zip(&green)
                .zip(&blue)
                .flat_map(|((r, g), b)| [*r, *g, *b])
                .collect();
            image::RgbImage::from_raw(width, height, rgb).map(DynamicImage::from)
        }
        other => bail!("invalid format {other} of masks (expected gray or RGB; YUV has changed colors)"),
    };
    picture.context("a frame that is cut short")
}
