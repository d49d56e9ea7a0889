//! The mask meta: what `masaminfer` attaches to a frame and what `masamoverlay`, `masammask` and applications read.
//!
#![doc = include_str!("../../docs/mask-meta.md")]

mod transform;
mod view;

use crate::Result;
use crate::geometry::{Rect, Size};
use crate::labels::ClassSet;
use gst::glib;
use gst::glib::translate::{IntoGlibPtr, ToGlibPtr};
use gst::glib::variant::ToVariant;
use gstreamer as gst;
use std::ffi::CStr;
use std::sync::{LazyLock, Mutex, Once, PoisonError};

pub(crate) use view::MaskView;
use view::{check_geometry, check_plane};

/// Name of the meta and of its structure.
pub const NAME: &str = "MasamMask";

/// [`NAME`] for C: converting it would take memory for every frame.
const C_NAME: &CStr = c"MasamMask";

/// Version of the structure's layout; readers refuse others.
pub const SCHEMA: u32 = 1;

/// Tags of the meta's API: it depends on the frame's size and on the way up, so that stock elements call the
/// transform, or drop what they cannot follow, instead of copying blindly.
const TAGS: [&str; 3] = ["video", "size", "orientation"];

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "masammeta",
        gst::DebugColorFlags::empty(),
        Some("The mask meta of masam"),
    )
});

/// A mask and what it belongs to, as attached to a frame.
///
/// ```no_run
/// # use gstreamer as gst;
/// # fn f(buffer: &gst::BufferRef) {
/// if let Some(mask) = masam::gst::meta::MaskMeta::from_buffer(buffer) {
///     println!("{} x {} from {}", mask.mask.width_px, mask.mask.height_px, mask.model_id);
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct MaskMeta {
    /// Counter of flushes, seeks, DISCONT and caps changes at the element that attached it.
    pub epoch: u64,
    /// Running time of the frame the mask was computed from, in nanoseconds.
    pub running_time_nanos: Option<u64>,
    /// Nanoseconds from that frame to the one the meta was attached to.
    pub age_nanos: u64,
    /// Size of the frame that `region` refers to.
    pub frame: Size,
    /// The part of the frame that the planes cover.
    pub region: Rect,
    /// Size of the planes.
    pub mask: Size,
    /// Classes and their colours, in the order of their ids.
    pub classes: ClassSet,
    /// Class ids, `[mask.height_px, mask.width_px]`, without padding; [`crate::labels::NO_MASK`] where there is none.
    pub plane: glib::Bytes,
    /// Name of the model.
    pub model_id: String,
    /// The mask was moved forward to this frame by motion estimation.
    pub carried: bool,
    /// The weights are not trained: whoever draws the mask says so.
    pub untrained: bool,
    /// Softmax of the class shown, as `plane`; 255 is certain.
    pub confidence: Option<glib::Bytes>,
    /// A line for the viewer.
    pub status: Option<String>,
}

/// Makes the meta known to GStreamer, once; every function here that needs it calls it.
///
/// `gst::init` must have been called, as for everything else in GStreamer.
pub fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The library and the plugin can both be loaded into one process.
        if gst::meta::CustomMeta::is_registered(NAME) {
            return;
        }
        let tags = TAGS.as_slice();
        // SAFETY: name and tags are valid for the call, which copies them; `transform` has the signature asked for
        // and uses no user data. (The safe wrapper hides the transform's data, without which scaling is unknown.)
        unsafe {
            gst::ffi::gst_meta_register_custom(
                C_NAME.as_ptr(),
                tags.to_glib_none().0,
                Some(transform::transform),
                std::ptr::null_mut(),
                None,
            );
        }
    });
}

impl MaskMeta {
    /// Attaches it to `buffer`, in place of one that is already there. No pixel is copied.
    ///
    /// A meta that breaks its own rules (see [`MaskMeta::validate`]) is not attached; the debug log says why.
    pub fn attach(&self, buffer: &mut gst::BufferRef) {
        register();
        if let Err(error) = self.validate() {
            gst::error!(CAT, "not attached: {error}");
            return;
        }
        remove(buffer);
        put(buffer, self.to_structure());
    }

    /// Its structure. The plane is shared.
    pub(crate) fn to_structure(&self) -> gst::Structure {
        let mut structure = template(&self.classes, &self.model_id);
        self.fill(&mut structure);
        structure
    }

