//! Notices an input that gives no frames any more and does not end either.

use anyhow::{Context, Result};
use gstreamer as gst;
use gstreamer::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A pause after which the user is told.
pub(super) const SAID_AFTER: Duration = Duration::from_secs(10);
/// A pause that counts as the end of a file or a pipe.
pub(super) const OVER_AFTER: Duration = Duration::from_secs(30);

/// What has just been noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Noticed {
    /// Nothing new.
    Nothing,
    /// No frame for [`SAID_AFTER`].
    Silent,
    /// No frame for [`OVER_AFTER`].
    Over,
}

/// Watches the frames in front of an element. Time that the element itself takes for a frame does not count.
pub(super) struct Silence {
    /// Pushes into the element.
    pad: gst::Pad,
    /// Whether the end has come through.
    ended: Arc<AtomicBool>,
    frames: u64,
    since: Instant,
    said: bool,
}

impl Silence {
    /// For the element behind `pad`, a sink pad that is linked.
    ///
    /// # Errors
    /// A pad without a peer.
    pub(super) fn before(pad: &gst::Pad) -> Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let noted = ended.clone();
        pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
            if info.event().is_some_and(|e| e.type_() == gst::EventType::Eos) {
                noted.store(true, Ordering::Relaxed);
            }
            gst::PadProbeReturn::Ok
        });
        Ok(Self {
            pad: pad.peer().context("nothing is linked to the model")?,
            ended,
            frames: 0,
            since: Instant::now(),
            said: false,
        })
    }

    /// Looks again; `frames` have come so far.
    pub(super) fn look(&mut self, frames: u64) -> Noticed {
        if frames != self.frames {
            (self.frames, self.since, self.said) = (frames, Instant::now(), false);
        }
        let due = if self.said { OVER_AFTER } else { SAID_AFTER };
        if self.since.elapsed() < due || self.ended.load(Ordering::Relaxed) {
            return Noticed::Nothing;
        }
        if !self.is_idle() {
            (self.since, self.said) = (Instant::now(), false);
            return Noticed::Nothing;
        }
        match std::mem::replace(&mut self.said, true) {
            false => Noticed::Silent,
            true => {
                self.ended.store(true, Ordering::Relaxed); // said once
                Noticed::Over
            }
        }
    }

    /// Whether the pad pushes nothing at this moment.
    fn is_idle(&self) -> bool {
        let idle = Arc::new(AtomicBool::new(false));
        let noted = idle.clone();
        // Called within add_probe where the pad is idle; otherwise later, and by then it means nothing.
        self.pad.add_probe(gst::PadProbeType::IDLE, move |_, _| {
            noted.store(true, Ordering::Relaxed);
            gst::PadProbeReturn::Remove
        });
        idle.load(Ordering::Relaxed)
    }
}
