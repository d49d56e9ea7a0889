//! The streams of a file: which video gets masks, and what becomes of sound, subtitles and further videos.
//!
//! ```text
//! source ! parsebin (streams) ! multiqueue (lines) ! decodebin (decoder) ! ...    the video
//!                                                  ! parser ! mux                 the others, as they are
//! ```
//! A stream that the muxer takes is copied into the output without being decoded; of each other one line is said.

use crate::cli::fit::note;
use anyhow::{Context, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Elements that split a file behind its source and decode one video of it.
///
/// One stream's queue grows as long as another's is empty, up to the bytes given: a muxer waits for the stream that is
/// behind, which may come late in the file.
pub(super) const SPLIT: &str = "parsebin name=streams \
     multiqueue name=lines max-size-buffers=5 max-size-bytes=268435456 max-size-time=0 \
     decodebin name=decoder ! videoconvert ! capsfilter name=formats ! videoflip video-direction=auto";

/// What is known of a file's streams while they are read.
#[derive(Debug, Default)]
pub(super) struct Streams {
    /// Where the last frame or sample of any stream ends, in the file's own time.
    found_nanos: AtomicU64,
    /// How long the container says that it is; 0 where it does not.
    declared_nanos: AtomicU64,
    /// The video came to its end by itself.
    ended: AtomicBool,
    /// The stream was ended behind the input, by a signal for example; its demuxer then ends, too.
    stopped: AtomicBool,
    waiting: Mutex<Vec<gst::Pad>>,
}

impl Streams {
    /// Links the streams of the file that `pipeline`'s element `streams` splits as soon as all are known.
    /// `shown` names what is written or shown, for what is said of streams that it cannot take; `None` where nobody
    /// expects them there.
    ///
    /// # Errors
    /// A pipeline without the elements of [`SPLIT`].
    pub(super) fn connect(pipeline: &gst::Pipeline, shown: Option<String>) -> Result<Arc<Self>> {
        let streams = Arc::new(Self::default());
        let splitter = pipeline.by_name("streams").context("no element streams")?;
        let decoder = pipeline.by_name("decoder").context("no element decoder")?;
        let formats = pipeline.by_name("formats").context("no element formats")?;
        prefer_420(&decoder, formats);
        container_color(&splitter, &decoder)?;
        let infer = pipeline
            .by_name("infer")
            .and_then(|infer| infer.static_pad("sink"));
        let noted = streams.clone();
        infer.context("no sink pad of infer")?.add_probe(
            gst::PadProbeType::EVENT_DOWNSTREAM,
            move |_, info| {
                if info.event().is_some_and(|e| e.type_() == gst::EventType::Eos) {
                    noted.stopped.store(true, Ordering::Relaxed);
                }
                gst::PadProbeReturn::Ok
            },
        );
        let (found, shown) = (streams.clone(), Arc::new(shown));
        let pipeline = pipeline.downgrade();
        splitter.connect_pad_added(move |splitter, pad| {
            found.watch(pad);
            found.pads().push(pad.clone());
            // parsebin adds all pads of a file before it lets anything through one of them.
            let (streams, shown) = (found.clone(), shown.clone());
            let (splitter, pipeline) = (splitter.downgrade(), pipeline.clone());
            let first =
                gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
            pad.add_probe(first, move |_, _| {
                let mut waiting = streams.pads();
                let pads = std::mem::take(&mut *waiting);
                if !pads.is_empty()
                    && let (Some(pipeline), Some(splitter)) = (pipeline.upgrade(), splitter.upgrade())
                    && let Err(error) = streams.link(&pipeline, pads, shown.as_deref())
                {
                    gst::element_error!(splitter, gst::StreamError::WrongType, ("{error:#}"));
                }
                gst::PadProbeReturn::Remove // only now, with the lock held: another stream waits for its link
            });
        });
        Ok(streams)
    }

    /// Says how much of the input is missing, where it came to its end by itself and before its declared one.
    /// No stream reaches that in a cut file; in a whole one the longest does.
    pub(super) fn cut(&self) -> Option<String> {
        if !self.ended.load(Ordering::Relaxed) {
            return None;
        }
        let [declared, found] =
            [&self.declared_nanos, &self.found_nanos].map(|nanos| nanos.load(Ordering::Relaxed));
        tracing::debug!(declared, found, "length of the input in nanoseconds");
        // Containers round, and leave out what the last frame lasts.
        let tolerance = (declared / 100).max(100_000_000);
        let seconds = |nanos: u64| nanos as f64 / 1e9;
        (found + tolerance < declared).then(|| {
            format!(
                "the file is cut: it declares {:.2} s, {:.2} s were found",
                seconds(declared),
                seconds(found)
            )
        })
    }

    fn pads(&self) -> std::sync::MutexGuard<'_, Vec<gst::Pad>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes where the stream of `pad` ends.
    fn watch(self: &Arc<Self>, pad: &gst::Pad) {
        let streams = self.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            if let Some(buffer) = info.buffer()
                && let Some(start) = buffer.pts().or(buffer.dts())
                && let Some(event) = pad.sticky_event::<gst::event::Segment>(0)
                && let Some(segment) = event.segment().downcast_ref::<gst::ClockTime>()
                && let Some(end) = segment.to_stream_time(start + buffer.duration().unwrap_or_default())
            {
                streams.found_nanos.fetch_max(end.nseconds(), Ordering::Relaxed);
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Links the video that gets masks to the decoder, and the others to the muxer.
    fn link(
        self: &Arc<Self>,
        pipeline: &gst::Pipeline,
        pads: Vec<gst::Pad>,
        shown: Option<&str>,
    ) -> Result<()> {
        let decoder = pipeline.by_name("decoder").context("no element decoder")?;
        let lines = pipeline.by_name("lines").context("no element lines")?;
        let videos: Vec<usize> = (0..pads.len()).filter(|&index| is_video(&pads[index])).collect();
        let chosen = videos
            .iter()
            .copied()
            .find(|&index| flags(&pads[index]).contains(gst::StreamFlags::SELECT))
            .or(videos.first().copied());
        let Some(chosen) = chosen else {
            let names: Vec<String> = pads.iter().map(name).collect();
            match names.is_empty() {
                true => anyhow::bail!("GStreamer finds no video in it"),
                false => anyhow::bail!("there is no video in it, only {}", names.join(", ")),
            }
        };
        if videos.len() > 1 {
            let place = videos.iter().position(|&index| index == chosen).unwrap_or(0) + 1;
            let why = match flags(&pads[chosen]).contains(gst::StreamFlags::SELECT) {
                true => "it is marked as the default",
                false => "it is the first",
            };
            note(
                &lines,
                &format!(
                    "{} videos: number {place}, {}, gets the masks: {why}",
                    videos.len(),
                    name(&pads[chosen])
                ),
            );
        }
        let through = |pad: &gst::Pad| -> Result<gst::Pad> {
            let sink = lines.request_pad_simple("sink_%u").context("no queue")?;
            pad.link(&sink).context("a stream cannot be queued")?;
            let number = sink.name().replace("sink", "src");
            lines.static_pad(&number).context("no end of a queue")
        };
        let mux = pipeline.by_name("mux");
        for (index, pad) in pads.iter().enumerate() {
            if index == chosen {
                let sink = decoder.static_pad("sink").context("no sink pad of the decoder")?;
                if sink.is_linked() {
                    continue; // a further part of a chained file, which its demuxer did not announce
                }
                let streams = self.clone();
                pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
                    let end = info.event().is_some_and(|e| e.type_() == gst::EventType::Eos);
                    if end && !streams.stopped.load(Ordering::Relaxed) {
                        streams.ended.store(true, Ordering::Relaxed);
                        if let Some(declared) = pad.query_duration::<gst::ClockTime>() {
                            streams
                                .declared_nanos
                                .store(declared.nseconds(), Ordering::Relaxed);
                        }
                    }
                    gst::PadProbeReturn::Ok
                });
                through(pad)?.link(&sink).context("the video cannot be decoded")?;
                continue;
            }
            let markup = is_markup(&caps(pad));
            let taken = match mux.as_ref().and_then(|mux| copy_way(mux, pad)) {
                Some((parser, template)) => {
                    let mux = mux.as_ref().context("no muxer")?;
                    if markup {
                        without_markup(pad); // in front of the queue, which asks the muxer what it accepts
                    }
                    let line = through(pad)?;
                    self.copy(pipeline, &line, parser, mux, &template)
                }
                None => Err(anyhow::anyhow!("it takes none of this kind")),
            };
            if let (Err(_), Some(shown)) = (&taken, shown) {
                let kept = gst::ElementFactory::find("matroskamux").is_some_and(|factory| {
                    !shown.ends_with(".mkv") && mux.is_some() && factory.can_sink_any_caps(&caps(pad))
                });
                let cure = if kept { "; .mkv keeps it" } else { "" };
                note(&lines, &format!("not kept in {shown}: {}{cure}", name(pad)));
            }
        }
        Ok(())
    }

    /// Copies a stream into the muxer.
    fn copy(
        self: &Arc<Self>,
        pipeline: &gst::Pipeline,
        from: &gst::Pad,
        parser: Option<gst::Element>,
        mux: &gst::Element,
        template: &gst::PadTemplate,
    ) -> Result<()> {
        let sink = mux
            .request_pad(template, None, None)
            .context("the muxer takes no more")?;
        // Matroska has no decoding times, and MP4 needs them.
        let timestamper = parser
            .as_ref()
            .and_then(gst::Element::factory)
            .and_then(|factory| {
                let name = factory.name().replace("parse", "timestamper");
                gst::ElementFactory::make(&name).build().ok()
            });
        let chain: Vec<gst::Element> = parser.into_iter().chain(timestamper).collect();
        let linked = || -> Result<()> {
            let mut last = from.clone();
            for element in &chain {
                pipeline.add(element)?;
                element.sync_state_with_parent()?;
                last.link(&element.static_pad("sink").context("a parser's sink")?)?;
                last = element.static_pad("src").context("a parser's source")?;
            }
            // The kinds fit; what a probe makes of the caps on their way is not to be seen here.
            last.link_full(&sink, gst::PadLinkCheck::HIERARCHY)?;
            Ok(())
        };
        if let Err(error) = linked() {
            mux.release_request_pad(&sink);
            for element in &chain {
                let _ = element.set_state(gst::State::Null); // it may be in no pipeline
                let _ = pipeline.remove(element);
            }
            return Err(error);
        }
        self.end_with_video(mux, &sink);
        Ok(())
    }

    /// Ends a copied stream where the video is ended before its own end, by a signal for example: a muxer waits for
    /// the end of every stream.
    fn end_with_video(self: &Arc<Self>, mux: &gst::Element, copied: &gst::Pad) {
        let over = Arc::new(AtomicBool::new(false));
        let cut = over.clone();
        copied.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            match cut.load(Ordering::Relaxed) {
                true => gst::PadProbeReturn::Drop,
                false => gst::PadProbeReturn::Ok,
            }
        });
        let Some(video) = mux.sink_pads().into_iter().find(|pad| pad != copied) else {
            return; // the video is linked before anything plays
        };
        let (streams, copied) = (self.clone(), copied.downgrade());
        video.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            let end = info.event().is_some_and(|e| e.type_() == gst::EventType::Eos);
            if end && !streams.ended.load(Ordering::Relaxed) && !over.swap(true, Ordering::Relaxed) {
                let copied = copied.clone();
                // Without waiting: the pad may be busy until the video's end has come through.
                let _ = std::thread::Builder::new()
                    .name("masam-end".into())
                    .spawn(move || copied.upgrade().map(|pad| pad.send_event(gst::event::Eos::new())));
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// Has YUV that our elements do not take converted to I420, which is what is encoded in the end: by itself
/// `videoconvert` takes 4:4:4 through RGB, which costs up to four levels.
fn prefer_420(decoder: &gst::Element, formats: gst::Element) {
    let formats = formats.downgrade();
    decoder.connect_pad_added(move |_, pad| {
        let formats = formats.clone();
        replace_caps(pad, move |caps| {
            let info = gstreamer_video::VideoInfo::from_caps(caps).ok()?;
            let mut wanted = gst::Caps::new_any();
            if info.is_yuv() && crate::gst::planes::pixel_format(info.format()).is_none() {
                wanted = gst::Caps::builder("video/x-raw").field("format", "I420").build();
            }
            formats.upgrade()?.set_property("caps", wanted);
            None
        });
    });
}

/// Lets the color that a decoder finds in the video itself go before the container's, which serves where the video
/// has none: qtdemux leaves out that a range is full.
fn container_color(splitter: &gst::Element, decoder: &gst::Element) -> Result<()> {
    const FIELD: &str = "colorimetry";
    let color: Arc<Mutex<Option<String>>> = Arc::default();
    let splitter = splitter.downcast_ref::<gst::Bin>().context("parsebin is a bin")?;
    let container = color.clone();
    splitter.connect_deep_element_added(move |_, _, element| {
        if element
            .factory()
            .is_none_or(|factory| factory.name() != "qtdemux")
        {
            return;
        }
        let container = container.clone();
        element.connect_pad_added(move |_, pad| {
            let container = container.clone();
            replace_caps(pad, move |caps| {
                let own = ["video/x-h264", "video/x-h265", "video/x-vp9", "video/x-av1"];
                let structure = caps.structure_mut(0)?;
                let color = structure.get::<String>(FIELD).ok()?;
                if !own.contains(&structure.name().as_str()) {
                    return None;
                }
                structure.remove_field(FIELD);
                *container.lock().unwrap_or_else(PoisonError::into_inner) = Some(color);
                Some(())
            });
        });
    });
    decoder.connect_pad_added(move |_, pad| {
        let color = color.clone();
        replace_caps(pad, move |caps| {
            let color = color.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
            let structure = caps.structure_mut(0)?;
            if structure.has_field(FIELD) {
                return None;
            }
            structure.set(FIELD, color);
            Some(())
        });
    });
    Ok(())
}

/// Changes the caps that pass a pad; `change` gives `None` where they stay.
fn replace_caps(pad: &gst::Pad, change: impl Fn(&mut gst::CapsRef) -> Option<()> + Send + Sync + 'static) {
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        let mut changed = match info.event().map(|event| event.view()) {
            Some(gst::EventView::Caps(event)) => event.caps_owned(),
            _ => return gst::PadProbeReturn::Ok,
        };
        if change(changed.make_mut()).is_some() {
            info.data = Some(gst::PadProbeData::Event(gst::event::Caps::new(&changed)));
        }
        gst::PadProbeReturn::Ok
    });
}