    /// Sets what is not the model's alone in a structure of the same model.
    pub(crate) fn fill(&self, structure: &mut gst::StructureRef) {
        structure.set("epoch", self.epoch);
        structure.set(
            "running-time",
            self.running_time_nanos.unwrap_or(gst::ffi::GST_CLOCK_TIME_NONE),
        );
        structure.set("age", self.age_nanos);
        set_geometry(structure, self.frame, self.region);
        structure.set("mask-width", self.mask.width_px);
        structure.set("mask-height", self.mask.height_px);
        structure.set("mask", &self.plane);
        structure.set("carried", self.carried);
        structure.set("untrained", self.untrained);
        if let Some(confidence) = &self.confidence {
            structure.set("confidence", confidence);
        }
        if let Some(status) = &self.status {
            structure.set("status", status.as_str());
        }
    }

    /// The meta of `buffer`: `None` when there is none, or a malformed one, about which the debug log says more.
    ///
    /// Whoever maps the mask onto pixels uses [`MaskMeta::from_frame`], which also holds the meta against the caps.
    pub fn from_buffer(buffer: &gst::BufferRef) -> Option<Self> {
        let view = MaskView::from_buffer(buffer)?;
        match view.to_meta() {
            Ok(meta) => Some(meta),
            Err(error) => {
                gst::debug!(CAT, "malformed meta: {error}");
                None
            }
        }
    }

    /// As [`MaskMeta::from_buffer`], and `None` when the meta belongs to a frame of another size than `frame`: some
    /// element on the way changed the picture and copied the meta blindly.
    pub fn from_frame(buffer: &gst::BufferRef, frame: Size) -> Option<Self> {
        Self::from_buffer(buffer).filter(|meta| meta.frame == frame)
    }

    /// Checks sizes, planes and classes against each other.
    ///
    /// # Errors
    /// A size of 0 or above [`crate::geometry::MAX_FRAME_SIDE_PX`], a region outside the frame, a plane that is not
    /// `mask` in size, classes that are none, too many or named twice.
    pub fn validate(&self) -> Result<()> {
        check_geometry(self.frame, self.region, self.mask)?;
        check_plane("mask", &self.plane, self.mask)?;
        if let Some(confidence) = &self.confidence {
            check_plane("confidence", confidence, self.mask)?;
        }
        self.classes.validate()
    }
}

/// Models whose structures are kept ready; more of them in one process work, a little slower.
const TEMPLATES_KEPT: usize = 8;

/// A structure with all fields, of which those that depend on the model alone are filled in. Copying it is one
/// allocation; building its arrays anew for each frame would be dozens.
fn template(classes: &ClassSet, model_id: &str) -> gst::Structure {
    static TEMPLATES: Mutex<Vec<(ClassSet, String, gst::Structure)>> = Mutex::new(Vec::new());
    let mut templates = TEMPLATES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, _, found)) = templates.iter().find(|(c, m, _)| m == model_id && c == classes) {
        return found.clone();
    }
    let names: Vec<&str> = classes.iter().map(|class| class.name.as_str()).collect();
    let colors: Vec<u32> = classes
        .iter()
        .map(|c| u32::from_be_bytes([0, c.color[0], c.color[1], c.color[2]]))
        .collect();
    let mut structure = gst::Structure::builder(NAME)
        .field("schema", SCHEMA)
        .field("epoch", 0_u64)
        .field("running-time", gst::ffi::GST_CLOCK_TIME_NONE)
        .field("age", 0_u64)
        .field("mask-width", 0_u32)
        .field("mask-height", 0_u32)
        .field("mask", glib::Bytes::from_static(&[]))
        .field("classes", names.to_variant())
        .field("palette", glib::Variant::array_from_fixed_array(&colors))
        .field("model-id", model_id)
        .field("carried", false)
        .field("untrained", false)
        .build();
    set_geometry(&mut structure, Size::square(0), Size::square(0).rect());
    if templates.len() == TEMPLATES_KEPT {
        templates.remove(0);
    }
    templates.push((classes.clone(), model_id.to_owned(), structure.clone()));
    structure
}

/// The structure of `buffer`'s meta.
fn structure_of(buffer: &gst::BufferRef) -> Option<&gst::StructureRef> {
    // SAFETY: the call only reads. The structure lives as long as its meta, which cannot be removed while the buffer
    // is borrowed.
    unsafe {
        let meta = gst::ffi::gst_buffer_get_custom_meta(buffer.as_mut_ptr(), C_NAME.as_ptr());
        meta.as_ref()
            .map(|meta| gst::StructureRef::from_glib_borrow(meta.structure))
    }
}

