//! Where `masam run` reads from: a file, a folder of pictures, a camera, an address, or a GStreamer description.

use super::content::{self, Content};
use super::streams::SPLIT;
use crate::cli::fit::note;
use crate::data::picture;
use anyhow::{Context, Result, bail};
use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use std::io::{IsTerminal, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

/// What the user's word means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// A video file.
    File(PathBuf),
    /// A named pipe, or standard input where it is one: read once, from front to back.
    Pipe(PathBuf),
    /// Pictures in the order of their names.
    Pictures(Vec<PathBuf>),
    /// One file of pictures with their times, such as GIF.
    Animation(PathBuf),
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
    /// Tells what `word` means: `-` is standard input, then comes what exists on disk, then addresses and descriptions.
    ///
    /// # Errors
    /// A folder without pictures, a file that holds no video, or a word that is nothing of this.
    pub(super) fn parse(word: &str) -> Result<Self> {
        if word == "-" {
            if std::io::stdin().is_terminal() {
                bail!(
                    "- is standard input, and that is a terminal (expected a pipe or a file: masam run - < FILE)"
                );
            }
            return Self::of_path(Path::new(STDIN), "standard input");
        }
        let local = gst::glib::filename_from_uri(word).map(|(path, _)| path);
        let path = local.as_deref().unwrap_or(Path::new(word));
        if path.exists() {
            return Self::of_path(path, word);
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

    /// Tells what a path that exists leads to; `word` is what the user called it.
    fn of_path(path: &Path, word: &str) -> Result<Self> {
        if path.is_dir() {
            let pictures = picture::list(path)?.pictures;
            if pictures.is_empty() {
                bail!(
                    "{word}: no pictures ({}) in this folder{}",
                    picture::SUFFIXES.join(", "),
                    others_in(path)
                );
            }
            return Ok(Self::Pictures(pictures));
        }
        let kind = std::fs::metadata(path)
            .with_context(|| word.to_owned())?
            .file_type();
        if kind.is_char_device() || kind.is_block_device() {
            return Ok(Self::Camera(path.to_owned()));
        }
        if !kind.is_file() {
            return Ok(Self::Pipe(path.to_owned()));
        }
        let file = std::fs::File::open(path).with_context(|| word.to_owned())?;
        let head = content::head_of(file).with_context(|| word.to_owned())?;
        // A file of JPEGs one after the other looks like a picture.
        let motion = path
            .extension()
            .is_some_and(|s| s.to_string_lossy().to_ascii_lowercase().starts_with("mjp"));
        match content::recognize(&head) {
            Content::Foreign(what) => bail!("{word}: {what}"),
            Content::Picture if !motion => Ok(Self::Pictures(vec![path.to_owned()])),
            Content::Animation => Ok(Self::Animation(path.to_owned())),
            _ => Ok(Self::File(path.to_owned())),
        }
    }

    /// Whether the streams of a container are split by [`SPLIT`].
    pub(super) fn is_split(&self) -> bool {
        matches!(self, Self::File(_) | Self::Pipe(_))
    }

    /// The file that is read from front to back, where it is one.
    pub(super) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            _ => None,
        }
    }

    /// Whether frames come at their own pace and cannot be had again.
    pub(super) fn is_live(&self) -> bool {
        matches!(self, Self::Camera(_)) || matches!(self, Self::Address(a) if a.starts_with("rtsp"))
    }

    /// The elements that read it, the last one unlinked.
    pub(super) fn elements(&self) -> String {
        match self {
            Self::File(_) => format!("filesrc name=source ! {SPLIT}"),
            Self::Pipe(_) => {
                format!("appsrc name=source format=bytes block=true max-bytes=4194304 ! {SPLIT}")
            }
            Self::Pictures(_) | Self::Animation(_) => {
                "appsrc name=source format=time block=true max-buffers=2".into()
            }
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
            Self::Pipe(path) => {
                let (source, path) = (app_source(pipeline)?, path.clone());
                std::thread::Builder::new()
                    .name("masam-pipe".into())
                    .spawn(move || pump(&source, &path))?;
            }
            Self::Camera(path) => source()?.set_property("device", path.to_string_lossy().as_ref()),
            Self::Address(address) => {
                let source = source()?;
                source.set_property("uri", address);
                source.connect_pad_added(|source, pad| {
                    let kind = pad
                        .current_caps()
                        .and_then(|c| Some(c.structure(0)?.name().to_string()));
                    if let Some(kind) = kind.filter(|kind| !kind.starts_with("video/")) {
                        note(
                            source,
                            &format!("not kept from an address: {kind}; only files keep it"),
                        );
                    }
                });
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
                let (source, paths) = (app_source(pipeline)?, paths.clone());
                std::thread::Builder::new()
                    .name("masam-pictures".into())
                    .spawn(move || feed(&source, |feeder| feeder.pictures(&paths, rate)))?;
            }
            Self::Animation(path) => {
                let (source, path) = (app_source(pipeline)?, path.clone());
                std::thread::Builder::new()
                    .name("masam-pictures".into())
                    .spawn(move || feed(&source, |feeder| feeder.animation(&path)))?;
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

/// Standard input as a file.
const STDIN: &str = "/dev/stdin";

/// What a folder without pictures holds instead, for a message.
fn others_in(folder: &Path) -> String {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    let Some(first) = files.first() else {
        return String::new();
    };
    let name = first.file_name().unwrap_or_default().to_string_lossy();
    let what = match std::fs::File::open(first)
        .and_then(content::head_of)
        .map(|head| content::recognize(&head))
    {
        Ok(Content::Foreign(what)) => format!(": {what}"),
        _ => String::new(),
    };
    format!(", but {} other files, the first {name}{what}", files.len())
}

fn app_source(pipeline: &gst::Pipeline) -> Result<gst_app::AppSrc> {
    pipeline
        .by_name("source")
        .and_then(|source| source.downcast::<gst_app::AppSrc>().ok())
        .context("no appsrc called source")
}

/// Hands on what comes out of a pipe, until it is shut.
fn pump(source: &gst_app::AppSrc, path: &Path) {
    let pumped = || -> Result<()> {
        let mut pipe = std::fs::File::open(path)?;
        let head = content::head_of(&mut pipe)?;
        match content::recognize(&head) {
            Content::Foreign(what) => bail!("{what}"),
            Content::Picture | Content::Animation => bail!("a picture on a pipe is not read; give its file"),
            Content::Stream => {}
        }
        let mut block = head;
        loop {
            if block.is_empty() || source.push_buffer(gst::Buffer::from_mut_slice(block)).is_err() {
                return Ok(()); // Refused only when the pipeline is going down.
            }
            block = vec![0; 1 << 16];
            let read = pipe.read(&mut block)?;
            block.truncate(read);
        }
    };
    if let Err(error) = pumped() {
        gst::element_error!(source, gst::StreamError::WrongType, ("{error:#}"));
    }
    // The same.
    let _ = source.end_of_stream();
}

/// Pushes pictures until there are no more; one that cannot be read ends the stream with an error that names it.
fn feed(source: &gst_app::AppSrc, pictures: impl FnOnce(&mut Feeder) -> Result<()>) {
    let mut feeder = Feeder { source, info: None };
    if let Err(error) = pictures(&mut feeder) {
        // No error message, which would overtake the pictures that are still on their way.
        let broken = gst::Structure::builder(BROKEN)
            .field("cause", format!("{error:#}"))
            .build();
        let _ = source.post_message(gst::message::Application::new(broken)); // no bus: going down
    }
    // Refused only when the pipeline is going down.
    let _ = source.end_of_stream();
}

/// Pushes decoded pictures into a pipeline.
struct Feeder<'a> {
    source: &'a gst_app::AppSrc,
    /// Of the picture before.
    info: Option<gst_video::VideoInfo>,
}

impl Feeder<'_> {
    /// Pictures at a rate.
    fn pictures(&mut self, paths: &[PathBuf], rate: gst::Fraction) -> Result<()> {
        let time = |index| crate::cli::video::frame_time(index, rate);
        for (path, index) in paths.iter().zip(0u64..) {
            let picture = picture::read_upright(path)?;
            if !self.push(&picture, rate, time(index), time(index + 1))? {
                break;
            }
        }
        Ok(())
    }

    /// The pictures of one file, each as long as the file says.
    fn animation(&mut self, path: &Path) -> Result<()> {
        use image::codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder};
        use image::{AnimationDecoder, ImageDecoder};
        let name = || path.display().to_string();
        let file = || std::fs::File::open(path).map(std::io::BufReader::new);
        let format = image::guess_format(&content::head_of(file()?)?).with_context(name)?;
        let size = picture::size(path)?; // refuses what would not fit into memory
        let mut limits = image::Limits::default();
        limits.max_alloc = Some(picture::MAX_DECODED_BYTES);
        limits.max_image_width = Some(size.width_px);
        limits.max_image_height = Some(size.height_px);
        let frames = match format {
            image::ImageFormat::WebP => WebPDecoder::new(file()?).with_context(name)?.into_frames(),
            image::ImageFormat::Png => PngDecoder::with_limits(file()?, limits)
                .and_then(PngDecoder::apng)
                .with_context(name)?
                .into_frames(),
            _ => {
                let mut decoder = GifDecoder::new(file()?).with_context(name)?;
                decoder.set_limits(limits).with_context(name)?;
                decoder.into_frames()
            }
        };
        let (mut start, mut rate) = (gst::ClockTime::ZERO, None);
        for frame in frames {
            let frame = frame.with_context(name)?;
            let (numerator, denominator) = frame.delay().numer_denom_ms();
            // Browsers show a frame of no length for a tenth of a second.
            let (millis, part) = if numerator == 0 {
                (100, 1)
            } else {
                (numerator, denominator.max(1))
            };
            let nanos = u64::from(millis) * 1_000_000 / u64::from(part);
            let end = start + gst::ClockTime::from_nseconds(nanos);
            let rate = *rate.get_or_insert_with(|| {
                let (n, d) = (1000 * u64::from(part), u64::from(millis));
                gst::Fraction::new(i32::try_from(n).unwrap_or(25), i32::try_from(d).unwrap_or(1))
            });
            let picture = image::DynamicImage::from(frame.into_buffer()).into_rgb8();
            if !self.push(&picture, rate, start, end)? {
                break;
            }
            start = end;
        }
        Ok(())
    }

    /// Pushes one picture; false when the pipeline takes no more.
    fn push(
        &mut self,
        picture: &image::RgbImage,
        rate: gst::Fraction,
        start: gst::ClockTime,
        end: gst::ClockTime,
    ) -> Result<bool> {
        let same = |info: &gst_video::VideoInfo| (info.width(), info.height()) == picture.dimensions();
        let info = match self.info.take().filter(same) {
            Some(info) => info,
            None => {
                let (format, (width, height)) = (gst_video::VideoFormat::Rgb, picture.dimensions());
                let info = gst_video::VideoInfo::builder(format, width, height)
                    .fps(rate)
                    .build()?;
                self.source.set_caps(Some(&info.to_caps()?));
                info
            }
        };
        let buffer = crate::cli::video::rgb_buffer(&info, picture.as_raw(), start, end)?;
        self.info = Some(info);
        Ok(self.source.push_buffer(buffer).is_ok())
    }
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
        std::fs::write(&notes, b"a line\n").unwrap();
        assert!(
            Input::parse(&word(&notes))
                .unwrap_err()
                .to_string()
                .contains("a line")
        );
        let video = folder.path().join("video");
        std::fs::write(&video, b"\0\0\0\x20ftypisom").unwrap();
        assert_eq!(Input::parse(&word(&video)).unwrap(), Input::File(video));
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
