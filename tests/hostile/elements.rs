//! The elements between pads of ours: property strings, caps, layouts of buffers and mask metas out of bytes.
//!
//! ```text
//! format, flags, width, height | texts, each up to a zero | memories | video meta | crop meta | mask meta
//! ```

use gst::glib;
use gst::glib::variant::ToVariant;
use gst::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use masam::geometry::{Rect, Size};
use masam::gst::meta::{MaskMeta, NAME};
use masam::labels::ClassSet;
use std::cell::RefCell;

#[path = "../stream_support/mod.rs"]
mod stream_support;

use stream_support::{Bench, Fake, infer_with, init};

const FORMATS: [gst_video::VideoFormat; 11] = [
    gst_video::VideoFormat::Nv12,
    gst_video::VideoFormat::I420,
    gst_video::VideoFormat::Yuy2,
    gst_video::VideoFormat::Uyvy,
    gst_video::VideoFormat::Rgb,
    gst_video::VideoFormat::Bgr,
    gst_video::VideoFormat::Rgba,
    gst_video::VideoFormat::Bgra,
    gst_video::VideoFormat::Rgbx,
    gst_video::VideoFormat::Bgrx,
    gst_video::VideoFormat::Gray8,
];

/// Fields of the mask meta.
const FIELDS: [&str; 20] = [
    "schema",
    "epoch",
    "running-time",
    "age",
    "frame-width",
    "frame-height",
    "region-x",
    "region-y",
    "region-width",
    "region-height",
    "mask-width",
    "mask-height",
    "mask",
    "confidence",
    "classes",
    "palette",
    "model-id",
    "carried",
    "untrained",
    "status",
];

/// Reads values out of bytes; past their end everything is 0.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((&first, rest)) => {
                self.0 = rest;
                first
            }
            None => 0,
        }
    }

    /// Mostly small, now and then at a bound or anywhere.
    fn number(&mut self) -> u64 {
        match self.byte() {
            255 => u64::MAX,
            254 => u64::from(u32::MAX),
            253 => i32::MAX as u64,
            252 => i32::MIN as u64,
            251 => usize::MAX as u64 / 2,
            250 => u64::MAX - u64::from(self.byte()),
            240..250 => (0..4).fold(0, |number, _| number << 8 | u64::from(self.byte())),
            160..240 => u64::from(self.byte()) << 8 | u64::from(self.byte()),
            small => u64::from(small),
        }
    }

    /// Up to the next zero.
    fn text(&mut self) -> String {
        let end = self.0.iter().position(|&byte| byte == 0).unwrap_or(self.0.len());
        let text = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = self.0.get(end + 1..).unwrap_or_default();
        text
    }
}

/// One of each element, and the caps they have.
struct Elements {
    fake: Fake,
    benches: [(Bench, Option<gst::Caps>); 3],
}

impl Elements {
    fn new() -> Self {
        init();
        // GStreamer's own complaints about how it is used count as failures.
        glib::log_set_fatal_mask(
            Some("GStreamer"),
            glib::LogLevels::LEVEL_ERROR | glib::LogLevels::LEVEL_CRITICAL,
        );
        let fake = Fake::new();
        let make = |name| gst::ElementFactory::make(name).build().expect("our own element");
        let benches = [infer_with(&fake), make("masamoverlay"), make("masammask")]
            .map(|element| (Bench::new(element, false), None));
        Self { fake, benches }
    }
}

thread_local! {
    static ELEMENTS: RefCell<Option<Elements>> = const { RefCell::new(None) };
}

/// Sets properties and pushes one buffer through `masaminfer`, `masamoverlay` and `masammask`, all as `bytes` say.
pub fn elements(bytes: &[u8]) {
    ELEMENTS.with_borrow_mut(|kept| {
        let fine = run(kept.get_or_insert_with(Elements::new), bytes);
        if !fine {
            // An element that has failed takes nothing more.
            *kept = None;
        }
    });
}