/// Takes the meta off `buffer`, if it has one.
fn remove(buffer: &mut gst::BufferRef) {
    // SAFETY: the buffer is writable, as `&mut` says, and the meta is one of its own.
    unsafe {
        let meta = gst::ffi::gst_buffer_get_custom_meta(buffer.as_mut_ptr(), C_NAME.as_ptr());
        if !meta.is_null() {
            gst::ffi::gst_buffer_remove_meta(buffer.as_mut_ptr(), meta.cast());
        }
    }
}

/// Adds a meta with this structure to `buffer`.
fn put(buffer: &mut gst::BufferRef, structure: gst::Structure) {
    // SAFETY: the buffer is writable, as `&mut` says. The structure that the new meta came with is taken out of its
    // parent before it is freed, ours is given to the same parent, and the meta owns it from here on.
    unsafe {
        let meta = gst::ffi::gst_buffer_add_custom_meta(buffer.as_mut_ptr(), C_NAME.as_ptr());
        if meta.is_null() {
            gst::error!(CAT, "GStreamer did not add the meta");
            return;
        }
        let refcount = &raw mut (*buffer.as_mut_ptr()).mini_object.refcount;
        let empty = (*meta).structure;
        gst::ffi::gst_structure_set_parent_refcount(empty, std::ptr::null_mut());
        gst::ffi::gst_structure_free(empty);
        let full = structure.into_glib_ptr();
        gst::ffi::gst_structure_set_parent_refcount(full, refcount);
        (*meta).structure = full;
    }
}

