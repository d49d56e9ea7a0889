//! What is drawn on a frame, and what of it can be kept for the next.
//!
//! Tracing a mask and setting text take far longer than blending them. Both are done again only when the mask, the
//! wishes, the frame's layout or the text change; in between, a frame costs its blending alone.

use super::ahead::Ahead;
use super::panels::{Panels, Tone};
use super::settings::{Inks, Settings, Style};
use crate::Error;
use crate::geometry::{Rect, Size};
use crate::gst::meta::MaskView;
use crate::kernels::picture::blend_layer::Layer;
use crate::kernels::picture::blend_sheet::{FrameLayout, Sheet};
use crate::kernels::picture::contour::{Drawing, Limits, MaskPlane, NOT_DRAWN, Tracer};
use crate::labels::{NO_MASK, Rgb};
use gst::glib;
use gstreamer as gst;
use std::fmt::Write;

/// What the picture says about weights that were not trained.
pub(crate) const UNTRAINED: &str = "UNTRAINED WEIGHTS: masks mean nothing";

/// Width of a contour, in heights of the frame, and its bounds.
const STROKE_OF_FRAME: f32 = 1.0 / 360.0;
const STROKE_MIN_PX: f32 = 1.5;

/// Weight of the newest interval in the mask rate shown.
const RATE_SMOOTHING: f64 = 0.2;

/// Draws masks on the frames of one layout.
#[derive(Debug)]
pub(crate) struct Painter {
    layout: FrameLayout,
    settings: Settings,
    model: Option<Model>,
    tracer: Tracer,
    mask: Traced,
    panels: Panels,
    legend: Sheet,
    legend_of: Option<[bool; 256]>,
    status: Sheet,
    status_text: String,
    status_said: String,
    untrained_said: bool,
    fault_said: String,
    rate: Rate,
    draw: Draw,
}

/// Which sheets the current frame gets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Draw {
    mask: bool,
    legend: bool,
    status: bool,
}

/// Classes as last read from a meta, and what the settings make of them.
#[derive(Debug)]
struct Model {
    names: glib::Variant,
    palette: glib::Variant,
    /// Whether names and palette are a set of classes.
    usable: bool,
    inks: Inks,
}

/// A mask, ready to be drawn.
#[derive(Debug)]
pub(super) struct Traced {
    sheet: Sheet,
    /// What it was made of.
    of: Option<Source>,
    /// Inks that occur in it.
    present: [bool; 256],
}

/// What a mask is made of.
#[derive(Debug, PartialEq)]
struct Source {
    /// Kept, so that no other plane can come to lie at its address.
    plane: glib::Bytes,
    mask: Size,
    region: Rect,
}

impl Default for Traced {
    fn default() -> Self {
        Self {
            sheet: Sheet::default(),
            of: None,
            present: [false; 256],
        }
    }
}

impl Source {
    fn of(view: &MaskView<'_>) -> Self {
        Self {
            plane: view.plane.clone(),
            mask: view.mask,
            region: view.region,
        }
    }

    /// Whether it is the very same.
    fn is(&self, view: &MaskView<'_>) -> bool {
        self.plane.as_ptr() == view.plane.as_ptr() && self.plane.len() == view.plane.len() && self.fits(view)
    }

    fn fits(&self, view: &MaskView<'_>) -> bool {
        self.mask == view.mask && self.region == view.region
    }

    /// Whether it would look the same.
    fn equals(&self, view: &MaskView<'_>) -> bool {
        self.fits(view) && self.plane == view.plane
    }
}

fn same(a: &glib::Variant, b: &glib::Variant) -> bool {
    a.as_ptr() == b.as_ptr() || a == b
}

/// A mask that was made before the frame came that shows it, and all that it depends on.
#[derive(Debug)]
pub(super) struct Foreseen {
    mask: Traced,
    settings: Settings,
    layout: FrameLayout,
    names: glib::Variant,
    palette: glib::Variant,
}

impl Foreseen {
    /// Its memory.
    pub fn into_spare(self) -> Traced {
        Traced {
            of: None,
            ..self.mask
        }
    }
}

/// Masks per second, from the running times of the frames they were computed from.
#[derive(Debug, Default)]
struct Rate {
    last_nanos: Option<u64>,
    interval_nanos: Option<f64>,
}

impl Rate {
    fn see(&mut self, running_time_nanos: Option<u64>) {
        let Some(now) = running_time_nanos else { return };
        if let Some(last) = self.last_nanos
            && now > last
        {
            let interval = (now - last) as f64;
            let before = self.interval_nanos.unwrap_or(interval);
            self.interval_nanos = Some(before + RATE_SMOOTHING * (interval - before));
        } else if self.last_nanos.is_some_and(|last| now < last) {
            self.interval_nanos = None;
        }
        self.last_nanos = Some(now);
    }

    fn per_second(&self) -> Option<f64> {
        self.interval_nanos.map(|interval| 1e9 / interval)
    }
}

