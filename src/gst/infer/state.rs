//! What exists only while the element is started, PAUSED and above.

use super::attach::{Tag, trouble};
use super::held::{Held, held_for};
use super::picture::Format;
use super::pool::PoolWatch;
use super::session::Session;
use super::settings::Settings;
use crate::error::Result;
use crate::geometry::{ModelSquare, Rect, Roi, Size};
use crate::gst::meta::MaskMeta;
use crate::kernels::picture::region::RegionFinder;
use crate::prompt::FramePrompt;
use crate::segmenter::{ModelFrame, Prompt, Resize, SegmentError, SegmenterSpec, StreamId};
use crate::stream::engine::Counts;
use crate::stream::stats::{FrameRanges, Recent};
use crate::stream::time::Timekeeper;
use crate::stream::worker::unique_stream;
use crate::stream::{
    Engine, EngineConfig, ExactConfig, FrameTime, LiveConfig, Port, Preview, Squarer, Window,
};
use gstreamer as gst;
use std::collections::VecDeque;
use std::sync::Arc;

/// From READY to PAUSED until PAUSED to READY. Behind a lock that is held for bookkeeping only: never while
/// pushing, waiting, reading pixels or running the model.
pub(super) struct State {
    pub session: Session,
    pub segment: gst::FormattedSegment<gst::ClockTime>,
    pub caps: Option<gst::Caps>,
    /// Of the frames.
    pub size: Size,
    /// What the caps brought; `None` before them, or when masks cannot be made for them.
    pub stream: Option<Stream>,
    /// Why masks cannot be made for the caps, as a meta for their frames.
    pub trouble: Option<MaskMeta>,
    /// Frames and events in their order, waiting for the mask of the first frame.
    pub held: VecDeque<Held>,
    /// How long live frames are held, by a thread of their own; 0 for not at all.
    pub delay_nanos: u64,
    /// Of the whole pipeline, as sinks wait for it.
    pub pipeline_latency_nanos: u64,
    pub pools: PoolWatch,
    pub numbers: Numbers,
    /// Told of the masks of live streams.
    pub preview: Preview,
    /// What the next frame begins to be shown with: properties were changed, or another model has been loaded.
    pub next: Option<Session>,
    /// Epoch of the next stream.
    pub next_epoch: u64,
    /// Whoever waits has to give up: a flush or the way to READY.
    pub interrupted: bool,
    /// Time of a forward pass that the last LATENCY answer counted with.
    pub forward_declared_nanos: u64,
    /// Our part of the last LATENCY answer; `None` before the first.
    pub declared_nanos: Option<u64>,
    /// What came of pushing a held frame when its time was over; the streaming thread has not heard of it.
    pub flow_of_held: Option<gst::FlowError>,
    /// What upstream was told of its last frame, where that was an error.
    pub refused: Option<gst::FlowError>,
    /// Frames of an earlier running time come too late, as downstream has said.
    pub earliest_nanos: Option<u64>,
    /// The element has been paused, and no frame of after that has come yet.
    pub pause: Option<Pause>,
    /// Epochs in a row that a DISCONT ended before they brought a mask.
    pub barren_epochs: u32,
    /// A frame has left with a mask since the last DISCONT.
    pub epoch_has_masks: bool,
    /// Of a live source.
    pub timekeeper: Option<Timekeeper>,
    /// How often the stream has been flushed.
    pub flushes: u64,
    /// The frame before.
    pub came: Option<Came>,
    /// When the numbers were last posted.
    pub stats_posted_nanos: Option<u64>,
}

/// A frame that came in.
pub(super) struct Came {
    pub time: FrameTime,
    /// When the next could come, of the element's clock; 0 while it cannot.
    pub over_nanos: u64,
}

/// A pause. A live source's picture goes on meanwhile, and running time does not: frames of before and after must not
/// share an epoch. Elements upstream may hold frames of before it, which come first when it is over.
pub(super) struct Pause {
    /// It has not ended: whatever comes is of before it, and gets no masks of other frames.
    pub lasts: bool,
    /// Running time at which it began, where there is one: much later frames are of after it.
    pub running_nanos: Option<u64>,
    /// When the first frame came since it ended, of the element's clock.
    pub over_since_nanos: Option<u64>,
}

/// For how long after a pause frames may come that are older than it; timestamps that say so later are no timestamps.
const HELD_OVER_PAUSE_NANOS: u64 = 2_000_000_000;

/// How much later than they were drawn frames may be shown that somebody upstream repeats to fill the time of a pause's
/// end, as `videorate` does; frames without timestamps count as held over a pause for as long.
const MOVED_NANOS: u64 = 200_000_000;

