//! Reading the mask meta without copying it.

use super::{CAT, MaskMeta, SCHEMA, register, structure_of};
use crate::error::{Error, Result};
use crate::geometry::{Rect, Size};
use crate::labels::{Class, ClassSet, MAX_CLASSES};
use gst::glib;
use gstreamer as gst;

/// A meta read without copying: what the elements use for each frame, so that nothing is allocated.
#[derive(Debug)]
pub(crate) struct MaskView<'a> {
    pub epoch: u64,
    pub running_time_nanos: Option<u64>,
    pub age_nanos: u64,
    pub frame: Size,
    pub region: Rect,
    pub mask: Size,
    pub plane: glib::Bytes,
    pub confidence: Option<glib::Bytes>,
    /// `as`, as many as `palette`.
    pub names: glib::Variant,
    /// `au`.
    pub palette: glib::Variant,
    pub model_id: &'a str,
    pub carried: bool,
    pub untrained: bool,
    pub status: Option<&'a str>,
}

impl<'a> MaskView<'a> {
    /// The meta of `buffer`, checked except for its class names.
    pub fn from_buffer(buffer: &'a gst::BufferRef) -> Option<Self> {
        register();
        let structure = structure_of(buffer)?;
        match Self::read(structure) {
            Ok(view) => Some(view),
            Err(error) => {
                gst::debug!(CAT, "malformed meta: {error}");
                None
            }
        }
    }

    /// The meta in `structure`, checked except for its class names.
    ///
    /// # Errors
    /// A field that is missing, of another type or beyond its bounds.
    pub fn read(structure: &'a gst::StructureRef) -> Result<Self> {
        let schema: u32 = field(structure, "schema")?;
        if schema != SCHEMA {
            return Err(Error::config(
                "schema",
                schema,
                format!("this build reads {SCHEMA}"),
            ));
        }
        let size = |width, height| Size::checked(field(structure, width)?, field(structure, height)?);
        let region = Rect {
            x_px: field(structure, "region-x")?,
            y_px: field(structure, "region-y")?,
            width_px: field(structure, "region-width")?,
            height_px: field(structure, "region-height")?,
        };
        let running_time: u64 = field(structure, "running-time")?;
        let view = Self {
            epoch: field(structure, "epoch")?,
            running_time_nanos: (running_time != gst::ffi::GST_CLOCK_TIME_NONE).then_some(running_time),
            age_nanos: field(structure, "age")?,
            frame: size("frame-width", "frame-height")?,
            region,
            mask: size("mask-width", "mask-height")?,
            plane: field(structure, "mask")?,
            confidence: optional(structure, "confidence")?,
            names: field(structure, "classes")?,
            palette: field(structure, "palette")?,
            model_id: field(structure, "model-id")?,
            carried: field(structure, "carried")?,
            untrained: field(structure, "untrained")?,
            status: optional(structure, "status")?,
        };
        check_geometry(view.frame, view.region, view.mask)?;
        check_plane("mask", &view.plane, view.mask)?;
        if let Some(confidence) = &view.confidence {
            check_plane("confidence", confidence, view.mask)?;
        }
        Ok(view)
    }

    /// Age of the mask on a frame with this time stamp: what the meta says, or more where time has passed since.
    pub fn age_nanos_at(&self, segment: &gst::Segment, pts: Option<gst::ClockTime>) -> u64 {
        let shown = segment
            .downcast_ref::<gst::ClockTime>()
            .and_then(|segment| segment.to_running_time(pts));
        let passed = shown
            .zip(self.running_time_nanos)
            .map(|(shown, made)| shown.nseconds().saturating_sub(made));
        passed.unwrap_or(0).max(self.age_nanos)
    }

    /// Classes out of names and palette.
    pub fn classes(&self) -> Result<ClassSet> {
        let count = |variant: &glib::Variant, what: &str, kind: &str| {
            if variant.type_().as_str() != kind {
                return Err(Error::config(
                    what,
                    variant.type_(),
                    format!("its type has to be {kind}"),
                ));
            }
            let count = variant.n_children();
            if count > MAX_CLASSES {
                return Err(Error::config(
                    what,
                    count,
                    format!("a model has 1 to {MAX_CLASSES} classes"),
                ));
            }
            Ok(count)
        };
        let (names, colors) = (
            count(&self.names, "classes", "as")?,
            count(&self.palette, "palette", "au")?,
        );
        if names != colors {
            return Err(Error::config(
                "palette",
                colors,
                format!("there are {names} classes"),
            ));
        }
        let wrong =
            |error: glib::variant::VariantTypeMismatchError| Error::config("classes", error, "as and au");
        let colors = self.palette.fixed_array::<u32>().map_err(wrong)?;
        let class = |(name, &color): (&str, &u32)| {
            let [_, red, green, blue] = color.to_be_bytes();
            Class {
                name: name.into(),
                color: [red, green, blue],
            }
        };
        ClassSet::new(
            self.names
                .array_iter_str()
                .map_err(wrong)?
                .zip(colors)
                .map(class)
                .collect(),
        )
    }

    pub(super) fn to_meta(&self) -> Result<MaskMeta> {
        Ok(MaskMeta {
            epoch: self.epoch,
            running_time_nanos: self.running_time_nanos,
            age_nanos: self.age_nanos,
            frame: self.frame,
            region: self.region,
            mask: self.mask,
            classes: self.classes()?,
            plane: self.plane.clone(),
            model_id: self.model_id.into(),
            carried: self.carried,
            untrained: self.untrained,
            confidence: self.confidence.clone(),
            status: self.status.map(Into::into),
        })
    }
}

fn field<'a, T>(structure: &'a gst::StructureRef, name: &str) -> Result<T>
where
    T: glib::value::FromValue<'a>,
    T::Checker: glib::value::ValueTypeChecker<Error: std::fmt::Display>,
{
    let value = structure
        .value(name)
        .map_err(|error| Error::config(name, "missing", error.to_string()))?;
    value
        .get::<T>()
        .map_err(|error| Error::config(name, value.type_(), error.to_string()))
}

fn optional<'a, T>(structure: &'a gst::StructureRef, name: &str) -> Result<Option<T>>
where
    T: glib::value::FromValue<'a>,
    T::Checker: glib::value::ValueTypeChecker<Error: std::fmt::Display>,
{
    if structure.has_field(name) {
        field(structure, name).map(Some)
    } else {
        Ok(None)
    }
}

pub(super) fn check_geometry(frame: Size, region: Rect, mask: Size) -> Result<()> {
    for size in [frame, mask] {
        Size::checked(size.width_px, size.height_px)?;
    }
    if !region.fits(frame) {
        let bound = format!(
            "it has to lie inside the {} x {} frame",
            frame.width_px, frame.height_px
        );
        return Err(Error::config("region", format!("{region:?}"), bound));
    }
    Ok(())
}

pub(super) fn check_plane(name: &str, plane: &[u8], size: Size) -> Result<()> {
    if plane.len() != size.area() {
        let bound = format!(
            "{} x {} pixels need {}",
            size.width_px,
            size.height_px,
            size.area()
        );
        return Err(Error::config(name, format!("{} bytes", plane.len()), bound));
    }
    Ok(())
}
