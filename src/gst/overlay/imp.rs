//! The element's GObject side.

use super::ahead::Ahead;
use super::layout::{layout_of, video_caps};
use super::painter::Painter;
use super::settings::{Settings, Style};
use crate::geometry::Size;
use crate::gst::meta::{self, MaskView};
use crate::gst::planes::{FORMATS, Layout, pixel_format};
use crate::gst::told::Told;
use crate::kernels::picture::convert::PixelFormat;
use crate::{Error, Result};
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::prelude::*;
use gst_base::subclass::BaseTransformMode;
use gst_base::subclass::base_transform::GenerateOutputSuccess;
use gst_base::subclass::prelude::*;
use gstreamer as gst;
use gstreamer_base as gst_base;
use gstreamer_video as gst_video;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "masamoverlay",
        gst::DebugColorFlags::empty(),
        Some("Overlay of masam's masks"),
    )
});

/// What `gst-inspect-1.0` shows.
const EXAMPLE: &str = "gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvert ! masaminfer \
                       model=demo.safetensors ! masamoverlay style=both ! videoconvert ! autovideosink";

/// What exists only while caps are known.
struct State {
    info: gst_video::VideoInfo,
    pixels: PixelFormat,
    painter: Painter,
    /// Settings that `painter` has seen.
    generation: u64,
    /// What has been said of these settings, and of those before.
    told: Told,
    /// The last frame could not be drawn on.
    unpaintable: bool,
}

/// Wishes, and how often they were changed.
#[derive(Default)]
struct Wishes {
    settings: Arc<Settings>,
    generation: u64,
}

/// `masamoverlay`.
#[derive(Default)]
pub struct MasamOverlay {
    wishes: Mutex<Wishes>,
    state: Mutex<Option<State>>,
    ahead: Ahead,
}

impl MasamOverlay {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Prepares the painter for the frame; true when there is something to draw.
    fn prepare(&self, state: &mut State, buffer: &gst::BufferRef) -> bool {
        let Some(view) = MaskView::from_buffer(buffer) else {
            return false;
        };
        if view.frame
            != (Size {
                width_px: state.info.width(),
                height_px: state.info.height(),
            })
        {
            gst::debug!(CAT, imp = self, "meta of a {:?} frame ignored", view.frame);
            return false;
        }
        {
            let wishes = self.wishes();
            if wishes.generation != state.generation {
                state.painter.set_settings(&wishes.settings);
                state.generation = wishes.generation;
                state.told.begin();
            }
        }
        let age_nanos = view.age_nanos_at(&self.obj().segment(), buffer.pts());
        let (anything, errors) = state.painter.prepare(&view, age_nanos, Some(&self.ahead));
        for text in errors.iter().map(ToString::to_string) {
            if state.told.is_news(&text) {
                gst::element_imp_warning!(self, gst::LibraryError::Settings, ("{text}"));
            }
        }
        anything
    }

    /// Draws what was prepared.
    fn paint(&self, state: &State, buffer: &mut gst::BufferRef) -> Result<()> {
        let layout = Layout::of(buffer, &state.info)?;
        if (layout.x_px, layout.y_px) != (0, 0) {
            let found = format!("at {}, {}", layout.x_px, layout.y_px);
            return Err(Error::config("crop meta", found, "frames have to begin at 0, 0"));
        }
        // Before the first plane is drawn on: brightness without its colour would be half a mask.
        layout.check(buffer, state.pixels)?;
        for (pass, plane) in state.painter.planes() {
            layout.write(buffer, state.pixels, plane, |bytes| {
                state.painter.draw(pass, bytes, layout.strides_bytes[plane]);
            })?;
        }
        Ok(())
    }
}