/// What depends on the caps.
pub(super) struct Stream {
    pub format: Format,
    /// The region of interest, and what becomes of it.
    pub square: ModelSquare,
    pub engine: Engine,
    pub id: StreamId,
    /// `None` while inference is off.
    pub port: Option<Arc<Port>>,
    /// Whether the source is live.
    pub live_source: bool,
    /// Whether frames are shown live.
    pub live: bool,
    /// Frames that wait in the element at most.
    pub held_frames: u32,
    /// Of exact mode.
    pub window: Window,
    /// Running time of the newest frame of the epoch that has one.
    pub newest_nanos: Option<u64>,
    /// Taken out by the streaming thread while it reads pixels.
    pub eye: Option<Eye>,
    /// The newest frame of the epoch that was looked at.
    pub looked: Option<FrameTime>,
    /// The meta of the frame before.
    pub tag: Tag,
}

/// Numbers of the property `stats`.
#[derive(Debug, Clone, Default)]
pub(super) struct Numbers {
    pub frames_in: u64,
    pub frames_out: u64,
    /// Frames that left without a mask.
    pub frames_bare: u64,
    /// Frames whose buffer could not be read.
    pub frames_unread: u64,
    /// Frames that were copied because their pool was too small.
    pub frames_copied: u64,
    /// Frames whose mask could not be computed.
    pub frames_failed: u64,
    /// Frames of exact mode that left without a mask, by their place among those that left since the start.
    pub missing: FrameRanges,
    /// Of those, how many have been told of.
    pub missing_told: u64,
    /// Frames that were not looked at because they came too late.
    pub frames_hurried: u64,
    /// Faults of live engines, and those among them of the present one that have been reported.
    pub faults: u64,
    pub faults_of_stream: u64,
    /// Of the masks attached.
    pub age_nanos: Recent,
    /// Of engines that are gone: of earlier caps.
    pub counts_before: Counts,
}

impl State {
    pub fn new(session: Session, preview: Preview) -> Self {
        Self {
            preview,
            next: None,
            session,
            segment: gst::FormattedSegment::new(),
            caps: None,
            size: Size::square(1),
            stream: None,
            trouble: None,
            held: VecDeque::new(),
            delay_nanos: 0,
            pipeline_latency_nanos: 0,
            pools: PoolWatch::default(),
            numbers: Numbers::default(),
            next_epoch: 0,
            interrupted: false,
            forward_declared_nanos: 0,
            declared_nanos: None,
            flow_of_held: None,
            refused: None,
            earliest_nanos: None,
            pause: None,
            barren_epochs: 0,
            epoch_has_masks: false,
            timekeeper: None,
            flushes: 0,
            came: None,
            stats_posted_nanos: None,
        }
    }

    /// Whether the frame of that running time, which came at `now_nanos`, may be parted from the one before it by a pause:
    /// it is the first after one, or still one of before it.
    pub fn follows_pause(&mut self, running_nanos: Option<u64>, now_nanos: u64) -> bool {
        let Some(pause) = &mut self.pause else {
            return false;
        };
        if pause.lasts {
            return true;
        }
        let over_since = *pause.over_since_nanos.get_or_insert(now_nanos);
        let came_after = now_nanos.saturating_sub(over_since);
        let is_of_before = match (running_nanos, pause.running_nanos) {
            (Some(running), Some(paused)) => {
                running <= paused.saturating_add(MOVED_NANOS) && came_after < HELD_OVER_PAUSE_NANOS
            }
            (None, _) => came_after < MOVED_NANOS,
            (Some(_), None) => false,
        };
        if !is_of_before {
            self.pause = None;
        }
        true
    }

    /// Clips and frames over all engines since the element was started.
    pub fn counts(&self) -> Counts {
        let now = self
            .stream
            .as_ref()
            .map(|stream| stream.engine.counts())
            .unwrap_or_default();
        self.numbers.counts_before + now
    }

    /// The current epoch.
    pub fn epoch(&self) -> u64 {
        self.stream
            .as_ref()
            .map_or(self.next_epoch, |stream| stream.engine.epoch())
    }

    /// Begins a stream of `format`, with its source live or not. Settings that fit no such stream are an error; a
    /// region that does not fit these frames is given back, and the frames will go on without masks.
    pub fn begin_stream(&mut self, format: Format, live_source: bool) -> Result<Option<crate::Error>> {
        self.end_stream();
        (self.trouble, self.size) = (None, format.size);
        let is_live = live_source && self.session.goes_live(live_source);
        self.timekeeper = is_live.then(Timekeeper::default);
        if self.held.is_empty() {
            self.delay_nanos = 0;
        }
        let unfit = self.try_stream(format, live_source)?;
        if let Some(error) = &unfit {
            self.trouble = Some(trouble(self.session.spec(), self.size, error));
        }
        Ok(unfit)
    }

    /// What the next frame is shown with.
    pub fn upcoming(&self) -> &Session {
        self.next.as_ref().unwrap_or(&self.session)
    }

