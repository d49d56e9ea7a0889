//! Queries: how many buffers we keep, and how late we are.

use super::imp::{CAT, Infer};
use super::state::{SLOW_FRAME_NANOS, State};
use gst::prelude::*;
use gst::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;

impl Infer {
    pub(super) fn sink_query(&self, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;
        match query.view_mut() {
            QueryViewMut::Allocation(allocation) => self.answer_allocation(allocation),
            QueryViewMut::Drain(_) => {
                // Upstream wants its buffers back.
                if self.is_delayed() && !self.hurry_out() {
                    return false;
                }
                // A flush ends the wait for the turn, not that for the locks downstream.
                let Some(_turn) = self.turn.take() else {
                    return false;
                };
                let _ = self.drain_for_gap();
                self.srcpad.peer_query(query)
            }
            _ => gst::Pad::query_default(&self.sinkpad, Some(&*self.obj()), query),
        }
    }

    pub(super) fn src_query(&self, query: &mut gst::QueryRef) -> bool {
        use gst::QueryViewMut;
        match query.view_mut() {
            QueryViewMut::Latency(latency) => self.answer_latency(latency),
            _ => gst::Pad::query_default(&self.srcpad, Some(&*self.obj()), query),
        }
    }

    /// Downstream's answer, with the buffers that we keep added to what its pools need. Where frames and caps before the
    /// ones in question are still held, downstream is not asked, and upstream takes memory of its own.
    fn answer_allocation(&self, query: &mut gst::query::Allocation) -> bool {
        let turn = match self.is_delayed() {
            true => self.turn.try_take(),
            false => self.turn.take(),
        };
        let is_next = |state: &State| !state.is_delayed() || state.held.is_empty();
        let asks = turn.is_some() && self.state().as_ref().is_some_and(is_next);
        let answered = asks && self.srcpad.peer_query(query.query_mut());
        drop(turn);
        let pools: Vec<_> = query.allocation_pools().collect();
        let held = match self.state().as_mut() {
            Some(state) => {
                let watch = &mut state.pools;
                if asks {
                    watch.downstream = pools.iter().map(|(_, _, min, _)| *min).max().unwrap_or(0);
                    watch.takes_layouts = query.find_allocation_meta::<gst_video::VideoMeta>().is_some();
                } else if watch.takes_layouts {
                    query.add_allocation_meta::<gst_video::VideoMeta>(None);
                }
                state.stream.as_ref().map_or(0, |stream| stream.held_frames)
            }
            None => 0,
        };
        if held == 0 {
            return answered;
        }
        for (index, (pool, size, min, max)) in (0..).zip(&pools) {
            let more = |count: u32| count.saturating_add(held);
            let max = if *max == 0 { 0 } else { more(*max) };
            query.set_nth_allocation_pool(index, pool.as_ref(), *size, more(*min), max);
        }
        if pools.is_empty() {
            let info = query
                .caps()
                .and_then(|caps| gst_video::VideoInfo::from_caps(caps).ok());
            let size = info.and_then(|info| u32::try_from(info.size()).ok()).unwrap_or(0);
            query.add_allocation_pool(gst::BufferPool::NONE, size, held, 0);
        }
        gst::debug!(
            CAT,
            imp = self,
            "{held} more buffers for the frames that we keep: {query:?}"
        );
        true
    }

    /// Upstream's latency and ours.
    fn answer_latency(&self, query: &mut gst::query::Latency) -> bool {
        let mut upstream = gst::query::Latency::new();
        if !self.sinkpad.peer_query(&mut upstream) {
            return false;
        }
        let (live, min, max) = upstream.result();
        let own = self
            .state()
            .as_mut()
            .map_or(gst::ClockTime::ZERO, State::declare_latency);
        gst::debug!(CAT, imp = self, "upstream {min} to {max:?}, ours {own}");
        query.set(live, min + own, max.map(|max| max + own));
        true
    }
}

impl State {
    /// Live: the delay. Exact: the look-ahead and a forward pass.
    fn declare_latency(&mut self) -> gst::ClockTime {
        let forward = self.forward_p99_nanos();
        if self.stream.as_ref().is_some_and(|stream| !stream.live) {
            self.forward_declared_nanos = forward;
        }
        let own = self.own_latency_nanos(forward);
        self.declared_nanos = Some(own);
        gst::ClockTime::from_nseconds(own)
    }

    fn own_latency_nanos(&self, forward_nanos: u64) -> u64 {
        if self.is_delayed() {
            return self.delay_nanos;
        }
        let Some(stream) = self.stream.as_ref().filter(|stream| !stream.live) else {
            return 0;
        };
        let frame_nanos = stream.format.frame_nanos().unwrap_or(SLOW_FRAME_NANOS);
        frame_nanos
            .saturating_mul(stream.window.look_ahead_frames() as u64)
            .saturating_add(forward_nanos)
    }

    fn forward_p99_nanos(&self) -> u64 {
        let stats = self.session.supervisor.stats();
        stats.forward_nanos.percentile(99).unwrap_or(0)
    }

    /// Whether the last LATENCY answer, if one was given, does not hold for the stream that has just begun.
    pub(super) fn latency_differs(&mut self) -> bool {
        // Longer passes are for `latency_has_grown`.
        let own = self.own_latency_nanos(self.forward_declared_nanos);
        let differs = self.declared_nanos.is_some_and(|declared| declared != own);
        if differs {
            // Until the answer is asked for, which nobody has to do.
            self.declared_nanos = Some(own);
        }
        differs
    }

    /// Whether forward passes take so much longer than the last LATENCY answer said that it should be asked for again.
    /// Exact mode only: in live mode nothing waits for them.
    pub(super) fn latency_has_grown(&mut self) -> bool {
        let forward = self.forward_p99_nanos();
        let grown = forward
            > self
                .forward_declared_nanos
                .saturating_add(self.forward_declared_nanos / 4);
        if grown {
            // Until the answer is asked for, which nobody has to do.
            self.forward_declared_nanos = forward;
        }
        grown
    }
}
