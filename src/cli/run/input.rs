//! Where `masam run` reads from: a file, a folder of pictures, a camera, an address, or a GStreamer description.

use crate::data::picture;
use anyhow::{Context, Result, anyhow, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use std::path::{Path, PathBuf};

/// What the user's word means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// A video file.
    File(PathBuf),
    /// Pictures in the order of their names.
    Pictures(Vec<PathBuf>),
    /// A V4L2 device.
    Camera(PathBuf),
    /// rtsp://, http://, file:// and whatever else GStreamer knows.
    Address(String),
    /// Elements, as gst-launch-1.0 reads them.
    Description(String),
}

/// Name of the message that says why a folder of pictures ends early.
pub(super) const BROKEN: &str = "masam-broken-input";

impl Input {
    /// Tells what `word` means: what exists on disk first, then addresses, then descriptions.
    ///
    /// # Errors
    /// A folder without pictures, or a word that is nothing of this.
    pub(super) fn parse(word: &str) -> Result<Self> {
        let path = Path::new(word);
        if path.is_dir() {
            let pictures = picture::list(path)?.pictures;
            if pictures.is_empty() {
                bail!(
                    "{word}: no pictures ({}) in this folder",
                    picture::SUFFIXES.join(", ")
                );
            }
            return Ok(Self::Pictures(pictures));
        }
        if path.exists() {
            if word.starts_with("/dev/video") {
                return Ok(Self::Camera(path.to_owned()));
            }
            return Ok(match picture::is_picture(path) {
                true => Self::Pictures(vec![path.to_owned()]),
                false => Self::File(path.to_owned()),
            });
        }
        let first = word.split_whitespace().next().unwrap_or_default();
        if !first.contains(['/', '.']) && gst::ElementFactory::find(first).is_some() {
            return Ok(Self::Description(word.into()));
        }
        if word.contains("://") {
            return Ok(Self::Address(word.into()));
        }
        bail!("{word}: no such file, folder or device, and no GStreamer element of that name")
    }

    /// Whether frames come at their own pace and cannot be had again.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Camera(_)) || matches!(self, Self::Address(a) if a.starts_with("rtsp"))
    }

    /// The elements that read it, the last one unlinked.
    pub(super) fn elements(&self) -> String {
        match self {
            Self::File(_) => {
                "filesrc name=source ! decodebin ! videoconvert ! videoflip video-direction=auto".into()
            }
            Self::Pictures(_) => "appsrc name=source format=time block=true max-buffers=2".into(),
            Self::Camera(_) => "v4l2src name=source ! decodebin".into(),
            Self::Address(_) => {
                "uridecodebin name=source ! videoconvert ! videoflip video-direction=auto".into()
            }
            Self::Description(text) => text.clone(),
        }
    }

    /// Sets what the description leaves open, and starts the thread that decodes pictures.
    ///
    /// # Errors
    /// An element that is missing, or a rate that is no fraction.
    pub(super) fn connect(&self, pipeline: &gst::Pipeline, rate: gst::Fraction) -> Result<()> {
        let source = || pipeline.by_name("source").context("no element called source");
        match self {
            Self::File(path) => source()?.set_property("location", path),
            Self::Camera(path) => source()?.set_property("device", path.to_string_lossy().as_ref()),
            Self::Address(address) => {
                let source = source()?;
                source.set_property("uri", address);
                // The default of rtspsrc, two seconds, is meant for the open Internet.
                source.connect("source-setup", false, |values| {
                    let element = values.get(1)?.get::<gst::Element>().ok()?;
                    if element.factory().is_some_and(|f| f.name() == "rtspsrc") {
                        element.set_property("latency", 100u32);
                    }
                    None
                });
            }
            Self::Pictures(paths) => {
                let source = source()?
                    .downcast::<gst_app::AppSrc>()
                    .map_err(|_| anyhow!("no appsrc"))?;
                let paths = paths.clone();
                std::thread::Builder::new()
                    .name("masam-pictures".into())
                    .spawn(move || feed(&source, &paths, rate))?;
            }
            Self::Description(_) => {}
        }
        Ok(())
    }

    /// Number of frames, where it is known beforehand.
    pub(super) fn frames(&self) -> Option<u64> {
        match self {
            Self::Pictures(paths) => Some(paths.len() as u64),
            _ => None,
        }
    }

    /// The name that frame `index` gets in a folder of masks: its picture's, or a number.
    pub(super) fn frame_name(&self, index: usize) -> String {
        let own = match self {
            // Two pictures may differ in their suffix alone.
            Self::Pictures(paths) => paths.get(index).and_then(|path| {
                let stem = path.file_stem();
                let twins = paths.iter().filter(|other| other.file_stem() == stem).count();
                if twins > 1 { path.file_name() } else { stem }
            }),
            _ => None,
        };
        own.map_or_else(
            || format!("frame{index:06}"),
            |stem| stem.to_string_lossy().into_owned(),
        )
    }
}