/// How a stream gets into the muxer: through which parser, and to which kind of pad. `None` where it does not.
fn copy_way(mux: &gst::Element, pad: &gst::Pad) -> Option<(Option<gst::Element>, gst::PadTemplate)> {
    let mut from = caps(pad);
    if is_markup(&from) {
        from = plain_text();
    }
    let structure = from.structure(0)?;
    let parser = parser_for(structure);
    let offered = match &parser {
        None => from.clone(),
        Some(parser) => {
            // The form may change in a parser, the codec does not.
            let mut codec = gst::Structure::new_empty(structure.name());
            for field in ["mpegversion", "layer"] {
                if let Ok(value) = structure.get::<i32>(field) {
                    codec.set(field, value);
                }
            }
            let codec: gst::Caps = std::iter::once(codec).collect();
            parser.pad_template("src")?.caps().intersect(&codec)
        }
    };
    let template = mux.pad_template_list().into_iter().find(|template| {
        template.direction() == gst::PadDirection::Sink
            && template.presence() == gst::PadPresence::Request
            && template.caps().can_intersect(&offered)
    })?;
    Some((parser, template))
}

/// Whether a stream is text in Pango's markup, as Matroska's subtitles come.
fn is_markup(caps: &gst::Caps) -> bool {
    caps.structure(0)
        .is_some_and(|s| s.name() == "text/x-raw" && s.get::<&str>("format") == Ok("pango-markup"))
}

