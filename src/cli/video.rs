//! Video files in and out, through GStreamer.

use super::recording::{self, Origin, Place};
use anyhow::{Context, Result, anyhow, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use std::path::Path;
use std::time::{Duration, Instant};

/// How a video is encoded.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Encoding {
    /// Quality of the video that is written, 0 (smallest file) to 100 (nearly lossless). H.264 gets the quantizer
    /// 50 - QUALITY/2, VP8 63 - 0.63 QUALITY.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u8).range(0..=100))]
    pub(super) quality: u8,
    /// x264's preset: the slower, the smaller the file at the same quality. Other encoders have one speed.
    #[arg(long, value_enum, default_value_t = EncoderSpeed::Veryfast)]
    pub(super) encoder_speed: EncoderSpeed,
}

impl Default for Encoding {
    fn default() -> Self {
        Self {
            quality: 60,
            encoder_speed: EncoderSpeed::Veryfast,
        }
    }
}

/// Names of x264's presets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum EncoderSpeed {
    Ultrafast,
    Superfast,
    Veryfast,
    Faster,
    Fast,
    Medium,
    Slow,
    Slower,
    Veryslow,
}

impl Encoding {
    /// The encoder called `element`. None of them holds frames back: what has reached it reaches the file.
    fn element(&self, element: &str) -> String {
        let quality = u32::from(self.quality);
        // Zero would be lossless, in a profile that few players know.
        let quantizer = (50 - quality / 2).max(1);
        match element {
            "x264enc" => format!(
                "x264enc tune=zerolatency speed-preset={} pass=quant quantizer={quantizer}",
                clap::ValueEnum::to_possible_value(&self.encoder_speed)
                    .map_or_else(String::new, |speed| speed.get_name().to_owned())
            ),
            "openh264enc" => {
                format!("openh264enc rate-control=buffer qp-min={quantizer} qp-max={quantizer} ! h264parse")
            }
            _ => {
                let quantizer = 63 - quality * 63 / 100;
                format!(
                    "vp8enc deadline=1 min-quantizer={quantizer} max-quantizer={quantizer} \
                     target-bitrate={VP8_BITRATE}"
                )
            }
        }
    }
}

/// More than VP8 needs at any quantizer, which alone decides.
const VP8_BITRATE: u32 = 500_000_000;

/// Element descriptions that encode and mux, for the suffix of `path`; the first whose encoder is installed. The muxer
/// is called `mux`; [`recording::attach`] adds the sink behind it.
///
/// # Errors
/// A suffix we do not write, or no encoder, with the cure.
pub(super) fn encoder(path: &Path, encoding: &Encoding) -> Result<String> {
    let suffix = path
        .extension()
        .map(|s| s.to_string_lossy().to_ascii_lowercase())
        .unwrap_or_default();
    // What is written can be played without its end: fragments of MP4, clusters of Matroska.
    let mp4 = "mp4mux name=mux fragment-duration=500 fragment-mode=first-moov-then-finalise";
    let (muxer, codecs): (&str, &[&str]) = match suffix.as_str() {
        "mp4" | "mov" | "m4v" => (mp4, &["x264enc", "openh264enc"]),
        "mkv" => ("matroskamux name=mux", &["x264enc", "openh264enc", "vp8enc"]),
        "webm" => ("webmmux name=mux", &["vp8enc"]),
        _ => bail!(
            "{}: a video's name ends in .mp4, .mov, .m4v, .mkv or .webm",
            path.display()
        ),
    };
    let installed = |name: &str| gst::ElementFactory::find(name).is_some();
    let codec = codecs.iter().find(|name| installed(name)).with_context(|| {
        format!(
            "no encoder for .{suffix}: install the GStreamer plugin with {} (Debian: gstreamer1.0-plugins-ugly)",
            codecs.join(" or ")
        )
    })?;
    let name = muxer.split(' ').next().unwrap_or(muxer);
    if !installed(name) {
        bail!("no {name}: install GStreamer's good plugins (Debian: gstreamer1.0-plugins-good)");
    }
    let fit = match suffix.as_str() {
        "webm" => "masamfit bt601=true", // VP8 has no color description
        _ => "masamfit",
    };
    super::fit::register()?;
    Ok(format!("{fit} ! {} ! {muxer}", encoding.element(codec)))
}

