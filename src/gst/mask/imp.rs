//! The element's GObject side.

use super::Output;
use crate::Error;
use crate::geometry::Size;
use crate::gst::meta::MaskView;
use crate::gst::overlay::layout::{layout_of, video_caps};
use crate::gst::overlay::painter::Painter;
use crate::gst::overlay::settings::{Settings, Style};
use crate::gst::planes::FORMATS;
use crate::gst::told::Told;
use crate::kernels::picture::blend::key::{Enlarger, write_key};
use crate::kernels::picture::contour::MaskPlane;
use crate::labels::NO_MASK;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gst_base::subclass::BaseTransformMode;
use gst_base::subclass::prelude::*;
use gst_video::prelude::*;
use gst_video::{VideoFormat, VideoFrameRef, VideoInfo};
use gstreamer as gst;
use gstreamer_base as gst_base;
use gstreamer_video as gst_video;
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "masammask",
        gst::DebugColorFlags::empty(),
        Some("masam's masks as video"),
    )
});

/// What `gst-inspect-1.0` shows.
const EXAMPLE: &str = "gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvert ! masaminfer \
                       model=demo.safetensors ! masammask output=colour ! videoconvert ! autovideosink";

/// Fields of the input's caps that say nothing about the output's pixels.
const PIXEL_FIELDS: [&str; 3] = ["format", "colorimetry", "chroma-site"];

impl Output {
    fn format(self) -> VideoFormat {
        match self {
            Output::Classes => VideoFormat::Gray8,
            Output::Colour => VideoFormat::Rgb,
            Output::Key => VideoFormat::Rgba,
        }
    }
}

/// What the user wishes, and how often that was changed.
struct Wishes {
    output: Output,
    settings: Settings,
    generation: u64,
}

impl Default for Wishes {
    fn default() -> Self {
        // No panels and nothing translucent unless asked for; colours that data sets and their tools know.
        let settings = Settings {
            opacity: 1.0,
            palette: "model".into(),
            default_palette: "model",
            legend: false,
            status: false,
            ..Settings::default()
        };
        Self {
            output: Output::default(),
            settings,
            generation: 0,
        }
    }
}

/// What exists only while caps are known.
struct State {
    output: Output,
    info: VideoInfo,
    /// Reads metas and traces keys, on frames of red, green and blue.
    painter: Painter,
    enlarger: Enlarger,
    generation: u64,
    /// What the user has been warned of.
    told: Told,
}

/// `masammask`.
#[derive(Default)]
pub struct MasamMask {
    wishes: Mutex<Wishes>,
    state: Mutex<Option<State>>,
}

