//! Whether clips of several streams run faster as one batch than one after another.
//!
//! A batch keeps every stream in it waiting for all, so it has to pay: the time per clip of batches is held against
//! that of single passes. What lost is tried again now and then, since machines and models change their pace.
//!
//! ```text
//! batch, while one of the two is unknown or  time(batch) / clips < time(single)        else one by one
//! ```

/// Times kept of each kind are means in which the newest weighs so much.
const NEWEST: f64 = 0.125;

/// Every so many choices the kind that lost is tried.
const TRY_EVERY: u32 = 64;

/// Measured time per clip.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct BatchPace {
    single_nanos: Option<f64>,
    batched_nanos: Option<f64>,
    choices: u32,
}

impl BatchPace {
    /// How many clips to run at once where several wait, at most `bound`.
    pub fn most_clips(&mut self, bound: usize) -> usize {
        let (Some(single), Some(batched)) = (self.single_nanos, self.batched_nanos) else {
            return bound;
        };
        self.choices = self.choices.wrapping_add(1);
        let batch = (batched < single) != self.choices.is_multiple_of(TRY_EVERY);
        if batch { bound } else { 1 }
    }

    /// A pass over `clips` clips took that long.
    pub fn took(&mut self, clips: usize, nanos: u64) {
        let per_clip = nanos as f64 / clips.max(1) as f64;
        let mean = if clips > 1 {
            &mut self.batched_nanos
        } else {
            &mut self.single_nanos
        };
        *mean = Some(mean.map_or(per_clip, |before| before + NEWEST * (per_clip - before)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_to_pay() {
        let mut pace = BatchPace::default();
        assert_eq!(pace.most_clips(8), 8, "nothing is known");
        pace.took(1, 100);
        assert_eq!(pace.most_clips(8), 8, "nothing is known of batches");
        pace.took(4, 400);
        assert_eq!(pace.most_clips(8), 1, "they gain nothing");
        pace.took(4, 40);
        assert_eq!(pace.most_clips(8), 8, "now they do");
    }

    #[test]
    fn what_lost_is_tried_again() {
        let mut pace = BatchPace::default();
        pace.took(1, 100);
        pace.took(2, 1000);
        let tried = (0..1000).filter(|_| pace.most_clips(8) == 8).count();
        assert_eq!(tried, 1000 / TRY_EVERY as usize);
    }
}