fn run(elements: &mut Elements, bytes: &[u8]) -> bool {
    let mut input = Input(bytes);
    let format = FORMATS[usize::from(input.byte()) % FORMATS.len()];
    let flags = input.byte();
    let size = Size {
        width_px: 1 + u32::from(input.byte()) % 96,
        height_px: 1 + u32::from(input.byte()) % 96,
    };
    let interlaced = match flags & 3 {
        0 => "interleaved",
        1 => "mixed",
        _ => "progressive",
    };
    let caps = gst::Caps::builder("video/x-raw")
        .field("format", format.to_str())
        .field("width", size.width_px as i32)
        .field("height", size.height_px as i32)
        .field("framerate", gst::Fraction::new(25, 1))
        .field("interlace-mode", interlaced)
        .build();
    let look = input.byte();
    let [infer, overlay, mask] = &elements.benches;
    infer.0.element.set_property("prompt", input.text());
    for name in ["show-classes", "hide-classes", "palette"] {
        let text = input.text();
        overlay.0.element.set_property(name, &text);
        mask.0.element.set_property(name, &text);
    }
    overlay.0.element.set_property("class-opacity", input.text());
    let style = ["fill", "contour", "both"][usize::from(look) % 3];
    let output = ["classes", "colour", "key"][usize::from(look / 3) % 3];
    overlay.0.element.set_property_from_str("style", style);
    overlay.0.element.set_property("status", look & 0x40 != 0);
    overlay.0.element.set_property("legend", look & 0x80 != 0);
    mask.0.element.set_property_from_str("style", style);
    mask.0.element.set_property_from_str("output", output);

    let buffer = buffer(&mut input, format, flags, size);
    let mut fine = true;
    for (bench, known) in &mut elements.benches {
        if known.as_ref() != Some(&caps) {
            if known.is_none() {
                bench.begin(&caps);
            } else {
                fine &= bench.src.push_event(gst::event::Caps::new(&caps));
            }
            *known = Some(caps.clone());
        }
        // Each has bytes of its own to write on; the layout of the memories stays.
        fine &= bench.push(copy(&buffer)).is_ok();
        for frame in bench.frames() {
            let _ = MaskMeta::from_buffer(&frame);
        }
        fine &= !bench.complaints().iter().any(|text| text.starts_with("error"));
    }
    elements.fake.asked.lock().expect("nothing panics").clear();
    fine
}

/// A copy with memories as long as those of `buffer`.
fn copy(buffer: &gst::Buffer) -> gst::Buffer {
    let mut copy = gst::Buffer::new();
    let flags = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::META;
    let to = copy.get_mut().expect("ours alone");
    for memory in buffer.iter_memories() {
        let bytes = memory.map_readable().expect("plain memory").to_vec();
        to.append_memory(gst::Memory::from_mut_slice(bytes));
    }
    buffer.copy_into(to, flags, ..).expect("metas of ours");
    copy
}

fn buffer(input: &mut Input, format: gst_video::VideoFormat, flags: u8, size: Size) -> gst::Buffer {
    let mut buffer = gst::Buffer::new();
    let of = buffer.get_mut().expect("ours alone");
    of.set_pts((flags & 4 != 0).then(|| gst::ClockTime::from_nseconds(input.number() >> 1)));
    if flags & 8 != 0 {
        for _ in 0..1 + input.byte() % 4 {
            let length = input.number().min(1 << 16) as usize;
            of.append_memory(gst::Memory::from_mut_slice(vec![input.byte(); length]));
        }
    } else {
        // As long as it has to be.
        let info = gst_video::VideoInfo::builder(format, size.width_px, size.height_px).build();
        let length = info.expect("a plain format").size();
        of.append_memory(gst::Memory::from_mut_slice(vec![input.byte(); length]));
    }
    if flags & 16 != 0 {
        let width = size.width_px.wrapping_add(input.number() as u32);
        let height = size.height_px.wrapping_add(input.number() as u32);
        let offsets = [0; 4].map(|_: usize| input.number() as usize);
        let strides = [0; 4].map(|_: i32| input.number() as i32);
        let planes = if flags & 32 != 0 {
            format_planes(format)
        } else {
            u32::from(input.byte()) % 5
        };
        // SAFETY: the buffer is writable, and both arrays have four elements, the most that are read. GStreamer takes
        // what is in them on trust, as from any decoder; the safe wrapper would not.
        unsafe {
            gst_video::ffi::gst_buffer_add_video_meta_full(
                of.as_mut_ptr(),
                gst_video::ffi::GST_VIDEO_FRAME_FLAG_NONE,
                glib::translate::IntoGlib::into_glib(format),
                width,
                height,
                planes,
                &offsets,
                &strides,
            );
        }
    }
    if flags & 64 != 0 {
        let [x, y, width, height] = [0; 4].map(|_: u32| input.number() as u32);
        gst_video::VideoCropMeta::add(of, (x, y, width, height));
    }
    if flags & 128 != 0 {
        mask_meta(input, of, size);
    }
    buffer
}