/// Whether a meta says that there is no mask: it has a status, and an age of its own it has not.
fn is_nothing(view: &MaskView<'_>) -> bool {
    view.plane.iter().all(|&id| id == NO_MASK) && view.mask == Size::square(1)
}

impl Painter {
    pub fn new(layout: FrameLayout, settings: Settings) -> Self {
        Self {
            layout,
            settings,
            model: None,
            tracer: Tracer::default(),
            mask: Traced::default(),
            panels: Panels::new(&layout),
            legend: Sheet::default(),
            legend_of: None,
            status: Sheet::default(),
            status_text: String::new(),
            status_said: String::new(),
            untrained_said: false,
            fault_said: String::new(),
            rate: Rate::default(),
            draw: Draw::default(),
        }
    }

    /// Size of the frames it draws on.
    pub fn frame(&self) -> Size {
        self.layout.size
    }

    /// Takes changed wishes.
    pub fn set_settings(&mut self, settings: &Settings) {
        if *settings != self.settings {
            self.settings.clone_from(settings);
            self.model = None;
            self.mask.of = None;
            self.legend_of = None;
        }
    }

    /// Prepares what the frame of `view` gets, whose mask is `age_nanos` old. Returns whether that is anything, and
    /// what is wrong with settings or meta, once per cause.
    /// Where the mask was foreseen it is taken from `ahead`.
    pub fn prepare(
        &mut self,
        view: &MaskView<'_>,
        age_nanos: u64,
        ahead: Option<&Ahead>,
    ) -> (bool, Vec<Error>) {
        self.draw = Draw::default();
        if self.settings.opacity <= 0.0 {
            return (false, Vec::new());
        }
        let (usable, errors) = self.read_model(view);
        if !usable {
            return (false, errors);
        }
        let says_nothing = is_nothing(view);
        if !says_nothing {
            self.rate.see(view.running_time_nanos);
        }
        let expired = self
            .settings
            .expire_after_nanos
            .is_some_and(|limit| age_nanos > limit);
        if !expired {
            self.trace(view, ahead);
            self.draw.mask = !self.mask.sheet.is_empty();
            self.draw.legend = self.settings.legend && self.draw.mask;
        }
        if self.draw.legend && self.legend_of != Some(self.mask.present) {
            let classes = self
                .model
                .iter()
                .flat_map(|model| model.inks.classes.iter().enumerate());
            let present = &self.mask.present;
            let shown = classes
                .filter(|(index, _)| present[*index])
                .map(|(_, class)| class);
            self.panels.legend(shown, &self.layout, &mut self.legend);
            self.legend_of = Some(self.mask.present);
        }
        self.draw.status = self.settings.status || (view.untrained && self.draw.mask);
        if self.draw.status {
            self.set_status(view, age_nanos, expired);
        }
        (self.draw != Draw::default(), errors)
    }

    /// Number of passes of [`Painter::draw`] and the plane of each.
    pub fn planes(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        self.layout
            .passes
            .iter()
            .enumerate()
            .map(|(pass, of)| (pass, of.plane))
    }

    /// Draws what [`Painter::prepare`] found, on the bytes of pass `pass`'s plane.
    pub fn draw(&self, pass: usize, bytes: &mut [u8], stride_bytes: usize) {
        for (wanted, sheet) in [
            (self.draw.mask, &self.mask.sheet),
            (self.draw.legend, &self.legend),
            (self.draw.status, &self.status),
        ] {
            if wanted {
                sheet.draw(&self.layout, pass, bytes, stride_bytes);
            }
        }
    }

    /// Makes `model` that of the meta. Returns whether the meta's classes make sense, and what is wrong with them or
    /// with the settings for them, once.
    pub fn read_model(&mut self, view: &MaskView<'_>) -> (bool, Vec<Error>) {
        if let Some(model) = &self.model
            && same(&model.names, &view.names)
            && same(&model.palette, &view.palette)
        {
            return (model.usable, Vec::new());
        }
        let (inks, errors, usable) = match view.classes() {
            Ok(classes) => {
                let (inks, errors) = self.settings.inks(&classes, &self.layout.space);
                (inks, errors, true)
            }
            Err(error) => (Inks::default(), vec![error], false),
        };
        self.model = Some(Model {
            names: view.names.clone(),
            palette: view.palette.clone(),
            usable,
            inks,
        });
        self.mask.of = None;
        self.legend_of = None;
        (usable, errors)
    }

    /// For each id of the model read last: itself where it is shown, 0 where not, and `NO_MASK` for ids of no class.
    pub fn id_table(&self) -> [u8; 256] {
        let mut table = [NO_MASK; 256];
        if let Some(model) = &self.model {
            table
                .iter_mut()
                .take(model.names.n_children())
                .for_each(|id| *id = 0);
            for &id in &model.inks.ids {
                table[usize::from(id)] = id;
            }
        }
        table
    }

    /// For each id of the model read last its colour where it is shown, and black.
    pub fn color_table(&self) -> [Rgb; 256] {
        let mut table = [[0; 3]; 256];
        for (&id, class) in self
            .model
            .iter()
            .flat_map(|model| model.inks.ids.iter().zip(&model.inks.classes))
        {
            table[usize::from(id)] = class.color;
        }
        table
    }

