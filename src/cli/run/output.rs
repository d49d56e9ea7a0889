//! Where `masam run` writes to: a video, a folder of masks, or a window.

use crate::cli::recording::{self, Origin, Place};
use crate::cli::video::{Encoding, encoder};
use anyhow::{Context, Result, anyhow, bail};
use clap::ValueEnum;
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use gstreamer_video::prelude::*;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a folder is filled with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Masks {
    /// Class ids, one channel.
    Classes,
    /// Class colours, three channels.
    Colour,
}

/// Where frames go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// A video with the overlay.
    Video(PathBuf),
    /// A folder of PNGs, one a frame.
    Folder(PathBuf, Masks),
    /// A window.
    Window,
}

impl Output {
    /// Tells what the user's path means: none is a window, a folder or a name without suffix is a folder of masks,
    /// anything else is a video.
    ///
    /// # Errors
    /// `--masks` for a video, or a folder that holds files already.
    pub(super) fn parse(path: Option<&Path>, masks: Option<Masks>) -> Result<Self> {
        let Some(path) = path else {
            if masks.is_some() {
                bail!("--masks needs a folder to write to: -o FOLDER");
            }
            return Ok(Self::Window);
        };
        if path == Path::new("-") {
            bail!("-o -: nothing is written to standard output (expected a file or a folder)");
        }
        let folder = path.is_dir() || path.extension().is_none() || path.to_string_lossy().ends_with('/');
        if !folder {
            if masks.is_some() {
                bail!("--masks fills a folder, {} is no folder", path.display());
            }
            if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
                bail!("{}: there is something that is no file", path.display());
            }
            return Ok(Self::Video(path.to_owned()));
        }
        if path.is_dir()
            && std::fs::read_dir(path)
                .with_context(|| path.display().to_string())?
                .next()
                .is_some()
        {
            bail!("{}: the folder is not empty", path.display());
        }
        Ok(Self::Folder(path.to_owned(), masks.unwrap_or(Masks::Classes)))
    }

    /// The elements behind `masaminfer`; `show` adds a window to a video. The window never holds up the recording: it
    /// leaves out frames for which it has no time.
    ///
    /// # Errors
    /// No encoder for the video's suffix, or nothing to show beside.
    pub(super) fn elements(&self, encoding: &Encoding, show: bool) -> Result<String> {
        if show && !matches!(self, Self::Video(_)) {
            bail!("--show needs a video to write beside the window: -o FILE.mp4");
        }
        if let Some(directfb) = gst::ElementFactory::find("dfbvideosink") {
            directfb.set_rank(gst::Rank::NONE); // without a screen its library ends the process
        }
        Ok(match self {
            Self::Video(path) => {
                let encoder = encoder(path, encoding)?;
                let branches = match show {
                    true => format!(
                        "tee name=shown shown. ! {encoder} \
                         shown. ! queue leaky=downstream max-size-buffers=2 max-size-bytes=0 max-size-time=0 \
                         ! videoconvert ! autovideosink name={WINDOW}"
                    ),
                    false => encoder,
                };
                format!("masamoverlay name=overlay ! {branches}")
            }
            Self::Folder(_, masks) => {
                let kind = if *masks == Masks::Classes {
                    "classes"
                } else {
                    "colour"
                };
                format!("masammask name=overlay output={kind} ! appsink name=sink sync=false max-buffers=2")
            }
            Self::Window => format!("masamoverlay name=overlay ! videoconvert ! autovideosink name={WINDOW}"),
        })
    }

    /// Sets what the description leaves open, and opens the file of a video, whose time begins at `origin`. `name_of`
    /// names the frames of a folder.
    ///
    /// # Errors
    /// An element that is missing, or a file or folder that cannot be made.
    pub(super) fn connect(
        &self,
        pipeline: &gst::Pipeline,
        origin: Origin,
        name_of: impl Fn(usize) -> String + Send + 'static,
    ) -> Result<Option<Place>> {
        match self {
            Self::Video(path) => {
                if let Some(folder) = path.parent() {
                    std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
                }
                let (place, file) = Place::open(path, |line| say!("masam: {line}"))?;
                recording::attach(pipeline, file, place.written().to_owned(), origin)?;
                return Ok(Some(place));
            }
            Self::Window => {}
            Self::Folder(folder, _) => {
                let sink = pipeline.by_name("sink").context("no element called sink")?;
                std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
                let sink = sink
                    .downcast::<gst_app::AppSink>()
                    .map_err(|_| anyhow!("no appsink"))?;
                let (folder, name_of) = (Arc::new(folder.clone()), name_of);
                let mut index = 0;
                let callbacks = gst_app::AppSinkCallbacks::builder()
                    .new_sample(move |sink| {
                        let path = folder.join(format!("{}.png", name_of(index)));
                        index += 1;
                        match sink
                            .pull_sample()
                            .map_err(anyhow::Error::from)
                            .and_then(|s| save(&s, &path))
                        {
                            Ok(()) => Ok(gst::FlowSuccess::Ok),
                            Err(error) => {
                                let _ = std::fs::remove_file(&path); // half a picture, or none
                                recording::post_write_error(sink.upcast_ref(), &path, &error);
                                Err(gst::FlowError::Error)
                            }
                        }
                    })
                    .build();
                sink.set_callbacks(callbacks);
            }
        }
        Ok(None)
    }

    /// Refuses a video that would take the place of what the pipeline reads.
    ///
    /// # Errors
    /// An element that reads the very file.
    pub(super) fn check_against(&self, pipeline: &gst::Pipeline) -> Result<()> {
        let Self::Video(path) = self else { return Ok(()) };
        let Ok(own) = std::fs::metadata(path) else {
            return Ok(());
        };
        for element in pipeline.iterate_recurse().into_iter().flatten() {
            let text = |name: &str| {
                let value = element
                    .find_property(name)
                    .map(|_| element.property_value(name))?;
                value.get::<Option<String>>().ok()?
            };
            let from_uri = text("uri").and_then(|uri| gst::glib::filename_from_uri(&uri).ok());
            let read = text("location")
                .map(PathBuf::from)
                .or(from_uri.map(|(path, _)| path));
            let same = |other: std::fs::Metadata| (other.dev(), other.ino()) == (own.dev(), own.ino());
            if read
                .and_then(|read| std::fs::metadata(read).ok())
                .is_some_and(same)
            {
                bail!("{}: input and output are the same file", path.display());
            }
        }
        Ok(())
    }

    /// Takes away the folder of a run without frames.
    pub(super) fn discard(&self) {
        if let Self::Folder(folder, _) = self {
            let _ = std::fs::remove_dir(folder); // one that holds something stays
        }
    }

    /// What sound and subtitles are missed in, where somebody would expect them.
    pub(super) fn container(&self) -> Option<String> {
        match self {
            Self::Video(path) => path.extension().map(|s| format!(".{}", s.to_string_lossy())),
            Self::Window => Some("a window".into()),
            Self::Folder(..) => None,
        }
    }

    /// The file, folder or window in words.
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Video(path) | Self::Folder(path, _) => path.display().to_string(),
            Self::Window => "window".into(),
        }
    }
}

/// Name of the window's element.
pub(super) const WINDOW: &str = "window";

/// Writes a mask as PNG: one channel for class ids, three for colours.
fn save(sample: &gst::Sample, path: &Path) -> Result<()> {
    let info = gst_video::VideoInfo::from_caps(sample.caps().context("a sample has caps")?)?;
    let buffer = sample.buffer().context("a sample has a buffer")?;
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(buffer, &info)?;
    let (channels, kind) = match info.format() {
        gst_video::VideoFormat::Gray8 => (1, image::ExtendedColorType::L8),
        gst_video::VideoFormat::Rgb => (3, image::ExtendedColorType::Rgb8),
        other => bail!("masks of format {other:?} cannot be written"),
    };
    let row = info.width() as usize * channels;
    let stride = usize::try_from(frame.plane_stride()[0])?;
    let mut bytes = Vec::with_capacity(row * info.height() as usize);
    for line in frame.plane_data(0)?.chunks(stride).take(info.height() as usize) {
        bytes.extend_from_slice(line.get(..row).context("a row is as long as its stride")?);
    }
    image::save_buffer(path, &bytes, info.width(), info.height(), kind)?;
    Ok(())
}