fn format_planes(format: gst_video::VideoFormat) -> u32 {
    match format {
        gst_video::VideoFormat::I420 => 3,
        gst_video::VideoFormat::Nv12 => 2,
        _ => 1,
    }
}

/// A mask meta that is in order but for some fields.
fn mask_meta(input: &mut Input, buffer: &mut gst::BufferRef, size: Size) {
    let mask = Size {
        width_px: 1 + u32::from(input.byte()) % 24,
        height_px: 1 + u32::from(input.byte()) % 24,
    };
    let x_px = u32::from(input.byte()) % size.width_px;
    let y_px = u32::from(input.byte()) % size.height_px;
    let region = Rect {
        x_px,
        y_px,
        width_px: 1 + u32::from(input.byte()) % (size.width_px - x_px),
        height_px: 1 + u32::from(input.byte()) % (size.height_px - y_px),
    };
    let kinds = input.byte();
    let ids: Vec<u8> = (0..mask.area()).map(|_| input.byte()).collect();
    let classes = match kinds & 3 {
        0 => ClassSet::numbered(255),
        1 => ClassSet::numbered(1),
        _ => Ok(ClassSet::endovis_2018()),
    };
    let meta = MaskMeta {
        epoch: input.number(),
        running_time_nanos: (kinds & 4 != 0).then(|| input.number()),
        age_nanos: input.number(),
        frame: size,
        region,
        mask,
        classes: classes.expect("as many as there may be"),
        plane: glib::Bytes::from_owned(ids.clone()),
        model_id: input.text(),
        carried: kinds & 8 != 0,
        untrained: kinds & 16 != 0,
        confidence: (kinds & 32 != 0).then(|| glib::Bytes::from_owned(ids)),
        status: (kinds & 64 != 0).then(|| input.text()),
    };
    meta.attach(buffer);
    let Ok(mut custom) = gst::meta::CustomMeta::from_mut_buffer(buffer, NAME) else {
        return;
    };
    let structure = custom.mut_structure();
    for _ in 0..input.byte() % 4 {
        let name = FIELDS[usize::from(input.byte()) % FIELDS.len()];
        match input.byte() % 9 {
            0 => structure.remove_field(name),
            1 => structure.set(name, input.number() as u32),
            2 => structure.set(name, input.number()),
            3 => structure.set(name, input.text()),
            4 => structure.set(name, input.byte() & 1 == 1),
            5 => structure.set(
                name,
                glib::Bytes::from_owned(vec![input.byte(); input.number().min(4096) as usize]),
            ),
            6 => {
                let names: Vec<String> = (0..input.byte()).map(|_| input.text()).collect();
                structure.set(name, names.to_variant());
            }
            7 => {
                let colors: Vec<u32> = (0..input.number().min(300))
                    .map(|_| input.number() as u32)
                    .collect();
                structure.set(name, colors.to_variant());
            }
            _ => structure.set(name, None::<String>),
        }
    }
}
