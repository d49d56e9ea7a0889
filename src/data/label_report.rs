//! Whether the labels of frames were understood, before they are scored or learnt from.

use super::coding::{LabelCounts, MAX_UNKNOWN_SHARE};
use super::dataset::{Dataset, Sequence};
use crate::error::{Error, Result};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// What the labels of some frames of a data set were read as, and how much of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct LabelReport {
    /// How label pictures are read, for example `class ids in gray16`; one for each kind of mask.
    pub read_as: Vec<String>,
    /// All pixels of the labels.
    pub counts: LabelCounts,
    /// Share of pixels without a meaning, 0 to 1.
    pub unknown_share: f64,
    /// Whether a share of more than [`MAX_UNKNOWN_SHARE`] was accepted.
    pub accepted: bool,
    /// Why the labels are not used; nothing where they are.
    pub refusals: Vec<String>,
    #[serde(skip)]
    root: PathBuf,
}

impl LabelReport {
    /// Looks at the labels of `frames`: sequences of `data`, and how many frames of each, from its start. The first
    /// call looks at every label picture of the data set.
    ///
    /// # Errors
    /// More frames than a sequence has.
    pub fn of<'a>(data: &Dataset, frames: impl IntoIterator<Item = (&'a Sequence, usize)>) -> Result<Self> {
        let mut counts = LabelCounts::default();
        let (mut read_as, mut refusals): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
        let mut lossy = None;
        for (sequence, frames) in frames {
            let before = counts.pixels;
            for index in 0..frames {
                counts.add(&sequence.label_counts(index)?.unwrap_or_default());
            }
            if counts.pixels == before {
                continue;
            }
            for labeling in sequence.labelings() {
                let survey = labeling.survey();
                read_as.push(survey.read_as.clone());
                refusals.extend(survey.refusal().map(str::to_owned));
                lossy = lossy.or_else(|| survey.lossy.clone());
            }
        }
        for list in [&mut read_as, &mut refusals] {
            list.sort();
            list.dedup();
        }
        let (share, accepted) = (counts.unknown_share(), data.accept_unknown_labels);
        let odd = (counts.unknown + counts.repaired) as f64 / counts.pixels.max(1) as f64;
        if !refusals.is_empty() || counts.pixels == 0 {
            // What is not read has no shares.
        } else if counts.known() == 0 {
            refusals.push("invalid labels: no pixel has a class".into());
        } else if counts.known() == counts.background && odd > MAX_UNKNOWN_SHARE {
            let cause = format!(
                "invalid labels: nothing but background was understood; {:.3} % of their pixels have unknown colors or \
                 values (expected class ids as 8-bit gray, or the colors of the class table)",
                odd * 100.0
            );
            refusals.push(cause);
        } else if share > MAX_UNKNOWN_SHARE && !accepted {
            let cause = format!(
                "invalid labels: {:.3} % of their pixels have unknown colors or values (expected at most {} %). `masam \
                 data check` lists them; --accept-unknown-labels (train: data.accept_unknown_labels) ignores them",
                share * 100.0,
                MAX_UNKNOWN_SHARE * 100.0
            );
            refusals.push(cause);
        }
        if let Some(path) = lossy.filter(|_| !accepted) {
            let cause = format!(
                "invalid labels: {} is of a format that changes pixels, so borders of classes are not certain \
                 (expected PNG). --accept-unknown-labels (train: data.accept_unknown_labels) uses what is left",
                path.display()
            );
            refusals.push(cause);
        }
        Ok(Self {
            read_as,
            unknown_share: share,
            accepted: accepted && share > MAX_UNKNOWN_SHARE,
            counts,
            refusals,
            root: data.root.clone(),
        })
    }

    /// Fails where labels were not understood.
    ///
    /// # Errors
    /// Every reason at once, naming the data set.
    pub fn require(&self) -> Result<()> {
        match self.refusals.is_empty() {
            true => Ok(()),
            false => Err(Error::file(&self.root, self.refusals.join("; "))),
        }
    }
}

impl fmt::Display for LabelReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.counts.pixels == 0 {
            return f.write_str("no labels");
        }
        if self.counts.known() == 0 {
            return write!(f, "labels not understood: {}", self.refusals.join("; "));
        }
        write!(
            f,
            "labels read as: {}; {:.3} % of their pixels are unknown{}",
            self.read_as.join(", "),
            self.unknown_share * 100.0,
            if self.accepted { " (accepted, ignored)" } else { "" }
        )?;
        let ignored = self.counts.ignored as f64 / self.counts.pixels as f64;
        write!(f, ", {:.3} % marked as ignored", ignored * 100.0)
    }
}