/// Decodes pictures one after the other and hands them on; a picture that cannot be read ends the stream with an
/// error that names it.
fn feed(source: &gst_app::AppSrc, paths: &[PathBuf], rate: gst::Fraction) {
    let mut size = None;
    for (index, path) in paths.iter().enumerate() {
        match push_picture(source, path, index as u64, rate, &mut size) {
            Ok(true) => {}
            Ok(false) => return, // The pipeline is going down; the reason is on its bus.
            Err(error) => {
                // No error message, which would overtake the pictures that are still on their way.
                let broken = gst::Structure::builder(BROKEN)
                    .field("cause", format!("{error:#}"))
                    .build();
                let _ = source.post_message(gst::message::Application::new(broken)); // no bus: going down
                break;
            }
        }
    }
    // Refused only when the pipeline is going down.
    let _ = source.end_of_stream();
}

/// Pushes one picture; false when the pipeline takes no more.
fn push_picture(
    source: &gst_app::AppSrc,
    path: &Path,
    index: u64,
    rate: gst::Fraction,
    size: &mut Option<(u32, u32)>,
) -> Result<bool> {
    let picture = picture::read_rgb(path)?;
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, picture.width(), picture.height())
        .fps(rate)
        .build()?;
    if *size != Some(picture.dimensions()) {
        source.set_caps(Some(&info.to_caps()?));
        *size = Some(picture.dimensions());
    }
    let buffer = crate::cli::video::rgb_buffer(&info, picture.as_raw(), index, rate)?;
    Ok(source.push_buffer(buffer).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_mean_what_exists_first() {
        gst::init().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let word = |p: &Path| p.to_str().unwrap().to_owned();
        assert!(
            Input::parse(&word(folder.path()))
                .unwrap_err()
                .to_string()
                .contains("no pictures")
        );
        std::fs::write(folder.path().join("b10.png"), b"").unwrap();
        std::fs::write(folder.path().join("b9.PNG"), b"").unwrap();
        std::fs::write(folder.path().join("notes.txt"), b"").unwrap();
        let Input::Pictures(paths) = Input::parse(&word(folder.path())).unwrap() else {
            panic!("pictures")
        };
        assert_eq!(paths.len(), 2);
        assert!(paths[0].ends_with("b9.PNG"));
        let notes = folder.path().join("notes.txt");
        assert_eq!(Input::parse(&word(&notes)).unwrap(), Input::File(notes));
        assert!(Input::parse("rtsp://127.0.0.1/x").unwrap().is_live());
        assert!(matches!(
            Input::parse("fakesrc num-buffers=3 ! identity").unwrap(),
            Input::Description(_)
        ));
        let description = "uridecodebin uri=file:///a.mp4 ! identity";
        assert!(matches!(
            Input::parse(description).unwrap(),
            Input::Description(_)
        ));
        let twins = Input::Pictures(["a.png", "a.jpg", "b.png"].map(PathBuf::from).into());
        assert_eq!([0, 1, 2].map(|i| twins.frame_name(i)), ["a.png", "a.jpg", "b"]);
        assert!(Input::parse("absent.mp4").is_err());
    }
}
