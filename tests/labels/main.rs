//! Labels as people have them: read rightly where their meaning is certain, refused elsewhere, and never scored wrongly.

mod import;
mod masks_2017;
mod own;
mod support;
mod variants;