/// Writes frames, `[height, width, 3]` RGB each, as a video of `rate` frames a second.
///
/// # Errors
/// No encoder, a frame of another size, or a file that cannot be written.
pub(super) fn write(
    path: &Path,
    size: crate::geometry::Size,
    rate: (u32, u32),
    frames: impl Iterator<Item = Vec<u8>>,
) -> Result<()> {
    gst::init()?;
    let rate = gst::Fraction::new(i32::try_from(rate.0)?, i32::try_from(rate.1)?);
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, size.width_px, size.height_px)
        .fps(rate)
        .build()?;
    let tail = encoder(path, &Encoding::default())?;
    let pipeline = gst::parse::launch(&format!(
        "appsrc name=in format=time block=true max-buffers=4 ! {tail}"
    ))?;
    let pipeline = pipeline
        .downcast::<gst::Pipeline>()
        .map_err(|_| anyhow!("no pipeline"))?;
    let source = pipeline
        .by_name("in")
        .and_then(|e| e.downcast::<gst_app::AppSrc>().ok())
        .context("appsrc")?;
    source.set_caps(Some(&info.to_caps()?));
    let say = |line: &str| say!("masam: {line}");
    let (place, file) = Place::open(path, say)?;
    recording::attach(&pipeline, file, place.written().to_owned(), Origin::Zero)?;
    let stop = Stop(pipeline.clone());
    pipeline
        .set_state(gst::State::Playing)
        .with_context(|| path.display().to_string())?;
    for (index, rgb) in frames.enumerate() {
        let index = index as u64;
        let buffer = rgb_buffer(&info, &rgb, frame_time(index, rate), frame_time(index + 1, rate))?;
        if source.push_buffer(buffer).is_err() {
            break; // The reason is on the bus.
        }
    }
    // The same: an error that makes this fail is on the bus.
    let _ = source.end_of_stream();
    let outcome = wait(&pipeline).with_context(|| path.display().to_string());
    drop(stop);
    let complete = match &outcome {
        Ok(()) => recording::Outcome::Complete,
        Err(_) => recording::Outcome::CutShort,
    };
    place.settle(complete, say)?;
    outcome
}

/// Presentation time of frame `index`.
pub(super) fn frame_time(index: u64, rate: gst::Fraction) -> gst::ClockTime {
    let (numerator, denominator) = (rate.numer().max(1) as u64, rate.denom().max(1) as u64);
    gst::ClockTime::SECOND
        .mul_div_floor(index * denominator, numerator)
        .unwrap_or(gst::ClockTime::ZERO)
}

/// A frame in the layout of `info`, shown from `start` to `end`, from tight rows.
///
/// # Errors
/// Too few or too many bytes, or no memory.
pub(super) fn rgb_buffer(
    info: &gst_video::VideoInfo,
    rgb: &[u8],
    start: gst::ClockTime,
    end: gst::ClockTime,
) -> Result<gst::Buffer> {
    let row = info.width() as usize * 3;
    if rgb.len() != row * info.height() as usize {
        bail!(
            "a frame has {} bytes, {} were expected",
            rgb.len(),
            row * info.height() as usize
        );
    }
    let mut buffer = gst::Buffer::with_size(info.size())?;
    {
        let buffer = buffer.get_mut().context("a new buffer is writable")?;
        buffer.set_pts(start);
        buffer.set_duration(end.saturating_sub(start));
        let mut map = buffer.map_writable()?;
        let stride = usize::try_from(info.stride()[0])?;
        for (target, source) in map.chunks_mut(stride).zip(rgb.chunks_exact(row)) {
            target
                .get_mut(..row)
                .context("a row is as long as its stride")?
                .copy_from_slice(source);
        }
    }
    Ok(buffer)
}

