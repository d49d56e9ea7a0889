//! Buffers that wait in the element, and pools too small for that.

use gst::prelude::*;
use gstreamer as gst;

/// Buffers that downstream is taken to keep where it has not said: a sink shows one and has the next.
const DOWNSTREAM_FRAMES: u32 = 2;

/// Tells whether held frames would starve the pool that they come from.
#[derive(Debug, Default)]
pub(super) struct PoolWatch {
    /// The pool looked at last and the most buffers that it has; 0 for any number.
    known: Option<(gst::BufferPool, u32)>,
    /// Most buffers that a pool needs downstream, as its answer to the ALLOCATION query said.
    pub downstream: u32,
    /// Downstream takes frames laid out in any way, as its answer said.
    pub takes_layouts: bool,
}

impl PoolWatch {
    /// Whether `buffer` is from a pool that cannot spare `held` buffers, so that a copy has to be held instead.
    pub fn is_scarce(&mut self, buffer: &gst::BufferRef, held: u32) -> bool {
        if held == 0 {
            return false;
        }
        let Some(pool) = pool_of(buffer) else { return false };
        let most = match &self.known {
            Some((known, most)) if *known == pool => *most,
            _ => pool.config().params().map_or(0, |(_, _, _, most)| most),
        };
        // One more is being filled upstream while all these are kept.
        let needed = held
            .saturating_add(self.downstream.max(DOWNSTREAM_FRAMES))
            .saturating_add(1);
        self.known = Some((pool, most));
        most != 0 && most < needed
    }
}

/// The pool that `buffer` goes back to.
fn pool_of(buffer: &gst::BufferRef) -> Option<gst::BufferPool> {
    use gst::glib::translate::from_glib_none;
    // SAFETY: the pointer is valid for as long as the reference; the field is null or holds a pool that the buffer
    // has a reference to, and `from_glib_none` takes one of its own.
    unsafe {
        let pool = (*buffer.as_ptr()).pool;
        (!pool.is_null()).then(|| from_glib_none(pool))
    }
}
