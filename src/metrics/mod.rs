//! How well predicted class ids match true ones: on plain slices, without tensors.
//!
//! One pass over the pixels gives each frame's [`FrameCounts`], intersections and sizes per class; every published
//! way to average them, a [`Convention`], is computed from these counts alone.
//!
//! ```
//! use masam::metrics::{Convention, FrameCounts};
//! let frame = FrameCounts::of(&[0, 0, 1, 1], &[0, 1, 1, 1], 3)?;
//! assert_eq!(frame.class(1).iou(), Some(2.0 / 3.0));
//! assert_eq!(frame.class(2).iou(), None); // absent from both
//! let scores = Convention::DatasetWide.score(&[&[frame]], 3);
//! assert_eq!(scores.mean_iou, Some((1.0 / 2.0 + 2.0 / 3.0) / 2.0));
//! # Ok::<(), masam::Error>(())
//! ```

pub mod confusion;
pub mod convention;
pub mod flicker;
pub mod overlap;
pub mod published;

pub use confusion::{Confusion, IGNORED};
pub use convention::{Convention, Scores};
pub use flicker::{Flicker, FlickerCounts};
pub use overlap::{FrameCounts, Overlap};
pub use published::{ENDOVIS_2018_TEST, PublishedRow};