    /// Format of the frames, whether their source is live, whether they are shown live, and their region: what another
    /// session has to fit.
    pub fn trial(&self) -> Option<(Format, bool, bool, Rect)> {
        let stream = self.stream.as_ref()?;
        Some((
            stream.format.clone(),
            stream.live_source,
            stream.live,
            stream.square.region,
        ))
    }

    /// Whether the given region lies inside the frames, where their size is known.
    pub fn check_against_size(&self, session: &Session) -> Result<()> {
        match self.caps {
            Some(_) => session.roi.region_in(self.size).map(|_| ()),
            None => Ok(()),
        }
    }

    /// From now on masks of frames older than this are not attached.
    pub fn set_max_mask_age(&mut self, nanos: u64) -> Result<()> {
        let with_age = |session: &Session| {
            session.with(Settings {
                max_mask_age_nanos: nanos,
                ..Settings::clone(&session.settings)
            })
        };
        self.session = with_age(&self.session)?;
        self.next = self.next.as_ref().map(with_age).transpose()?;
        if let Some(stream) = &mut self.stream {
            stream.engine.set_max_age(nanos);
        }
        Ok(())
    }

    fn try_stream(&mut self, format: Format, live_source: bool) -> Result<Option<crate::Error>> {
        // Before the first frame there is somebody to mend it; later the video matters more.
        if let Err(error) = self.session.roi.region_in(format.size) {
            return if self.numbers.frames_in == 0 {
                Err(error)
            } else {
                Ok(Some(error))
            };
        }
        let stream = match Self::make_stream(&self.session, format, live_source, self.next_epoch)? {
            Ok(stream) => stream,
            Err(error) => return Ok(Some(error)),
        };
        self.delay_nanos = if stream.live {
            self.session.settings.video_delay_nanos
        } else {
            0
        };
        self.stream = Some(stream);
        self.renew_port();
        Ok(None)
    }

    /// A stream of `format` with its source live or not, whose first epoch is `epoch`. It has no port yet. The inner error
    /// is a prompt that does not lie in the region.
    ///
    /// # Errors
    /// Settings that do not fit such frames or the model.
    pub fn make_stream(
        session: &Session,
        format: Format,
        live_source: bool,
        epoch: u64,
    ) -> Result<Result<Stream>> {
        let spec = session.spec();
        let settings = &session.settings;
        let region = session.roi.region_in(format.size)?;
        let finder = (session.roi == Roi::Auto).then(RegionFinder::default);
        let frame_nanos = format.frame_nanos();
        let live = session.goes_live(live_source);
        let window = match live {
            // The worker takes clips as it can.
            true => Settings {
                hop: 1,
                ..(**settings).clone()
            }
            .window(spec, frame_nanos)?,
            false => settings.window(spec, frame_nanos)?,
        };
        let id = unique_stream();
        let eye = Eye::new(spec, live, finder);
        let prompt = match session.prompt.in_square(format.size, &eye.square(region)) {
            Ok(prompt) => prompt,
            Err(error) => return Ok(Err(error)),
        };
        let (config, delay_nanos) = if live {
            let delay_nanos = settings.video_delay_nanos;
            let config = LiveConfig {
                stream: id,
                clip_frames: spec.clip_frames,
                emit: window.emit,
                spacing: settings.spacing(spec, frame_nanos),
                max_age_nanos: settings.max_mask_age_nanos,
                delay_nanos,
                carry: settings.carry,
                prompt,
            };
            (EngineConfig::Live(config), delay_nanos)
        } else {
            let config = ExactConfig {
                stream: id,
                window,
                prompt,
                keep_probabilities: false,
            };
            (EngineConfig::Exact(config), 0)
        };
        let held_frames = match live {
            false => u32::try_from(window.look_ahead_frames()).unwrap_or(u32::MAX),
            true if delay_nanos == 0 => 0,
            true => held_for(delay_nanos, frame_nanos),
        };
        Ok(Ok(Stream {
            engine: Engine::new(epoch, config, spec)?,
            id,
            port: None,
            live_source,
            live,
            held_frames,
            window,
            newest_nanos: None,
            square: eye.square(region),
            eye: Some(eye),
            looked: None,
            tag: Tag::new(spec),
            format,
        }))
    }

    /// The stream's prompt, were it `prompt` and its region `region`.
    pub fn placed(&self, prompt: &FramePrompt, region: Rect) -> Result<Prompt> {
        match &self.stream {
            Some(stream) => {
                let square = ModelSquare {
                    region,
                    ..stream.square
                };
                prompt.in_square(stream.format.size, &square)
            }
            None => Ok(Prompt::default()),
        }
    }

