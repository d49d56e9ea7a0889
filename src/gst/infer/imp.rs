//! The element's class: object, properties, pads and state changes.

use super::session::{Session, clock};
use super::settings::{self, Settings};
use super::state::{Pause, State};
use crate::stream::alarm::Alarm;
use crate::stream::turn::Turn;
use crate::stream::{Clock, LeftThreads, Open};
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gstreamer as gst;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "masaminfer",
        gst::DebugColorFlags::empty(),
        Some("MA-SAM inference"),
    )
});

/// What `gst-inspect-1.0` shows.
const EXAMPLE: &str = "gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvert ! masaminfer \
                       model=demo.safetensors ! masamoverlay ! videoconvert ! autovideosink";

/// The element. Of its locks only one is held at a time, but for the turn and that of the alarm, which come before the
/// state's.
pub struct Infer {
    pub(super) sinkpad: gst::Pad,
    pub(super) srcpad: gst::Pad,
    settings: Mutex<Settings>,
    opener: Mutex<Option<Open>>,
    session: Mutex<Option<Session>>,
    state: Mutex<Option<State>>,
    /// Something that was held has left, or waiting for that is over; with the state's lock.
    pub(super) room: Condvar,
    pub(super) turn: Turn,
    /// For the oldest frame that `video-delay` holds.
    pub(super) delay: Alarm,
    /// Threads of forward passes that were left to themselves.
    pub(super) left: LeftThreads,
    /// How many other models have been asked for: only the last of them is adopted.
    pub(super) loads: AtomicU64,
    /// When the element went down to READY, of the clock; 0 while it has not.
    readied_nanos: AtomicU64,
    /// Behind arrival times; the workers' clock.
    clock: Clock,
}

impl Infer {
    pub(super) fn settings(&self) -> MutexGuard<'_, Settings> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn session(&self) -> MutexGuard<'_, Option<Session>> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set_opener(&self, opener: Open) {
        *self.opener.lock().unwrap_or_else(PoisonError::into_inner) = Some(opener);
    }

    /// What opens the model instead of its file.
    pub(super) fn opener(&self) -> Option<Open> {
        self.opener.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Monotonic nanoseconds.
    pub(super) fn now_nanos(&self) -> u64 {
        (self.clock)()
    }

    /// NULL to READY: opens the model and starts its worker.
    fn open(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings().clone();
        let injected = self.opener();
        let is_named = injected.is_some() || settings.model.is_some();
        let session = Session::open(settings, injected, self.left.clone()).map_err(|error| match error {
            crate::Error::Config { .. } | crate::Error::Several(_) if is_named => {
                gst::error_msg!(gst::LibraryError::Settings, ("{error}"))
            }
            crate::Error::Config { .. } => gst::error_msg!(gst::ResourceError::NotFound, ("{error}")),
            error => gst::error_msg!(
                gst::ResourceError::OpenRead,
                ("could not open the model: {error}")
            ),
        })?;
        let spec = session.spec();
        gst::info!(CAT, imp = self, "model {} on {}", spec.model_id, spec.device);
        if let Some(cause) = session.supervisor.off() {
            gst::element_imp_warning!(self, gst::StreamError::Failed, ("inference is off: {cause}"));
        }
        *self.session() = Some(session);
        Ok(())
    }

    /// READY to PAUSED: properties may have been set since the model was opened.
    fn renew(&self) -> Result<(), gst::ErrorMessage> {
        let settings = self.settings().clone();
        let renewed = match &*self.session() {
            Some(session) => session.renewed(settings),
            None => Ok(None),
        };
        match renewed {
            Ok(Some(session)) => *self.session() = Some(session),
            Ok(None) => {
                self.close();
                self.open()?;
            }
            Err(error) => return Err(gst::error_msg!(gst::LibraryError::Settings, ("{error}"))),
        }
        Ok(())
    }

    fn report(&self, result: Result<(), gst::ErrorMessage>) -> Result<(), gst::StateChangeError> {
        result.map_err(|message| {
            self.post_error_message(message);
            gst::StateChangeError
        })
    }

    /// READY to NULL.
    fn close(&self) {
        let Some(session) = self.session().take() else {
            return;
        };
        let waited = match self.readied_nanos.load(Ordering::Relaxed) {
            0 => None,
            since => Some(Duration::from_nanos(self.now_nanos().saturating_sub(since))),
        };
        if session.close(waited) {
            gst::warning!(
                CAT,
                imp = self,
                "a forward pass did not end in time; its thread ends after it"
            );
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for Infer {
    const NAME: &'static str = "MasamInfer";
    type Type = super::Infer;
    type ParentType = gst::Element;

    fn with_class(class: &Self::Class) -> Self {
        // Both templates are in `pad_templates` below, so they are there.
        #[allow(
            clippy::expect_used,
            reason = "a class without its own templates cannot exist"
        )]
        let template = |name| class.pad_template(name).expect("the class has its templates");
        let sinkpad = gst::Pad::builder_from_template(&template("sink"))
            .chain_function(|_, parent, buffer| {
                Infer::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |infer| infer.sink_chain(buffer),
                )
            })
            .event_full_function(|_, parent, event| {
                Infer::catch_panic_pad_function(
                    parent,
                    || Err(gst::FlowError::Error),
                    |infer| infer.sink_event(event),
                )
            })
            .query_function(|_, parent, query| {
                Infer::catch_panic_pad_function(parent, || false, |infer| infer.sink_query(query))
            })
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        let srcpad = gst::Pad::builder_from_template(&template("src"))
            .event_function(|_, parent, event| {
                Infer::catch_panic_pad_function(parent, || false, |infer| infer.src_event(event))
            })
            .query_function(|_, parent, query| {
                Infer::catch_panic_pad_function(parent, || false, |infer| infer.src_query(query))
            })
            .activatemode_function(|_, parent, _, active| {
                let act = |infer: &Infer| {
                    match active {
                        true => infer.delay.allow(),
                        false => infer.stop_releasing(),
                    }
                    Ok(())
                };
                let panicked = || {
                    Err(gst::loggable_error!(
                        CAT,
                        "a panic while the pad was (de)activated"
                    ))
                };
                Infer::catch_panic_pad_function(parent, panicked, act)
            })
            .flags(gst::PadFlags::PROXY_CAPS)
            .build();
        Self {
            sinkpad,
            srcpad,
            settings: Mutex::default(),
            opener: Mutex::default(),
            session: Mutex::default(),
            state: Mutex::default(),
            room: Condvar::new(),
            turn: Turn::default(),
            delay: Alarm::default(),
            left: LeftThreads::default(),
            loads: AtomicU64::new(0),
            readied_nanos: AtomicU64::new(0),
            clock: clock(),
        }
    }
}

impl ObjectImpl for Infer {
    fn properties() -> &'static [glib::ParamSpec] {
        settings::properties()
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        gst::info!(CAT, imp = self, "{} = {value:?}", pspec.name());
        self.change(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        if pspec.name() == "stats" {
            return self.numbers("masaminfer-stats").to_value();
        }
        self.settings()
            .get(pspec.name())
            .unwrap_or_else(|| pspec.default_value().clone())
    }

