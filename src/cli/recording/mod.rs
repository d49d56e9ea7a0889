//! Recordings that stay playable whatever happens to the program that writes them.
//!
//! ```text
//! encoder ! mp4mux (fragments) or matroskamux (clusters) ! recording sink ! OUTPUT or OUTPUT.part
//! ```
//! The muxers write what can be played without its end. [`sink`] hands each of their buffers to the kernel at once
//! and syncs the file at intervals; [`writer`] keeps an MP4 file playable while the muxer turns its fragments into an
//! ordinary file, and [`boxes`] sets the times in its headers right; [`place`] decides which file is written and which
//! is replaced.

mod boxes;
mod place;
mod sink;
mod starts;
mod writer;

pub(super) use place::{Outcome, Place};
pub(super) use sink::{attach, post_write_error};
pub(super) use starts::Origin;
