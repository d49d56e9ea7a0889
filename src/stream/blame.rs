//! Whose fault it is when a pass fails: the model's, or that of the one stream whose clip it was.
//!
//! ```text
//! stream A:  ok          ok          ok              B fails while another stream succeeds: B's own fault,
//! stream B:       fail        fail        fail       and no reason to open the model anew
//! ```

use crate::segmenter::StreamId;
use std::collections::BTreeMap;

/// Streams remembered; more that fail at once begin anew.
const MOST_STREAMS: usize = 256;

/// A stream's first failure after a success is its own where another has succeeded so many passes before: what is wrong
/// with the model will show with the others, or again.
const GRACE_PASSES: u64 = 8;

/// Remembers who has been failing since when.
#[derive(Debug, Default)]
pub(super) struct Blame {
    /// Number of the pass under way.
    pass: u64,
    /// The newest pass in which each stream succeeded.
    succeeded: BTreeMap<StreamId, u64>,
    /// First of the failed passes in a row of each stream.
    failing_since: BTreeMap<StreamId, u64>,
}

impl Blame {
    /// A pass begins.
    pub fn begin(&mut self) {
        self.pass += 1;
    }

    /// A clip of `stream` succeeded. To be told before the failures of the same pass.
    pub fn succeeded(&mut self, stream: StreamId) {
        self.failing_since.remove(&stream);
        if self.succeeded.len() >= MOST_STREAMS {
            self.succeeded.clear();
        }
        self.succeeded.insert(stream, self.pass);
    }

    /// A clip of `stream` failed; whether that speaks against the model.
    pub fn failed(&mut self, stream: StreamId) -> bool {
        if self.failing_since.len() >= MOST_STREAMS {
            self.failing_since.clear();
        }
        let since = *self.failing_since.entry(stream).or_insert(self.pass);
        let others = self.succeeded.iter().filter(|(other, _)| **other != stream);
        let newest = others.map(|(_, pass)| *pass).max();
        let grace = if since == self.pass { GRACE_PASSES } else { 0 };
        newest.is_none_or(|pass| pass < since.saturating_sub(grace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: StreamId = StreamId(1);
    const B: StreamId = StreamId(2);

    #[test]
    fn a_stream_that_fails_among_others_is_to_blame() {
        let mut blame = Blame::default();
        // One batch.
        blame.begin();
        blame.succeeded(A);
        assert!(!blame.failed(B));
        // In turns.
        for _ in 0..5 {
            blame.begin();
            assert!(!blame.failed(B));
            blame.begin();
            blame.succeeded(A);
        }
        // Both at once.
        blame.begin();
        assert!(blame.failed(A));
        assert!(!blame.failed(B), "it has failed before");
    }

    #[test]
    fn a_stream_that_fails_now_and_then_is_to_blame() {
        let mut blame = Blame::default();
        for _ in 0..5 {
            for stream in [A, B, A] {
                blame.begin();
                blame.succeeded(stream);
            }
            blame.begin();
            assert!(!blame.failed(B));
        }
        // From here on nothing works.
        blame.begin();
        assert!(
            blame.failed(B),
            "twice in a row, and nobody else has succeeded since"
        );
        blame.begin();
        blame.failed(A);
        blame.begin();
        assert!(blame.failed(A));
    }

    #[test]
    fn alone_it_is_the_model() {
        let mut blame = Blame::default();
        blame.begin();
        blame.succeeded(A);
        for _ in 0..5 {
            blame.begin();
            assert!(blame.failed(A));
        }
        blame.begin();
        blame.succeeded(A);
        blame.begin();
        assert!(blame.failed(A));
    }
}