fn plain_text() -> gst::Caps {
    gst::Caps::builder("text/x-raw").field("format", "utf8").build()
}

/// Turns markup on its way through a pad into the plain text that muxers take.
fn without_markup(pad: &gst::Pad) {
    replace_caps(pad, |caps| {
        let structure = caps.structure_mut(0)?;
        structure.set("format", "utf8");
        Some(())
    });
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        let plain = info.buffer().and_then(|buffer| {
            let map = buffer.map_readable().ok()?;
            let text = unmarked(std::str::from_utf8(&map).ok()?);
            let mut plain = gst::Buffer::from_slice(text.into_bytes());
            let times = gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::FLAGS;
            buffer.copy_into(plain.get_mut()?, times, ..).ok()?;
            Some(plain)
        });
        if let Some(plain) = plain {
            info.data = Some(gst::PadProbeData::Buffer(plain));
        }
        gst::PadProbeReturn::Ok
    });
}

/// Text without its tags, its entities resolved.
fn unmarked(markup: &str) -> String {
    let mut text = String::with_capacity(markup.len());
    let mut rest = markup;
    while let Some((before, tag)) = rest.split_once('<') {
        text.push_str(before);
        rest = tag.split_once('>').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    [
        ("&lt;", "<"),
        ("&gt;", ">"),
        ("&quot;", "\""),
        ("&apos;", "'"),
        ("&#39;", "'"),
        ("&amp;", "&"),
    ]
    .iter()
    .fold(text, |text, (entity, letter)| text.replace(entity, letter))
}

/// The parser that brings a stream into the form that a container wants, where it needs one.
fn parser_for(structure: &gst::StructureRef) -> Option<gst::Element> {
    let parser = match (structure.name().as_str(), structure.get::<i32>("mpegversion")) {
        ("video/x-h264", _) => "h264parse",
        ("video/x-h265", _) => "h265parse",
        ("video/x-av1", _) => "av1parse",
        ("video/mpeg", Ok(4)) => "mpeg4videoparse",
        ("video/mpeg", Ok(1 | 2)) => "mpegvideoparse",
        ("audio/mpeg", Ok(2 | 4)) => "aacparse",
        ("audio/mpeg", Ok(1)) => "mpegaudioparse",
        ("audio/x-ac3" | "audio/x-eac3", _) => "ac3parse",
        ("audio/x-dts", _) => "dcaparse",
        ("audio/x-flac", _) => "flacparse",
        ("audio/x-opus", _) => "opusparse",
        _ => return None,
    };
    gst::ElementFactory::make(parser).build().ok()
}

fn caps(pad: &gst::Pad) -> gst::Caps {
    pad.current_caps().unwrap_or_else(|| pad.query_caps(None))
}

fn is_video(pad: &gst::Pad) -> bool {
    let caps = caps(pad);
    let name = caps
        .structure(0)
        .map(|s| s.name().to_string())
        .unwrap_or_default();
    name.starts_with("video/") || name.starts_with("image/")
}

fn flags(pad: &gst::Pad) -> gst::StreamFlags {
    pad.stream()
        .map_or(gst::StreamFlags::empty(), |stream| stream.stream_flags())
}

/// A stream in words, such as "sound (MPEG-1 Layer 2)" or "video (H.264, 640x480)".
fn name(pad: &gst::Pad) -> String {
    let caps = caps(pad);
    let structure = caps.structure(0);
    let kind = structure.map(|s| s.name().to_string()).unwrap_or_default();
    let what = match kind.split('/').next().unwrap_or_default() {
        "video" | "image" => "video",
        "audio" => "sound",
        "text" | "subpicture" | "subtitle" => "subtitles",
        _ if kind.starts_with("application/x-ss") || kind.starts_with("application/x-ass") => "subtitles",
        _ => "data",
    };
    let codec = codec(structure);
    let side = |field| structure.and_then(|s| s.get::<i32>(field).ok());
    match (side("width"), side("height")) {
        (Some(width), Some(height)) => format!("{what} ({codec}, {width}x{height})"),
        _ => format!("{what} ({codec})"),
    }
}

/// A codec as people call it, or its media type.
fn codec(structure: Option<&gst::StructureRef>) -> String {
    let Some(structure) = structure else {
        return "unknown".into();
    };
    let number = |field| structure.get::<i32>(field).ok();
    let known = match (structure.name().as_str(), number("mpegversion"), number("layer")) {
        ("video/x-h264", ..) => "H.264",
        ("video/x-h265", ..) => "H.265",
        ("video/mpeg", Some(1 | 2), _) => "MPEG-2",
        ("video/mpeg", ..) => "MPEG-4",
        ("audio/mpeg", Some(2 | 4), _) => "AAC",
        ("audio/mpeg", _, Some(3)) => "MP3",
        ("audio/mpeg", ..) => "MP2",
        ("audio/x-raw", ..) => "PCM",
        ("text/x-raw", ..) => "text",
        (other, ..) => other.split_once("/x-").map_or(other, |(_, name)| name),
    };
    known.to_owned()
}

#[cfg(test)]
mod tests {
    use super::unmarked;

    #[test]
    fn markup_becomes_text() {
        assert_eq!(unmarked("plain"), "plain");
        assert_eq!(unmarked("<i>a &lt; b</i> &amp;amp; c"), "a < b &amp; c");
        assert_eq!(unmarked("unclosed <i"), "unclosed ");
    }
}