#[glib::object_subclass]
impl ObjectSubclass for MasamOverlay {
    const NAME: &'static str = "MasamOverlay";
    type Type = super::MasamOverlay;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for MasamOverlay {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let default = Settings::default();
            vec![
                glib::ParamSpecFloat::builder("opacity")
                    .nick("Opacity")
                    .blurb("How much of the frame a mask covers; 0 turns the element off")
                    .minimum(0.0)
                    .maximum(1.0)
                    .default_value(default.opacity)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder_with_default("style", default.style)
                    .nick("Style")
                    .blurb("What of a class is drawn")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder("show-classes")
                    .nick("Show classes")
                    .blurb("Comma list of names or ids of the classes to draw; empty is all but background")
                    .default_value(Some(default.show_classes.as_str()))
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder("hide-classes")
                    .nick("Hide classes")
                    .blurb("Comma list of names or ids of classes not to draw")
                    .default_value(Some(default.hide_classes.as_str()))
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder("palette")
                    .nick("Palette")
                    .blurb(
                        "safe (told apart by the colour-blind too), model (the model file's colours), endovis, or \
                         entries name=#rrggbb; a name and entries can be combined: model,thread=#ff00ff",
                    )
                    .default_value(Some(default.palette.as_str()))
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder("class-opacity")
                    .nick("Opacity of classes")
                    .blurb("Comma list of name=factor: the opacity of a class is its factor times opacity, at most 1")
                    .default_value(Some(default.class_opacity.as_str()))
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoolean::builder("legend")
                    .nick("Legend")
                    .blurb("Names of the classes in the picture, with their colours")
                    .default_value(default.legend)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecBoolean::builder("status")
                    .nick("Status")
                    .blurb("A line with the mask's age, the rate of masks and the model, and its faults")
                    .default_value(default.status)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt64::builder("expire-after")
                    .nick("Expire after")
                    .blurb("A mask older than this, in ns, is not drawn; the largest value draws any")
                    .default_value(default.expire_after_nanos.unwrap_or(u64::MAX))
                    .mutable_playing()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut wishes = self.wishes();
        let settings = Arc::make_mut(&mut wishes.settings);
        let text = || value.get::<Option<String>>().ok().flatten().unwrap_or_default();
        match pspec.name() {
            "opacity" => settings.opacity = value.get().unwrap_or(settings.opacity),
            "style" => settings.style = value.get::<Style>().unwrap_or(settings.style),
            "show-classes" => settings.show_classes = text(),
            "hide-classes" => settings.hide_classes = text(),
            "palette" => settings.palette = text(),
            "class-opacity" => settings.class_opacity = text(),
            "legend" => settings.legend = value.get().unwrap_or(settings.legend),
            "status" => settings.status = value.get().unwrap_or(settings.status),
            "expire-after" => {
                settings.expire_after_nanos = value.get().ok().filter(|&nanos: &u64| nanos != u64::MAX);
            }
            other => gst::error!(CAT, imp = self, "no property {other}"),
        }
        wishes.generation += 1;
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = &self.wishes().settings;
        match pspec.name() {
            "opacity" => settings.opacity.to_value(),
            "style" => settings.style.to_value(),
            "show-classes" => settings.show_classes.to_value(),
            "hide-classes" => settings.hide_classes.to_value(),
            "palette" => settings.palette.to_value(),
            "class-opacity" => settings.class_opacity.to_value(),
            "legend" => settings.legend.to_value(),
            "status" => settings.status.to_value(),
            "expire-after" => settings.expire_after_nanos.unwrap_or(u64::MAX).to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for MasamOverlay {}

impl ElementImpl for MasamOverlay {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::with_additional(
                "MA-SAM mask overlay",
                "Filter/Effect/Video",
                "Draws the masks that masaminfer attached, with legend and status, in the frame's own format \
                 (research software, not a medical device)",
                "The masam developers",
                &[("example", EXAMPLE)],
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let caps = video_caps(FORMATS);
            [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                .into_iter()
                .filter_map(|(name, direction)| {
                    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
                })
                .collect()
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for MasamOverlay {
    const MODE: BaseTransformMode = BaseTransformMode::AlwaysInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    fn set_caps(&self, incaps: &gst::Caps, _outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = gst_video::VideoInfo::from_caps(incaps)
            .map_err(|error| gst::loggable_error!(CAT, "cannot read caps {incaps}: {error}"))?;
        let layout = layout_of(&info)
            .map_err(|error| gst::loggable_error!(CAT, "cannot draw on {incaps}: {error}"))?;
        let pixels = pixel_format(info.format())
            .ok_or_else(|| gst::loggable_error!(CAT, "cannot draw on {incaps}"))?;
        let wishes = self.wishes();
        let painter = Painter::new(layout, Settings::clone(&wishes.settings));
        self.ahead.reset(Some((layout, &wishes.settings)));
        *self.state() = Some(State {
            info,
            pixels,
            painter,
            generation: wishes.generation,
            told: Told::default(),
            unpaintable: false,
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.state() = None;
        self.ahead.reset(None);
        Ok(())
    }

    /// Masks are announced before the first frame comes that shows them.
    fn sink_event(&self, event: gst::Event) -> bool {
        // A video's own thread has no time for it.
        if event.type_() == gst::EventType::CustomDownstreamOob
            && crate::priority::is_in_background()
            && let Some(structure) = event
                .structure()
                .filter(|structure| structure.name() == meta::NAME)
            && let Ok(view) = MaskView::read(structure)
        {
            let settings = Arc::clone(&self.wishes().settings);
            self.ahead.announce(&view, &settings);
        }
        self.parent_sink_event(event)
    }

    /// Buffers pass through; where the base class would copy a shared one in any case, this copies it only when there
    /// is something to draw.
    fn generate_output(&self) -> Result<GenerateOutputSuccess, gst::FlowError> {
        let Some(mut buffer) = self.take_queued_buffer() else {
            return Ok(GenerateOutputSuccess::NoOutput);
        };
        let mut state = self.state();
        let Some(state) = state.as_mut() else {
            gst::element_imp_error!(
                self,
                gst::CoreError::Negotiation,
                ["a frame came before its caps"]
            );
            return Err(gst::FlowError::NotNegotiated);
        };
        let painted = self
            .prepare(state, &buffer)
            .then(|| self.paint(state, buffer.make_mut()));
        if let Some(painted) = painted {
            // A frame that cannot be drawn on goes on without a mask; one warning says so until one can be again.
            if let Err(cause) = &painted
                && !state.unpaintable
            {
                gst::element_imp_warning!(self, gst::ResourceError::Write, ("no mask is drawn: {cause}"));
            }
            state.unpaintable = painted.is_err();
        }
        Ok(GenerateOutputSuccess::Buffer(buffer))
    }

    fn transform_ip(&self, _buffer: &mut gst::BufferRef) -> Result<gst::FlowSuccess, gst::FlowError> {
        // Only `generate_output` produces buffers; the base class wants the method to exist.
        Ok(gst::FlowSuccess::Ok)
    }

    /// Nothing is allocated here, so no pool that downstream offers is to be started.
    fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        for index in (0..query.allocation_pools().len()).rev() {
            query.remove_nth_allocation_pool(index as u32);
        }
        Ok(())
    }

    /// Buffers go on as they are: what downstream offers holds for upstream. Strides of any kind are fine.
    fn propose_allocation(
        &self,
        _decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        if !self.obj().src_pad().peer_query(query) {
            gst::debug!(CAT, imp = self, "downstream has no wishes for the allocation");
        }
        if query.find_allocation_meta::<gst_video::VideoMeta>().is_none() {
            query.add_allocation_meta::<gst_video::VideoMeta>(None);
        }
        Ok(())
    }
}
