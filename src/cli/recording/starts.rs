//! When each track of a recording starts.

use gstreamer as gst;
use gstreamer::prelude::*;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Where a recording's time begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli) enum Origin {
    /// At running time zero: a frame keeps its place.
    Zero,
    /// At the first sample: before it the camera had not begun.
    FirstSample,
}

/// The running time of the first buffer on each of a muxer's pads.
pub(super) struct Starts {
    origin: Origin,
    /// Nanoseconds, by the pads' order.
    pads: Mutex<Vec<Option<u64>>>,
}

impl Starts {
    /// Watches the pads that `mux` has and those that it will get.
    pub(super) fn of(mux: &gst::Element, origin: Origin) -> Arc<Self> {
        let starts = Arc::new(Self {
            origin,
            pads: Mutex::new(Vec::new()),
        });
        for pad in mux.sink_pads() {
            starts.watch(&pad);
        }
        let watching = starts.clone();
        mux.connect_pad_added(move |_, pad| {
            if pad.direction() == gst::PadDirection::Sink {
                watching.watch(pad);
            }
        });
        starts
    }

    fn pads(&self) -> MutexGuard<'_, Vec<Option<u64>>> {
        self.pads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(self: &Arc<Self>, pad: &gst::Pad) {
        let index = {
            let mut pads = self.pads();
            pads.push(None);
            pads.len() - 1
        };
        let starts = self.clone();
        pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
            let segment = pad.sticky_event::<gst::event::Segment>(0);
            let start = info.buffer().and_then(|buffer| {
                let segment = segment.as_ref()?.segment().downcast_ref::<gst::ClockTime>()?;
                segment.to_running_time(buffer.pts()?)
            });
            let Some(start) = start else {
                return gst::PadProbeReturn::Ok; // Before the segment: the muxer drops it, too.
            };
            if let Some(pad) = starts.pads().get_mut(index) {
                *pad = Some(start.nseconds());
            }
            gst::PadProbeReturn::Remove
        });
    }

    /// When the track starts in the recording, in nanoseconds; None before its first buffer. Tracks are numbered from
    /// 1 in the order of the pads.
    pub(super) fn of_track(&self, id: u32) -> Option<u64> {
        let pads = self.pads();
        let index = usize::try_from(id).ok()?.checked_sub(1)?;
        let start = (*pads.get(index)?)?;
        Some(match self.origin {
            Origin::Zero => start,
            Origin::FirstSample => start - pads.iter().flatten().min()?,
        })
    }
}
