//! The properties of the parts, specified again for the whole.

use crate::gst::infer::{Emit, Mode, Priority};
use crate::gst::overlay::Style;
use gst::glib;
use gst::prelude::*;
use gstreamer as gst;

/// A specification like `spec`, for another class: one cannot be installed twice. `None` for a type that no element
/// of ours uses.
pub(super) fn like(spec: &glib::ParamSpec) -> Option<glib::ParamSpec> {
    let flags = spec.flags();
    let (name, nick, blurb) = (spec.name(), spec.nick(), spec.blurb().unwrap_or_default());
    macro_rules! finished {
        ($builder:expr) => {
            Some($builder.nick(nick).blurb(blurb).flags(flags).build())
        };
    }
    macro_rules! number {
        ($kind:ty) => {
            if let Some(old) = spec.downcast_ref::<$kind>() {
                let (least, most) = (old.minimum(), old.maximum());
                let new = <$kind>::builder(name).minimum(least).maximum(most);
                return finished!(new.default_value(old.default_value()));
            }
        };
    }
    macro_rules! choice {
        ($kind:ty) => {
            if let Ok(default) = spec.default_value().get::<$kind>() {
                return finished!(glib::ParamSpecEnum::builder_with_default::<$kind>(
                    name, default
                ));
            }
        };
    }
    if let Some(old) = spec.downcast_ref::<glib::ParamSpecString>() {
        return finished!(glib::ParamSpecString::builder(name).default_value(old.default_value()));
    }
    if let Some(old) = spec.downcast_ref::<glib::ParamSpecBoolean>() {
        return finished!(glib::ParamSpecBoolean::builder(name).default_value(old.default_value()));
    }
    number!(glib::ParamSpecUInt);
    number!(glib::ParamSpecUInt64);
    number!(glib::ParamSpecFloat);
    number!(glib::ParamSpecDouble);
    choice!(Emit);
    choice!(Mode);
    choice!(Priority);
    choice!(Style);
    if spec.value_type() == gst::Structure::static_type() {
        return finished!(glib::ParamSpecBoxed::builder::<gst::Structure>(name));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gst::infer::Infer;
    use crate::gst::overlay::MasamOverlay;

    #[test]
    fn every_property_of_the_parts_can_be_specified_again() {
        gst::init().unwrap();
        for kind in [Infer::static_type(), MasamOverlay::static_type()] {
            let class = glib::Class::<glib::Object>::from_type(kind).unwrap();
            let own: Vec<_> = class
                .list_properties()
                .iter()
                .filter(|s| s.owner_type() == kind)
                .cloned()
                .collect();
            assert!(!own.is_empty());
            for spec in &own {
                let new = like(spec).unwrap_or_else(|| panic!("{} has another type", spec.name()));
                assert_eq!(new.value_type(), spec.value_type());
                assert_eq!(
                    (new.name(), new.nick(), new.blurb()),
                    (spec.name(), spec.nick(), spec.blurb())
                );
                // A structure has no default, and GLib complains when that is printed.
                if spec.value_type() != gst::Structure::static_type() {
                    let printed = |s: &glib::ParamSpec| format!("{:?}", s.default_value());
                    assert_eq!(printed(&new), printed(spec));
                }
                assert_eq!(new.flags(), spec.flags());
            }
        }
    }
}