/// Takes the pipeline down whatever happens.
pub(super) struct Stop(pub(super) gst::Pipeline);

impl Drop for Stop {
    fn drop(&mut self) {
        // A pipeline that cannot be stopped cannot be helped either.
        let _ = self.0.set_state(gst::State::Null);
    }
}

/// Waits for the end of the stream.
///
/// # Errors
/// The first error on the bus.
fn wait(pipeline: &gst::Pipeline) -> Result<()> {
    let bus = pipeline.bus().context("a pipeline has a bus")?;
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::Eos(_) => return Ok(()),
            gst::MessageView::Error(error) => return Err(anyhow!(describe(error))),
            _ => {}
        }
    }
    bail!("the bus was shut")
}

/// An error message with the element it came from and its detail; the place in the source, which GStreamer puts on
/// the detail's first line, is left out.
pub(super) fn describe(error: &gst::message::Error) -> String {
    in_words(error.src(), &error.error(), error.debug())
}

/// The same for a warning.
pub(super) fn describe_warning(warning: &gst::message::Warning) -> String {
    in_words(warning.src(), &warning.error(), warning.debug())
}

fn in_words(
    from: Option<&gst::Object>,
    error: &gst::glib::Error,
    debug: Option<gst::glib::GString>,
) -> String {
    let from = from.map(|s| s.name().to_string()).unwrap_or_default();
    let detail = debug
        .map(|d| d.lines().skip(1).collect::<Vec<_>>().join(" "))
        .unwrap_or_default();
    let detail = if detail.is_empty() {
        detail
    } else {
        format!(" ({detail})")
    };
    format!("{from}: {error}{detail}")
}

/// Some frames of a video, evenly spaced, as a picture of `columns` columns, each frame `width_px` wide.
///
/// # Errors
/// A video that cannot be read or has no frames, or a picture that cannot be written.
pub(super) fn contact_sheet(
    video: &Path,
    picture: &Path,
    columns: u32,
    rows: u32,
    width_px: u32,
) -> Result<()> {
    let mut kept: Vec<image::RgbImage> = Vec::new();
    // Keeps every `step`-th frame and doubles the step when there are twice as many as needed.
    let (mut step, mut index, wanted) = (1usize, 0usize, (columns * rows) as usize);
    each_frame(video, &mut |frame| {
        if index.is_multiple_of(step) {
            let height =
                (u64::from(frame.height()) * u64::from(width_px) / u64::from(frame.width().max(1))).max(1);
            let small = image::imageops::thumbnail(frame, width_px, height as u32);
            kept.push(small);
            if kept.len() >= 2 * wanted {
                let mut keep = false;
                kept.retain(|_| {
                    keep = !keep;
                    keep
                });
                step *= 2;
            }
        }
        index += 1;
        true
    })?;
    let first = kept
        .first()
        .with_context(|| format!("{}: no frames", video.display()))?;
    let (width, height) = first.dimensions();
    let mut sheet = image::RgbImage::new(columns * width, rows * height);
    let shown = wanted.min(kept.len());
    for cell in 0..shown {
        let frame = &kept[cell * (kept.len() - 1) / shown.saturating_sub(1).max(1)];
        let (x, y) = (cell as u32 % columns * width, cell as u32 / columns * height);
        image::imageops::replace(&mut sheet, frame, i64::from(x), i64::from(y));
    }
    sheet.save(picture).with_context(|| picture.display().to_string())
}

/// Whether at least one frame of a video can be decoded.
pub(super) fn is_playable(video: &Path) -> bool {
    let mut frames = 0;
    // Why it is not is of no interest here.
    let _ = each_frame(video, &mut |_| {
        frames += 1;
        false
    });
    frames > 0
}