    fn constructed(&self) {
        self.parent_constructed();
        let element = self.obj();
        for pad in [&self.sinkpad, &self.srcpad] {
            if let Err(error) = element.add_pad(pad) {
                gst::error!(CAT, imp = self, "could not add a pad: {error}");
            }
        }
    }
}

impl GstObjectImpl for Infer {}

impl ElementImpl for Infer {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::with_additional(
                "MA-SAM inference",
                "Filter/Analyzer/Video",
                "Attaches instrument and anatomy masks of an MA-SAM model to video frames (research software, not a \
                 medical device)",
                "The masam developers",
                &[("example", EXAMPLE)],
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = super::caps();
            [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                .into_iter()
                .filter_map(|(name, way)| {
                    gst::PadTemplate::new(name, way, gst::PadPresence::Always, &caps).ok()
                })
                .collect()
        });
        &TEMPLATES
    }

    fn change_state(
        &self,
        transition: gst::StateChange,
    ) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        gst::debug!(CAT, imp = self, "{transition:?}");
        match transition {
            gst::StateChange::NullToReady => self.report(self.open())?,
            gst::StateChange::ReadyToPaused => {
                self.readied_nanos.store(0, Ordering::Relaxed);
                self.loads.fetch_add(1, Ordering::Relaxed);
                self.report(self.renew())?;
                let session = self.session().clone().ok_or(gst::StateChangeError)?;
                let preview = self.preview(session.spec());
                *self.state() = Some(State::new(session, preview));
                self.turn.set_flushing(false);
            }
            gst::StateChange::PlayingToPaused => {
                // The picture of a live source goes on meanwhile, and running time does not.
                let running = self.obj().current_running_time();
                if let Some(state) = self.state().as_mut() {
                    state.pause = Some(Pause {
                        lasts: true,
                        running_nanos: running.map(gst::ClockTime::nseconds),
                        over_since_nanos: None,
                    });
                }
            }
            // The pipeline's running time stood still a little later than this element did, and frames were drawn until
            // then. It tells its elements when it goes on.
            gst::StateChange::PausedToPlaying => {
                // Without a clock there is no running time, and that is 0.
                let has_clock = self.obj().clock().is_some();
                let stood_still = self.obj().start_time().filter(|_| has_clock);
                let stood_still = stood_still.map(gst::ClockTime::nseconds);
                if let Some(pause) = self.state().as_mut().and_then(|state| state.pause.as_mut()) {
                    pause.running_nanos = pause.running_nanos.max(stood_still);
                    pause.lasts = false;
                }
            }
            // Wakes a chain function that waits, so that the pads can be deactivated.
            gst::StateChange::PausedToReady => {
                self.readied_nanos.store(self.now_nanos(), Ordering::Relaxed);
                self.interrupt(true);
            }
            _ => (),
        }
        let success = self.parent_change_state(transition)?;
        match transition {
            gst::StateChange::PausedToReady => {
                self.discard_waiting();
                *self.state() = None;
            }
            gst::StateChange::ReadyToNull => self.close(),
            _ => (),
        }
        Ok(success)
    }
}
