//! A sink for a muxer's output: each buffer reaches the kernel at once, the disk within a second.

use super::starts::{Origin, Starts};
use super::writer::Writer;
use anyhow::{Context, Result};
use gst::glib;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Longest time between two syncs; a sync may itself take as long.
const SYNC: Duration = Duration::from_millis(500);

/// Records what the element `mux` of `pipeline` writes into `file`, which lies at `path`.
///
/// # Errors
/// A pipeline without a muxer of that name, or one that refuses the sink.
pub(in crate::cli) fn attach(
    pipeline: &gst::Pipeline,
    file: File,
    path: PathBuf,
    origin: Origin,
) -> Result<()> {
    let mux = pipeline.by_name("mux").context("no element called mux")?;
    if origin == Origin::FirstSample && mux.has_property("offset-to-zero") {
        mux.set_property("offset-to-zero", true);
    }
    let sink: RecordingSink = glib::Object::builder().property("name", "sink").build();
    sink.set_sync(false);
    let writer = Writer::new(file, path, Starts::of(&mux, origin));
    *sink.imp().state() = Some(State::new(writer, sink.downgrade())?);
    pipeline.add(&sink)?;
    mux.link(&sink).context("the muxer refuses the recording's sink")
}

glib::wrapper! {
    /// Writes a recording.
    pub(super) struct RecordingSink(ObjectSubclass<Imp>)
        @extends gst_base::BaseSink, gst::Element, gst::Object;
}

/// An open file.
struct State {
    writer: Writer,
    /// Dropped with the state, which ends the thread that syncs.
    _syncing: Sender<()>,
    /// Nothing is written behind what could not be.
    failed: bool,
}

impl State {
    fn new(writer: Writer, sink: glib::WeakRef<RecordingSink>) -> Result<Self> {
        let (syncing, stop) = channel();
        let (file, dirty, path) = (writer.file(), writer.dirty.clone(), writer.path().to_owned());
        std::thread::Builder::new()
            .name("masam-sync".into())
            .spawn(move || {
                while stop.recv_timeout(SYNC) == Err(RecvTimeoutError::Timeout) {
                    if !dirty.swap(false, Ordering::Relaxed) {
                        continue;
                    }
                    if let Err(error) = file.sync_data()
                        && let Some(sink) = sink.upgrade()
                    {
                        post_write_error(sink.upcast_ref(), &path, &error.into());
                    }
                }
            })?;
        Ok(Self {
            writer,
            _syncing: syncing,
            failed: false,
        })
    }
}

/// The element's GObject side.
#[derive(Default)]
pub(super) struct Imp {
    state: Mutex<Option<State>>,
}

impl Imp {
    fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the file, once it has failed nothing any more.
    fn with_file(&self, work: impl FnOnce(&mut Writer) -> io::Result<()>) -> Result<(), gst::FlowError> {
        let mut state = self.state();
        let state = state.as_mut().filter(|state| !state.failed);
        let state = state.ok_or(gst::FlowError::Error)?;
        work(&mut state.writer).map_err(|error| {
            state.failed = true;
            post_write_error(self.obj().upcast_ref(), state.writer.path(), &error.into());
            gst::FlowError::Error
        })
    }
}

#[glib::object_subclass]
impl ObjectSubclass for Imp {
    const NAME: &'static str = "MasamRecordingSink";
    type Type = RecordingSink;
    type ParentType = gst_base::BaseSink;
}

impl ObjectImpl for Imp {}
impl GstObjectImpl for Imp {}

impl ElementImpl for Imp {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Recording sink",
                "Sink/File",
                "Writes a recording that stays playable",
                "masam",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            gst::PadTemplate::new(
                "sink",
                gst::PadDirection::Sink,
                gst::PadPresence::Always,
                &gst::Caps::new_any(),
            )
            .into_iter()
            .collect()
        });
        &TEMPLATES
    }
}

impl BaseSinkImpl for Imp {
    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let bytes = buffer.map_readable().map_err(|_| gst::FlowError::Error)?;
        self.with_file(|file| file.write(&bytes))?;
        Ok(gst::FlowSuccess::Ok)
    }

    fn event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(segment) => {
                if let Some(bytes) = segment.segment().downcast_ref::<gst::format::Bytes>()
                    && let Some(start) = bytes.start()
                    && let Some(state) = self.state().as_mut()
                {
                    state.writer.seek(*start);
                }
            }
            // Before the end is announced the file is on its disk. An error has been announced instead.
            gst::EventView::Eos(_) if self.with_file(|file| file.file().sync_all()).is_err() => return false,
            _ => {}
        }
        self.parent_event(event)
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Seeking(seeking) = query.view_mut()
            && seeking.format() == gst::Format::Bytes
        {
            seeking.set(true, gst::format::Bytes::ZERO, gst::format::Bytes::NONE);
            return true;
        }
        BaseSinkImplExt::parent_query(self, query)
    }
}

/// Posts an error of `element` that says why `path` could not be written: as `NoSpaceLeft`, with the name of the disk,
/// where the disk is full.
pub(in crate::cli) fn post_write_error(element: &gst::Element, path: &Path, error: &anyhow::Error) {
    let is_full = |cause: &(dyn std::error::Error + 'static)| {
        let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
        matches!(
            kind,
            Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        )
    };
    if error.chain().any(is_full) {
        let text = format!("{}: {}", path.display(), full(path));
        gst::element_error!(element, gst::ResourceError::NoSpaceLeft, ("{text}"));
    } else {
        let text = format!("{}: {error:#}", path.display());
        gst::element_error!(element, gst::ResourceError::Write, ("{text}"));
    }
}

/// Names the disk that `path` is on, by where it is mounted.
fn full(path: &Path) -> String {
    let device = |path: &Path| std::fs::metadata(path).ok().map(|there| there.dev());
    let own = device(path);
    let whole = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mounted = whole.ancestors().take_while(|above| device(above) == own).last();
    match mounted {
        Some(mounted) => format!("the disk at {} is full", mounted.display()),
        None => "the disk is full".into(),
    }
}