/// Whether the elements of `reader` have stopped reading: they have streaming tasks, and all of them pause.
///
/// A source pauses its task at its end and on an error, and says which on the bus. decodebin however swallows what
/// an element says while it is being plugged in, and a broken file's demuxer may fail within that time.
pub(super) fn has_stopped(reader: &[gst::Element]) -> bool {
    let mut paused = 0;
    for element in reader {
        let inner = element
            .downcast_ref::<gst::Bin>()
            .map(|bin| bin.iterate_recurse().into_iter().flatten().collect())
            .unwrap_or_else(|| vec![element.clone()]);
        for pad in inner.iter().flat_map(|element| element.pads()) {
            match pad.task_state() {
                gst::TaskState::Started => return false,
                gst::TaskState::Paused => paused += 1,
                _ => {}
            }
        }
    }
    paused > 0
}

/// Longest wait for an error or an end to be announced after an input has stopped without a frame.
pub(super) const SILENCE: Duration = Duration::from_secs(2);

/// Decodes a video and shows frames to `see` until it has seen enough and says false.
pub(super) fn each_frame(video: &Path, see: &mut dyn FnMut(&image::RgbImage) -> bool) -> Result<()> {
    gst::init()?;
    let pipeline = gst::parse::launch(
        "filesrc name=in ! decodebin name=decoder ! videoconvert ! video/x-raw,format=RGB ! appsink name=out sync=false max-buffers=2",
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
    let reader: Vec<gst::Element> = pipeline.by_name("decoder").into_iter().collect();
    let (mut seen, mut last) = (false, Instant::now());
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
            if !seen && has_stopped(&reader) && last.elapsed() >= SILENCE {
                bail!("{}: GStreamer finds no video in it", video.display());
            }
            continue;
        };
        (seen, last) = (true, Instant::now());
        let info = gst_video::VideoInfo::from_caps(sample.caps().context("a sample has caps")?)?;
        let buffer = sample.buffer().context("a sample has a buffer")?;
        let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)?;
        let row = info.width() as usize * 3;
        let stride = usize::try_from(frame.plane_stride()[0])?;
        let mut rgb = Vec::with_capacity(row * info.height() as usize);
        for line in frame.plane_data(0)?.chunks(stride).take(info.height() as usize) {
            rgb.extend_from_slice(line.get(..row).context("a row is as long as its stride")?);
        }
        let picture = image::RgbImage::from_raw(info.width(), info.height(), rgb).context("a whole frame")?;
        if !see(&picture) {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_at_its_end_has_stopped() {
        gst::init().unwrap();
        let play = |description: &str| {
            let bin = gst::parse::bin_from_description(description, false).unwrap();
            let pipeline = gst::Pipeline::new();
            pipeline.add(&bin).unwrap();
            pipeline.set_state(gst::State::Playing).unwrap();
            (pipeline, bin)
        };
        let (endless, bin) = play("fakesrc ! fakesink");
        endless.state(gst::ClockTime::from_seconds(10)).0.unwrap();
        assert!(!has_stopped(&[bin.clone().upcast()]));
        endless.set_state(gst::State::Null).unwrap();
        assert!(
            !has_stopped(&[bin.clone().upcast()]),
            "nothing that could have stopped"
        );
        let (ended, bin) = play("fakesrc num-buffers=3 ! fakesink");
        let bus = ended.bus().unwrap();
        bus.timed_pop_filtered(gst::ClockTime::from_seconds(10), &[gst::MessageType::Eos])
            .unwrap();
        // The task pauses right after it has sent the end.
        let patience = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while !has_stopped(&[bin.clone().upcast()]) && std::time::Instant::now() < patience {
            std::thread::yield_now();
        }
        assert!(has_stopped(&[bin.clone().upcast()]));
        ended.set_state(gst::State::Null).unwrap();
    }
}
