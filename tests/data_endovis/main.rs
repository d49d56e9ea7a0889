//! EndoVis 2018 and 2017 as released, one trap at a time, on small folders made here.

mod check;
mod clips;
mod instruments;
mod pictures;
mod releases;
mod support;
