//! Where frames and labels come from: data sets as their challenges released them, and generated scenes.
//!
//! * [`dataset`]: a folder on disk as sequences of frames with class ids, whatever its layout;
//!   [`endovis18`] and [`endovis17`] know the two challenges, [`layout`] finds their parts in a folder.
//! * [`split`]: which sequences are for training and which for testing.
//! * [`folders`]: images and masks of one's own; [`import`] makes them of exports of COCO and CVAT.
//! * [`picture`], [`palette`], [`class_table`]: bounded decoding, colors to class ids, `labels.json`.
//! * [`coding`]: what the pixels of label pictures mean, decided once for a data set.
//! * [`clips`], [`loader`]: runs of frames in a seeded order, decoded ahead on worker threads.
//! * [`check`]: everything that is odd about a folder, in one report.
//! * [`phantom`]: generated scenes with exact labels.

pub mod check;
pub mod class_table;
pub mod clips;
pub mod coding;
pub mod dataset;
pub mod endovis17;
pub mod endovis18;
pub mod folders;
pub mod import;
mod label_picture;
mod label_report;
mod label_survey;
pub mod layout;
pub mod loader;
mod mappings;
pub mod names;
pub mod note;
pub mod palette;
pub mod phantom;
pub mod picture;
pub mod split;

pub use clips::{Clip, ClipConfig, ClipFrame, ClipPlace, Ends};
pub use coding::{LabelCounts, MAX_UNKNOWN_SHARE};
pub use dataset::{Dataset, DatasetConfig, Frame, Kind, Labels, Repair, Role, Sequence, Task2017};
pub use label_report::LabelReport;
pub use loader::{Loader, LoaderConfig};
pub use note::Note;
pub use split::{Part, Split};