impl MasamMask {
    fn wishes(&self) -> MutexGuard<'_, Wishes> {
        self.wishes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, Option<State>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The meta of the frame, if there is one that fits it and is not too old.
    fn view<'a>(&self, state: &State, buffer: &'a gst::BufferRef) -> Option<MaskView<'a>> {
        let view = MaskView::from_buffer(buffer)?;
        let frame = Size {
            width_px: state.info.width(),
            height_px: state.info.height(),
        };
        if view.frame != frame {
            gst::debug!(CAT, imp = self, "meta of a {:?} frame ignored", view.frame);
            return None;
        }
        let age_nanos = view.age_nanos_at(&self.obj().segment(), buffer.pts());
        let limit = self.wishes().settings.expire_after_nanos;
        limit.is_none_or(|limit| age_nanos <= limit).then_some(view)
    }

    fn render(
        &self,
        state: &mut State,
        input: &gst::BufferRef,
        output: &mut gst::BufferRef,
    ) -> Result<(), String> {
        {
            let wishes = self.wishes();
            if wishes.generation != state.generation {
                state.painter.set_settings(&wishes.settings);
                state.generation = wishes.generation;
                state.told.begin();
            }
        }
        let mut view = self.view(state, input);
        if let Some(view) = &view
            && state.output == Output::Key
        {
            let errors = state.painter.prepare(view, 0, None).1;
            self.warn(&mut state.told, &errors);
        } else if let Some(some) = &view {
            let (usable, errors) = state.painter.read_model(some);
            self.warn(&mut state.told, &errors);
            if !usable {
                view = None;
            }
        }
        let mut frame = VideoFrameRef::from_buffer_ref_writable(output, &state.info)
            .map_err(|error| format!("cannot map an output buffer: {error}"))?;
        let stride = frame
            .plane_stride()
            .first()
            .and_then(|&stride| usize::try_from(stride).ok());
        let stride = stride.ok_or("an output buffer has no plane or a negative stride")?;
        let bytes = frame.plane_data_mut(0).map_err(|error| error.to_string())?;
        let size = Size {
            width_px: state.info.width(),
            height_px: state.info.height(),
        };
        // Without a mask, one of no pixels: everything is outside.
        let plane = match &view {
            Some(view) => MaskPlane {
                ids: &view.plane,
                mask: view.mask,
                region: view.region,
                frame: view.frame,
            },
            None => MaskPlane {
                ids: &[],
                mask: Size::square(1),
                region: size.rect(),
                frame: size,
            },
        };
        match state.output {
            Output::Classes => {
                let table = state.painter.id_table().map(|id| [id]);
                state.enlarger.write(bytes, stride, &plane, &table, [NO_MASK]);
            }
            Output::Colour => {
                let table = state.painter.color_table();
                state.enlarger.write(bytes, stride, &plane, &table, [0; 3]);
            }
            Output::Key => {
                write_key(
                    bytes,
                    stride,
                    size.width_px,
                    state.painter.mask_layer(view.is_some()),
                );
            }
        }
        Ok(())
    }

    fn warn(&self, told: &mut Told, errors: &[Error]) {
        for text in errors.iter().map(ToString::to_string) {
            if told.is_news(&text) {
                gst::element_imp_warning!(self, gst::LibraryError::Settings, ("{text}"));
            }
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for MasamMask {
    // `MasamMask` is the type of the meta.
    const NAME: &'static str = "GstMasamMask";
    type Type = super::MasamMask;
    type ParentType = gst_base::BaseTransform;
}

impl ObjectImpl for MasamMask {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let Wishes {
                output,
                settings: default,
                ..
            } = Wishes::default();
            vec![
                glib::ParamSpecEnum::builder_with_default("output", output)
                    .nick("Output")
                    .blurb("What the element makes of the mask; a change renegotiates")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecFloat::builder("opacity")
                    .nick("Opacity")
                    .blurb("Alpha of a class in a key; 0 shows nothing, in any output")
                    .minimum(0.0)
                    .maximum(1.0)
                    .default_value(default.opacity)
                    .mutable_playing()
                    .build(),
                glib::ParamSpecEnum::builder_with_default("style", default.style)
                    .nick("Style")
                    .blurb("What of a class is in a key")
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder("show-classes")
                    .nick("Show classes")
                    .blurb("Comma list of names or ids of the classes to show; empty is all but background")
                    .default_value(Some(default.show_classes.as_str()))
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder("hide-classes")
                    .nick("Hide classes")
                    .blurb("Comma list of names or ids of classes not to show")
                    .default_value(Some(default.hide_classes.as_str()))
                    .mutable_playing()
                    .build(),
                glib::ParamSpecString::builder("palette")
                    .nick("Palette")
                    .blurb("model (the model file's colours), safe, endovis, or entries name=#rrggbb, as for masamoverlay")
                    .default_value(Some(default.palette.as_str()))
                    .mutable_playing()
                    .build(),
                glib::ParamSpecUInt64::builder("expire-after")
                    .nick("Expire after")
                    .blurb("A mask older than this, in ns, is not shown; the largest value shows any")
                    .default_value(default.expire_after_nanos.unwrap_or(u64::MAX))
                    .mutable_playing()
                    .build(),
            ]
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let mut wishes = self.wishes();
        wishes.generation += 1;
        let text = || value.get::<Option<String>>().ok().flatten().unwrap_or_default();
        let settings = &mut wishes.settings;
        match pspec.name() {
            "output" => {
                wishes.output = value.get().unwrap_or(wishes.output);
                drop(wishes);
                self.obj().reconfigure_src();
            }
            "opacity" => settings.opacity = value.get().unwrap_or(settings.opacity),
            "style" => settings.style = value.get::<Style>().unwrap_or(settings.style),
            "show-classes" => settings.show_classes = text(),
            "hide-classes" => settings.hide_classes = text(),
            "palette" => settings.palette = text(),
            "expire-after" => {
                settings.expire_after_nanos = value.get().ok().filter(|&nanos: &u64| nanos != u64::MAX);
            }
            other => gst::error!(CAT, imp = self, "no property {other}"),
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let wishes = self.wishes();
        let settings = &wishes.settings;
        match pspec.name() {
            "output" => wishes.output.to_value(),
            "opacity" => settings.opacity.to_value(),
            "style" => settings.style.to_value(),
            "show-classes" => settings.show_classes.to_value(),
            "hide-classes" => settings.hide_classes.to_value(),
            "palette" => settings.palette.to_value(),
            "expire-after" => settings.expire_after_nanos.unwrap_or(u64::MAX).to_value(),
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for MasamMask {}

impl ElementImpl for MasamMask {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::with_additional(
                "MA-SAM mask to video",
                "Filter/Converter/Video",
                "Turns the masks that masaminfer attached into a video of their own: class ids, colours, or a key for \
                 an external mixer (research software, not a medical device)",
                "The masam developers",
                &[("example", EXAMPLE)],
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            let outputs = [Output::Classes, Output::Colour, Output::Key].map(Output::format);
            let input = video_caps(FORMATS);
            let output = video_caps(outputs);
            [
                ("sink", gst::PadDirection::Sink, input),
                ("src", gst::PadDirection::Src, output),
            ]
            .into_iter()
            .filter_map(|(name, direction, caps)| {
                gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &caps).ok()
            })
            .collect()
        });
        &TEMPLATES
    }
}

impl BaseTransformImpl for MasamMask {
    const MODE: BaseTransformMode = BaseTransformMode::NeverInPlace;
    const PASSTHROUGH_ON_SAME_CAPS: bool = false;
    const TRANSFORM_IP_ON_PASSTHROUGH: bool = false;

    /// Size, rate and the like are those of the video; the format is that of the output.
    fn transform_caps(
        &self,
        direction: gst::PadDirection,
        caps: &gst::Caps,
        filter: Option<&gst::Caps>,
    ) -> Option<gst::Caps> {
        let output = self.wishes().output.format().to_str();
        let mut other = if direction == gst::PadDirection::Sink {
            caps.clone()
        } else {
            // What downstream cannot take of this output, no input can become.
            caps.intersect(&gst::Caps::builder("video/x-raw").field("format", output).build())
        };
        for structure in other.make_mut().iter_mut() {
            structure.remove_fields(PIXEL_FIELDS);
            if direction == gst::PadDirection::Sink {
                structure.set("format", output);
            } else {
                structure.set("format", gst::List::new(FORMATS.map(VideoFormat::to_str)));
            }
        }
        Some(match filter {
            Some(filter) => filter.intersect_with_mode(&other, gst::CapsIntersectMode::First),
            None => other,
        })
    }

    fn set_caps(&self, incaps: &gst::Caps, outcaps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let read = |caps: &gst::Caps| {
            VideoInfo::from_caps(caps)
                .map_err(|error| gst::loggable_error!(CAT, "cannot read caps {caps}: {error}"))
        };
        let (input, info) = (read(incaps)?, read(outcaps)?);
        if (input.width(), input.height()) != (info.width(), info.height()) {
            return Err(gst::loggable_error!(CAT, "{incaps} and {outcaps} differ in size"));
        }
        let output = [Output::Classes, Output::Colour, Output::Key]
            .into_iter()
            .find(|o| o.format() == info.format());
        let output =
            output.ok_or_else(|| gst::loggable_error!(CAT, "no output has the format {}", info.format()))?;
        let layout = VideoInfo::builder(VideoFormat::Rgba, info.width(), info.height()).build();
        let layout = layout.map_err(|error| gst::loggable_error!(CAT, "{outcaps}: {error}"))?;
        let layout = layout_of(&layout).map_err(|error| gst::loggable_error!(CAT, "{outcaps}: {error}"))?;
        let wishes = self.wishes();
        let painter = Painter::new(layout, wishes.settings.clone());
        let generation = wishes.generation;
        *self.state() = Some(State {
            output,
            info,
            painter,
            enlarger: Enlarger::default(),
            generation,
            told: Told::default(),
        });
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *self.state() = None;
        Ok(())
    }

    /// The output's size does not depend on how the input's rows are padded.
    fn transform_size(
        &self,
        _direction: gst::PadDirection,
        _caps: &gst::Caps,
        _size: usize,
        othercaps: &gst::Caps,
    ) -> Option<usize> {
        VideoInfo::from_caps(othercaps).ok().map(|info| info.size())
    }

    fn unit_size(&self, caps: &gst::Caps) -> Option<usize> {
        VideoInfo::from_caps(caps).ok().map(|info| info.size())
    }

    /// The input's pixels are not read: any strides are fine.
    fn propose_allocation(
        &self,
        decide_query: Option<&gst::query::Allocation>,
        query: &mut gst::query::Allocation,
    ) -> Result<(), gst::LoggableError> {
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        self.parent_propose_allocation(decide_query, query)
    }

    fn transform(
        &self,
        input: &gst::Buffer,
        output: &mut gst::BufferRef,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut state = self.state();
        let Some(state) = state.as_mut() else {
            gst::element_imp_error!(
                self,
                gst::CoreError::Negotiation,
                ["a frame came before its caps"]
            );
            return Err(gst::FlowError::NotNegotiated);
        };
        self.render(state, input, output).map_err(|cause| {
            gst::element_imp_error!(self, gst::ResourceError::Write, ("{cause}"));
            gst::FlowError::Error
        })?;
        Ok(gst::FlowSuccess::Ok)
    }
}