    /// The mask as prepared last, or an empty layer.
    pub fn mask_layer(&mut self, shown: bool) -> &Layer {
        if !shown || !self.draw.mask {
            self.mask.sheet.clear();
            self.mask.of = None;
        }
        &self.mask.sheet.layer
    }

    /// Makes `mask` that of the meta, which will be asked for. False where there is nothing to make it of.
    pub(super) fn foresee(&mut self, view: &MaskView<'_>) -> bool {
        if self.settings.opacity <= 0.0 || !self.read_model(view).0 {
            return false;
        }
        self.trace(view, None);
        true
    }

    /// Takes the mask of `made` if it is that of the meta and looks as it would here, and leaves the one before.
    pub(super) fn adopt(&mut self, view: &MaskView<'_>, made: &mut Foreseen) -> bool {
        let is_it = made.mask.of.as_ref().is_some_and(|of| of.equals(view))
            && made.settings == self.settings
            && made.layout == self.layout
            && self
                .model
                .as_ref()
                .is_some_and(|model| same(&model.names, &made.names) && same(&model.palette, &made.palette));
        if is_it {
            std::mem::swap(&mut self.mask, &mut made.mask);
            self.mask.of = Some(Source::of(view));
        }
        is_it
    }

    /// The mask made last, for `spare`, and all that it depends on.
    pub(super) fn foreseen(&mut self, spare: Traced) -> Option<Foreseen> {
        let (names, palette) = self
            .model
            .as_ref()
            .map(|model| (model.names.clone(), model.palette.clone()))?;
        Some(Foreseen {
            mask: std::mem::replace(&mut self.mask, spare),
            settings: self.settings.clone(),
            layout: self.layout,
            names,
            palette,
        })
    }

    /// Makes `mask` that of the meta.
    fn trace(&mut self, view: &MaskView<'_>, ahead: Option<&Ahead>) {
        if self.mask.of.as_ref().is_some_and(|of| of.is(view)) {
            return;
        }
        if ahead.is_some_and(|ahead| ahead.give(view, self)) {
            return;
        }
        let Some(model) = &self.model else { return };
        let stroke_px = match self.settings.style {
            Style::Fill => 0.0,
            Style::Contour | Style::Both => {
                (self.layout.size.height_px as f32 * STROKE_OF_FRAME).max(STROKE_MIN_PX)
            }
        };
        let plane = MaskPlane {
            ids: &view.plane,
            mask: view.mask,
            region: view.region,
            frame: view.frame,
        };
        let drawing = Drawing {
            ink_of_id: &model.inks.ink_of_id,
            inks: &model.inks.inks,
            half_stroke_px: stroke_px / 2.0,
        };
        self.tracer
            .trace(&plane, &drawing, Limits::default(), &mut self.mask.sheet.layer);
        self.mask.sheet.finish(&self.layout);
        let present = &mut self.mask.present;
        *present = [false; 256];
        for &id in view.plane.iter() {
            present[usize::from(model.inks.ink_of_id[usize::from(id)])] = true;
        }
        present[usize::from(NOT_DRAWN)] = false;
        self.mask.of = Some(Source::of(view));
    }

    fn set_status(&mut self, view: &MaskView<'_>, age_nanos: u64, expired: bool) {
        self.status_text.clear();
        if self.settings.status {
            let millis = age_nanos as f64 / 1e6;
            // Writing to a string does not fail.
            let _ = match is_nothing(view) {
                true => write!(self.status_text, "no mask"),
                false => write!(self.status_text, "mask age {millis:.0} ms"),
            };
            if expired {
                self.status_text.push_str(", too old to show");
            }
            // What no mask is shown of has no rate.
            let is_shown = !expired && !is_nothing(view);
            if let Some(rate) = self.rate.per_second().filter(|_| is_shown) {
                let _ = write!(self.status_text, "  ·  {rate:.1} masks/s");
            }
            if view.carried {
                self.status_text.push_str("  ·  carried");
            }
            if !view.model_id.is_empty() {
                let _ = write!(self.status_text, "  ·  {}", view.model_id);
            }
        }
        let fault = view.status.unwrap_or_default();
        if self.status_text == self.status_said
            && self.untrained_said == view.untrained
            && self.fault_said == fault
            && !self.status.is_empty()
        {
            return;
        }
        let lines = [
            (Tone::Alarm, if view.untrained { UNTRAINED } else { "" }),
            (
                if expired { Tone::Warning } else { Tone::Quiet },
                self.status_text.as_str(),
            ),
            (Tone::Warning, if self.settings.status { fault } else { "" }),
        ];
        self.panels.status(&lines, &self.layout, &mut self.status);
        self.status_said.clone_from(&self.status_text);
        self.untrained_said = view.untrained;
        self.fault_said.clear();
        self.fault_said.push_str(fault);
    }
}
