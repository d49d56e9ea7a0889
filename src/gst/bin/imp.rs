//! The bin: two parts, two ghost pads, and every property passed on to the part that has it.

use crate::gst::infer::Infer;
use crate::gst::overlay::MasamOverlay;
use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;
use gstreamer as gst;
use std::sync::LazyLock;

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "masambin",
        gst::DebugColorFlags::empty(),
        Some("MA-SAM inference and overlay"),
    )
});

/// What `gst-inspect-1.0` shows.
const EXAMPLE: &str = "gst-launch-1.0 filesrc location=in.mp4 ! decodebin ! videoconvert ! masam \
                       model=demo.safetensors style=both ! videoconvert ! autovideosink";

/// The element.
pub struct Masam {
    infer: Infer,
    overlay: MasamOverlay,
    sinkpad: gst::GhostPad,
    srcpad: gst::GhostPad,
}

impl Masam {
    pub(super) fn infer(&self) -> &Infer {
        &self.infer
    }

    pub(super) fn overlay(&self) -> &MasamOverlay {
        &self.overlay
    }

    /// The part that has the property.
    fn part_with(&self, property: &str) -> &gst::Element {
        if self
            .infer
            .find_property(property)
            .is_some_and(|spec| spec.owner_type() == Infer::static_type())
        {
            self.infer.upcast_ref()
        } else {
            self.overlay.upcast_ref()
        }
    }

    /// Puts the parts together and opens the bin's pads on their outer ones.
    fn assemble(&self) -> Result<(), glib::BoolError> {
        let bin = self.obj();
        let parts: [&gst::Element; 2] = [self.infer.upcast_ref(), self.overlay.upcast_ref()];
        bin.add_many(parts)?;
        gst::Element::link_many(parts)?;
        for (ghost, part, name) in [(&self.sinkpad, parts[0], "sink"), (&self.srcpad, parts[1], "src")] {
            let inner = part
                .static_pad(name)
                .ok_or_else(|| glib::bool_error!("a part has no pad {name}"))?;
            ghost.set_target(Some(&inner))?;
            bin.add_pad(ghost)?;
        }
        Ok(())
    }
}

#[glib::object_subclass]
impl ObjectSubclass for Masam {
    const NAME: &'static str = "Masam";
    type Type = super::Masam;
    type ParentType = gst::Bin;

    fn with_class(class: &Self::Class) -> Self {
        // Both templates are in `pad_templates` below, so they are there.
        #[allow(
            clippy::expect_used,
            reason = "a class without its own templates cannot exist"
        )]
        let ghost = |name: &str| {
            let template = class.pad_template(name).expect("the class has its templates");
            gst::GhostPad::builder_from_template(&template).build()
        };
        Self {
            infer: glib::Object::builder().property("name", "infer").build(),
            overlay: glib::Object::builder().property("name", "overlay").build(),
            sinkpad: ghost("sink"),
            srcpad: ghost("src"),
        }
    }
}

impl ObjectImpl for Masam {
    fn properties() -> &'static [glib::ParamSpec] {
        static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
            let of = |kind: glib::Type| {
                let class = glib::Class::<glib::Object>::from_type(kind);
                let specs = class
                    .map(|class| class.list_properties().to_vec())
                    .unwrap_or_default();
                specs.into_iter().filter(move |spec| spec.owner_type() == kind)
            };
            let parts = of(Infer::static_type()).chain(of(MasamOverlay::static_type()));
            parts
                .filter_map(|spec| super::specification::like(&spec))
                .collect()
        });
        &PROPERTIES
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        self.part_with(pspec.name())
            .set_property_from_value(pspec.name(), value);
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        self.part_with(pspec.name()).property_value(pspec.name())
    }

    fn constructed(&self) {
        self.parent_constructed();
        if let Err(error) = self.assemble() {
            gst::error!(CAT, imp = self, "{error}");
        }
    }
}

impl GstObjectImpl for Masam {}

impl ElementImpl for Masam {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::with_additional(
                "MA-SAM inference and overlay",
                "Filter/Effect/Video",
                "Finds instruments and anatomy with an MA-SAM model and draws them over the video (research \
                 software, not a medical device)",
                "The masam developers",
                &[("example", EXAMPLE)],
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            [("sink", gst::PadDirection::Sink), ("src", gst::PadDirection::Src)]
                .into_iter()
                .filter_map(|(name, way)| {
                    let caps = crate::gst::infer::caps();
                    gst::PadTemplate::new(name, way, gst::PadPresence::Always, &caps).ok()
                })
                .collect()
        });
        &TEMPLATES
    }
}

impl BinImpl for Masam {}
