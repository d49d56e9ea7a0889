//! Announces masks from a thread of its own.
//!
//! Whoever listens downstream may take long, or be blocked while an application links elements anew. The worker, which
//! other streams may share, waits for that a short time only; while an announcement is under way no other is begun.

use super::attach::blank;
use super::imp::Infer;
use crate::geometry::Size;
use crate::gst::meta::MaskMeta;
use crate::segmenter::{Plane, Reply, SegmenterSpec};
use crate::stream::fuse::upright;
use crate::stream::{Preview, Priority};
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gstreamer as gst;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};

/// Labels to announce, in the orientation of the model's input, and who waits for it.
struct Call {
    epoch: u64,
    labels: Vec<u8>,
    done: SyncSender<()>,
}

/// The way to the thread, which ends with it.
struct Herald {
    calls: SyncSender<Call>,
    busy: Arc<AtomicBool>,
}

impl Herald {
    /// Starts the thread, with the priority of this one's model.
    fn start(announce: impl FnMut(u64, Vec<u8>) + Send + 'static) -> Option<Self> {
        let (calls, called) = sync_channel::<Call>(1);
        let busy = Arc::new(AtomicBool::new(false));
        let (theirs, mut announce) = (Arc::clone(&busy), announce);
        let priority = Priority::of_thread();
        let thread = std::thread::Builder::new()
            .name("masam-herald".into())
            .spawn(move || {
                priority.enter();
                for Call { epoch, labels, done } in called {
                    announce(epoch, labels);
                    theirs.store(false, Ordering::Release);
                    // Whoever called may have gone on.
                    let _ = done.send(());
                }
            });
        thread.ok().map(|_| Self { calls, busy })
    }

    /// Has labels announced, unless earlier ones are still being. What comes when they have been.
    fn call(&self, epoch: u64, labels: &[u8]) -> Option<Receiver<()>> {
        if self.busy.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (done, is_done) = sync_channel(1);
        let labels = labels.to_vec();
        self.calls
            .try_send(Call { epoch, labels, done })
            .ok()
            .map(|()| is_done)
    }
}

impl Infer {
    /// Announces masks as long as the element is there. The thread is started by the one that computes the first mask.
    pub(super) fn preview(&self, spec: &SegmenterSpec) -> Preview {
        let element = self.obj().downgrade();
        let (herald, spec) = (OnceLock::<Option<Herald>>::new(), spec.clone());
        Arc::new(move |epoch: u64, reply: &Reply| {
            let [Plane::Labels(labels)] = reply.planes.as_slice() else {
                return None;
            };
            if labels.len() != Size::square(spec.side_px).area() {
                return None;
            }
            let herald = herald.get_or_init(|| {
                let (element, spec) = (element.clone(), spec.clone());
                let mut meta = MaskMeta {
                    mask: Size::square(spec.side_px),
                    ..blank(&spec)
                };
                let mut structure = meta.to_structure();
                Herald::start(move |epoch, labels| {
                    let labels = upright(labels, spec.side_px as usize, spec.orientation);
                    meta.plane = glib::Bytes::from_owned(labels);
                    if let Some(element) = element.upgrade() {
                        meta.epoch = epoch;
                        element.imp().announce(&mut meta, &mut structure);
                    }
                })
            });
            herald.as_ref()?.call(epoch, labels)
        })
    }

    /// Sends a mask downstream, past all frames that are under way, before one comes that shows it: an overlay can
    /// have it ready by then.
    fn announce(&self, meta: &mut MaskMeta, structure: &mut gst::Structure) {
        {
            let state = self.state();
            let Some(stream) = state.as_ref().and_then(|state| state.stream.as_ref()) else {
                return;
            };
            // No frame will show it any more, and its region may be another by now.
            if stream.engine.epoch() != meta.epoch {
                return;
            }
            (meta.frame, meta.region) = (stream.format.size, stream.square.region);
        }
        meta.fill(structure);
        let event = gst::event::CustomDownstreamOob::builder(structure.clone()).build();
        // Nobody has to be interested.
        let _ = self.srcpad.push_event(event);
    }
}