    /// Has later clips show `region`, with the prompt where it lies there. Between two epochs only. Where the prompt
    /// lies outside, the stream goes on without masks, and the reason is given back.
    pub fn aim(&mut self, region: Rect) -> Option<crate::Error> {
        let prompt = match self.placed(&self.session.prompt, region) {
            Ok(prompt) => prompt,
            Err(error) => {
                self.end_stream();
                self.trouble = Some(trouble(self.session.spec(), self.size, &error));
                return Some(error);
            }
        };
        if let Some(stream) = &mut self.stream {
            stream.square.region = region;
            stream.engine.set_prompt(prompt);
        }
        None
    }

    /// Keeps the numbers of the stream, if there is one, and lets go of it.
    fn end_stream(&mut self) {
        self.numbers.counts_before = self.counts();
        self.numbers.faults_of_stream = 0;
        if let Some(stream) = self.stream.take() {
            self.next_epoch = stream.engine.epoch() + 1;
        }
    }

    /// Sees to it that the stream has a port whose worker is there, unless inference is off. The clips of one that is
    /// gone are given up.
    pub fn renew_port(&mut self) {
        let Some(stream) = &mut self.stream else { return };
        if stream.port.as_ref().is_some_and(|port| !port.is_gone()) {
            return;
        }
        if stream.port.take().is_some() {
            stream
                .engine
                .abandon(&SegmentError::Forward("the forward pass was given up".into()));
        }
        if let Some(port) = self.session.supervisor.port(stream.id) {
            if self.interrupted {
                port.interrupt();
            }
            // A mask that is carried is another for every frame.
            if stream.live && !self.session.settings.carry {
                port.set_preview(Preview::clone(&self.preview));
            }
            stream.port = Some(Arc::new(port));
        }
    }

    /// Carries cut clips to the worker, and answers that are there to the engine.
    pub fn exchange(&mut self) {
        self.renew_port();
        let Some(stream) = &mut self.stream else { return };
        let Some(port) = &stream.port else {
            while stream.engine.next_job().is_some() {}
            let why = self
                .session
                .supervisor
                .off()
                .unwrap_or_else(|| "it has been stopped".into());
            stream
                .engine
                .abandon(&SegmentError::Forward(format!("inference is off: {why}")));
            return;
        };
        while let Some(job) = stream.engine.next_job() {
            if !stream.live {
                port.submit(job);
            } else if let Some(older) = port.submit_latest(job) {
                stream.engine.skip(older);
            }
        }
        while let Some(done) = port.try_take() {
            stream.engine.accept(done);
        }
        while let Some(spent) = port.try_take_spent() {
            stream.engine.recycle(spent);
        }
    }
}

/// Assumed between frames where the caps name no rate: 60 Hz, so that enough buffers are asked for.
pub(super) const UNKNOWN_FRAME_NANOS: u64 = 1_000_000_000 / 60;

/// The same where it is a matter of how late a frame may leave: 25 Hz.
pub(super) const SLOW_FRAME_NANOS: u64 = 1_000_000_000 / 25;

/// Looks at frames.
pub(super) struct Eye {
    squarer: Squarer,
    finder: Option<RegionFinder>,
    live: bool,
}

impl Eye {
    /// In live mode the area filter serves every model: the reference resize takes longer than a frame lasts.
    pub fn new(spec: &SegmenterSpec, live: bool, finder: Option<RegionFinder>) -> Self {
        let resize = if live { Resize::Area } else { spec.resize };
        Self {
            squarer: Squarer::new(spec.side_px, resize, spec.orientation),
            finder,
            live,
        }
    }

    /// What `region` becomes.
    pub fn square(&self, region: Rect) -> ModelSquare {
        self.squarer.model_square(region)
    }

    /// The region of interest as the frame of `time` in `buffer` shows it; `None` when nothing new can be said of it.
    ///
    /// # Errors
    /// A buffer that does not hold a picture of `format`.
    pub fn find_region(
        &mut self,
        format: &Format,
        buffer: &gst::BufferRef,
        time: FrameTime,
    ) -> Result<Option<Rect>> {
        let live_nanos = time.running_nanos.filter(|_| self.live);
        let Some(finder) = self.finder.as_mut().filter(|finder| !finder.is_settled()) else {
            return Ok(None);
        };
        let whole = format.size.rect();
        // With both fields of an interlaced picture: what is lit does not move from one to the other.
        format.with_frame(buffer, whole, |picture, area| {
            Ok(finder.observe(picture, area, live_nanos))
        })
    }

    /// `region` of the frame in `buffer` as the model's square.
    ///
    /// # Errors
    /// A buffer that does not hold a picture of `format`.
    pub fn look(&mut self, format: &Format, buffer: &gst::BufferRef, region: Rect) -> Result<ModelFrame> {
        format.with_picture(buffer, region, |picture, region| {
            self.squarer.square(picture, region)
        })
    }
}