fn set_geometry(structure: &mut gst::StructureRef, frame: Size, region: Rect) {
    for (name, value) in [
        ("frame-width", frame.width_px),
        ("frame-height", frame.height_px),
        ("region-x", region.x_px),
        ("region-y", region.y_px),
        ("region-width", region.width_px),
        ("region-height", region.height_px),
    ] {
        structure.set(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn example() -> MaskMeta {
        gst::init().unwrap();
        MaskMeta {
            epoch: 3,
            running_time_nanos: Some(40_000_000),
            age_nanos: 7,
            frame: Size {
                width_px: 64,
                height_px: 48,
            },
            region: Rect {
                x_px: 8,
                y_px: 4,
                width_px: 48,
                height_px: 40,
            },
            mask: Size {
                width_px: 3,
                height_px: 2,
            },
            classes: ClassSet::endovis_2018(),
            plane: glib::Bytes::from_owned(vec![0, 1, 2, 3, 255, 1]),
            model_id: "demo".into(),
            carried: true,
            untrained: true,
            confidence: Some(glib::Bytes::from_owned(vec![9_u8; 6])),
            status: Some("model is slow".into()),
        }
    }

    #[test]
    fn the_documented_schema_is_the_structure() {
        let structure = example().to_structure();
        let written: BTreeSet<&str> = structure.fields().map(|field| field.as_str()).collect();
        let schema = include_str!("../../docs/mask-meta.md");
        let schema = schema
            .split("## ")
            .find(|part| part.starts_with("Schema"))
            .unwrap();
        let cells = schema
            .lines()
            .filter_map(|line| line.strip_prefix("| `")?.split('|').next());
        let documented = cells.flat_map(|cell| {
            cell.split('`')
                .filter(|name| !name.trim_matches([',', ' ']).is_empty())
        });
        assert_eq!(documented.collect::<BTreeSet<_>>(), written);
        assert!(schema.contains(&format!("version {SCHEMA}")));
    }

    fn buffer_with(meta: &MaskMeta) -> gst::Buffer {
        let mut buffer = gst::Buffer::with_size(16).unwrap();
        meta.attach(buffer.get_mut().unwrap());
        buffer
    }

    #[test]
    fn what_is_attached_is_read_back() {
        let meta = example();
        let buffer = buffer_with(&meta);
        assert_eq!(MaskMeta::from_buffer(&buffer).unwrap(), meta);
        let bare = MaskMeta {
            running_time_nanos: None,
            confidence: None,
            status: None,
            carried: false,
            ..meta
        };
        assert_eq!(MaskMeta::from_buffer(&buffer_with(&bare)).unwrap(), bare);
        assert!(
            MaskMeta::from_frame(
                &buffer,
                Size {
                    width_px: 64,
                    height_px: 48
                }
            )
            .is_some()
        );
        assert!(
            MaskMeta::from_frame(
                &buffer,
                Size {
                    width_px: 64,
                    height_px: 47
                }
            )
            .is_none()
        );
        assert!(MaskMeta::from_buffer(gst::Buffer::new().as_ref()).is_none());
    }

    #[test]
    fn attaching_shares_the_plane_and_replaces_the_meta_before() {
        let meta = example();
        let mut buffer = buffer_with(&meta);
        let later = MaskMeta {
            epoch: 4,
            ..meta.clone()
        };
        later.attach(buffer.get_mut().unwrap());
        let read = MaskMeta::from_buffer(&buffer).unwrap();
        assert_eq!(read.epoch, 4);
        assert_eq!(read.plane.as_ptr(), meta.plane.as_ptr());
        assert_eq!(buffer.iter_meta::<gst::Meta>().count(), 1);
    }

    #[test]
    fn a_copy_keeps_it_and_part_of_the_bytes_does_not() {
        let meta = example();
        let buffer = buffer_with(&meta);
        assert_eq!(MaskMeta::from_buffer(&buffer.copy()).unwrap(), meta);
        let part = buffer
            .copy_region(gst::BufferCopyFlags::META | gst::BufferCopyFlags::MEMORY, 0..8)
            .unwrap();
        assert!(MaskMeta::from_buffer(&part).is_none());
    }

    #[test]
    fn broken_metas_are_not_attached() {
        let good = example();
        let wide = Rect {
            width_px: 60,
            ..good.region
        };
        for bad in [
            MaskMeta {
                region: wide,
                ..good.clone()
            },
            MaskMeta {
                frame: Size::square(0),
                ..good.clone()
            },
            MaskMeta {
                mask: Size::square(2),
                ..good.clone()
            },
            MaskMeta {
                confidence: Some(glib::Bytes::from_static(&[1])),
                ..good.clone()
            },
        ] {
            assert!(MaskMeta::from_buffer(&buffer_with(&bad)).is_none(), "{bad:?}");
        }
    }

    /// Every field missing, of a wrong type, or with a hostile value.
    #[test]
    fn malformed_structures_are_absent() {
        let meta = example();
        let hostile = |change: &dyn Fn(&mut gst::StructureRef)| {
            let mut buffer = buffer_with(&meta);
            let mut custom = gst::meta::CustomMeta::from_mut_buffer(buffer.get_mut().unwrap(), NAME).unwrap();
            change(custom.mut_structure());
            MaskMeta::from_buffer(&buffer)
        };
        assert!(hostile(&|_| ()).is_some());
        let names: Vec<String> = {
            let buffer = buffer_with(&meta);
            let custom = gst::meta::CustomMeta::from_buffer(&buffer, NAME).unwrap();
            custom.structure().fields().map(|name| name.to_string()).collect()
        };
        assert_eq!(names.len(), 20);
        for name in &names {
            if name != "status" && name != "confidence" {
                assert!(
                    hostile(&|s| s.remove_field(name.as_str())).is_none(),
                    "{name} missing"
                );
            }
            assert!(
                hostile(&|s| s.set(name.as_str(), 1.5_f32)).is_none(),
                "{name} a float"
            );
        }
        for (name, value) in [
            ("schema", 2_u32),
            ("frame-width", 0),
            ("frame-width", u32::MAX),
            ("region-x", 17),
            ("region-x", u32::MAX),
            ("region-width", 0),
            ("mask-width", 4),
            ("mask-height", u32::MAX),
        ] {
            assert!(hostile(&|s| s.set(name, value)).is_none(), "{name} {value}");
        }
        assert!(hostile(&|s| s.set("classes", ["a", "a"].to_variant())).is_none());
        assert!(hostile(&|s| s.set("classes", vec!["x"; 12].to_variant())).is_none());
        assert!(hostile(&|s| s.set("classes", 5_i32.to_variant())).is_none());
        assert!(hostile(&|s| s.set("palette", [1_u32, 2].to_variant())).is_none());
        assert!(hostile(&|s| s.set("palette", vec![1_u32; 100_000].to_variant())).is_none());
        assert!(hostile(&|s| s.set("mask", glib::Bytes::from_static(&[]))).is_none());
    }
}
