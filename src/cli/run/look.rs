//! How masks are drawn: options of `masam run` for the properties of `masamoverlay`.

use super::{duration, set};
use crate::gst::overlay::settings::check;
use crate::labels::ClassSet;
use anyhow::{Result, bail};
use clap::{ArgAction, Args};
use gstreamer as gst;
use gstreamer::prelude::*;
use std::time::Duration;

/// What is drawn, and how. What is left out stays as the elements have it.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Overlay")]
pub(super) struct Look {
    /// What of a class is drawn: fill (its area), contour (its outline) or both. [default: fill]
    #[arg(long)]
    style: Option<String>,
    /// How much of the picture a mask covers, 0 to 1. [default: 0.45]
    #[arg(long)]
    opacity: Option<f32>,
    /// Colors of the classes: safe (told apart by the color-blind too), model (the model file's), endovis, entries
    /// name=#rrggbb with commas between them, or a name and entries: model,thread=#ff00ff. [default: safe]
    #[arg(long)]
    palette: Option<String>,
    /// Draw these classes only: names or ids with commas between them. [default: all but background]
    #[arg(long, value_name = "CLASSES")]
    show_classes: Option<String>,
    /// Do not draw these classes.
    #[arg(long, value_name = "CLASSES")]
    hide_classes: Option<String>,
    /// Factors on the opacity of single classes: name=factor with commas between them.
    #[arg(long, value_name = "FACTORS")]
    class_opacity: Option<String>,
    /// Names and colors of the classes in the picture: true or false. [default: true]
    #[arg(long, action = ArgAction::Set, value_name = "BOOL")]
    legend: Option<bool>,
    /// A line with the mask's age, the rate of masks, the model and its faults: true or false. [default: true]
    #[arg(long, action = ArgAction::Set, value_name = "BOOL")]
    status: Option<bool>,
    /// Live: move a mask along with what it covers until the next one comes.
    #[arg(long)]
    carry: bool,
    /// Live: masks of frames older than this are not shown, in seconds. [default: 0.5]
    #[arg(long, value_name = "TIME", value_parser = duration::parse)]
    max_mask_age: Option<Duration>,
}

/// Properties that `masammask` has as well.
const OF_MASKS: [&str; 4] = ["palette", "show-classes", "hide-classes", "expire-after"];

impl Look {
    /// Refuses what the classes of the model do not have, and anything where nothing is drawn.
    ///
    /// # Errors
    /// Every wrong option at once.
    pub(super) fn check(&self, classes: &ClassSet, draws: bool) -> Result<()> {
        let given = self.overlay();
        let wrong = given.iter().filter_map(|(option, text)| {
            let error = check(option, text, classes).err()?;
            Some(format!("--{option} {text}: {error}"))
        });
        let wrong: Vec<String> = wrong.collect();
        if !wrong.is_empty() {
            bail!("{}", wrong.join("; "));
        }
        let drawing = |option: &str| !OF_MASKS.contains(&option);
        if let Some((option, _)) = given.iter().find(|(option, _)| !draws && drawing(option)) {
            bail!(
                "--{option}: nothing is drawn in a folder of masks; write a video (-o FILE.mp4) or leave it out"
            );
        }
        Ok(())
    }

    /// The given properties of the overlay, as text.
    fn overlay(&self) -> Vec<(&'static str, String)> {
        let nanos = |time: &Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).to_string();
        [
            ("style", self.style.clone()),
            ("opacity", self.opacity.map(|opacity| opacity.to_string())),
            ("palette", self.palette.clone()),
            ("show-classes", self.show_classes.clone()),
            ("hide-classes", self.hide_classes.clone()),
            ("class-opacity", self.class_opacity.clone()),
            ("legend", self.legend.map(|legend| legend.to_string())),
            ("status", self.status.map(|status| status.to_string())),
            ("expire-after", self.max_mask_age.as_ref().map(nanos)),
        ]
        .into_iter()
        .filter_map(|(property, value)| Some((property, value?)))
        .collect()
    }

    /// Sets the properties of both elements.
    ///
    /// # Errors
    /// A value that its property does not take.
    pub(super) fn apply(&self, infer: &gst::Element, overlay: &gst::Element) -> Result<()> {
        infer.set_property("carry", self.carry);
        if let Some(age) = self.max_mask_age {
            infer.set_property("max-mask-age", u64::try_from(age.as_nanos()).unwrap_or(u64::MAX));
        }
        for (property, value) in self.overlay() {
            set(overlay, property, &value)?;
        }
        Ok(())
    }
}
