//! What the tests of the overlay share: frames of any format, a pipeline around the element, and a slow, plain
//! rendering of the same picture in double precision.

#![allow(dead_code, reason = "each test uses a part of it")]

pub mod reference;

use gst::prelude::*;
use gst_video::{VideoFormat, VideoInfo};
use gstreamer as gst;
use gstreamer_app as gst_app;
use gstreamer_video as gst_video;
use masam::geometry::{Rect, Size};
use masam::gst::meta::MaskMeta;
use masam::labels::ClassSet;

pub const FORMATS: [VideoFormat; 11] = [
    VideoFormat::Nv12,
    VideoFormat::I420,
    VideoFormat::Yuy2,
    VideoFormat::Uyvy,
    VideoFormat::Rgb,
    VideoFormat::Bgr,
    VideoFormat::Rgba,
    VideoFormat::Bgra,
    VideoFormat::Rgbx,
    VideoFormat::Bgrx,
    VideoFormat::Gray8,
];

pub fn init() {
    gst::init().unwrap();
    masam::gst::overlay::register(None).unwrap();
}

/// A small generator of numbers; the seed is printed by whoever fails.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u32 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as u32
    }

    pub fn below(&mut self, bound: u32) -> u32 {
        self.next() % bound
    }
}

/// Where the planes of a frame lie, each row and plane followed by `padding` bytes that belong to nobody.
pub struct Frame {
    pub info: VideoInfo,
    pub offsets: Vec<usize>,
    pub strides: Vec<i32>,
    pub bytes: Vec<u8>,
}

impl Frame {
    pub fn random(info: &VideoInfo, padding: usize, random: &mut Random) -> Self {
        let (mut offsets, mut strides, mut end) = (Vec::new(), Vec::new(), 0);
        for plane in 0..info.n_planes() as usize {
            let stride = info.stride()[plane] as usize + padding;
            let rows = plane_rows(info, plane);
            offsets.push(end);
            strides.push(stride as i32);
            end += stride * rows + padding;
        }
        let bytes = (0..end).map(|_| random.next() as u8).collect();
        Self {
            info: info.clone(),
            offsets,
            strides,
            bytes,
        }
    }

    pub fn to_buffer(&self) -> gst::Buffer {
        let mut buffer = gst::Buffer::from_mut_slice(self.bytes.clone());
        let writable = buffer.get_mut().unwrap();
        gst_video::VideoMeta::add_full(
            writable,
            gst_video::VideoFrameFlags::empty(),
            self.info.format(),
            self.info.width(),
            self.info.height(),
            &self.offsets,
            &self.strides,
        )
        .unwrap();
        writable.set_pts(gst::ClockTime::ZERO);
        buffer
    }

    /// Index of component `component` (0 to 2) at pixel `(x, y)`, or at that chroma sample.
    pub fn index(&self, component: usize, x: usize, y: usize) -> usize {
        let at = |plane: usize, step: usize, offset: usize| {
            self.offsets[plane] + y * self.strides[plane] as usize + x * step + offset
        };
        match (self.info.format(), component) {
            (VideoFormat::Gray8, _) => at(0, 1, 0),
            (VideoFormat::Rgb, c) => at(0, 3, c),
            (VideoFormat::Bgr, c) => at(0, 3, 2 - c),
            (VideoFormat::Rgba | VideoFormat::Rgbx, c) => at(0, 4, c),
            (VideoFormat::Bgra | VideoFormat::Bgrx, c) => at(0, 4, 2 - c),
            (VideoFormat::I420, c) => at(c, 1, 0),
            (VideoFormat::Nv12, 0) => at(0, 1, 0),
            (VideoFormat::Nv12, c) => at(1, 2, c - 1),
            (VideoFormat::Yuy2, 0) => at(0, 2, 0),
            (VideoFormat::Yuy2, c) => at(0, 4, 2 * c - 1),
            (VideoFormat::Uyvy, 0) => at(0, 2, 1),
            (VideoFormat::Uyvy, c) => at(0, 4, 2 * c - 2),
            (other, _) => panic!("{other}"),
        }
    }
}

fn plane_rows(info: &VideoInfo, plane: usize) -> usize {
    let height = info.height() as usize;
    match info.format() {
        VideoFormat::I420 | VideoFormat::Nv12 if plane > 0 => height.div_ceil(2),
        _ => height,
    }
}

pub fn info(format: VideoFormat, size: Size, colorimetry: Option<&str>) -> VideoInfo {
    init();
    let builder = VideoInfo::builder(format, size.width_px, size.height_px);
    let colorimetry = colorimetry.map(|text| text.parse::<gst_video::VideoColorimetry>().unwrap());
    match &colorimetry {
        Some(colorimetry) => builder.colorimetry(colorimetry).build().unwrap(),
        None => builder.build().unwrap(),
    }
}

pub fn meta(frame: Size, region: Rect, mask: Size, ids: Vec<u8>) -> MaskMeta {
    MaskMeta {
        epoch: 0,
        running_time_nanos: Some(0),
        age_nanos: 0,
        frame,
        region,
        mask,
        classes: ClassSet::endovis_2018(),
        plane: gst::glib::Bytes::from_owned(ids),
        model_id: "demo".into(),
        carried: false,
        untrained: false,
        confidence: None,
        status: None,
    }
}

/// Puts buffers through `masamoverlay` with these options, one at a time.
pub struct Overlay {
    pipeline: gst::Pipeline,
    source: gst_app::AppSrc,
    sink: gst_app::AppSink,
    pub element: gst::Element,
}

impl Overlay {
    pub fn new(caps: &gst::Caps, options: &str) -> Self {
        Self::around(caps, &format!("masamoverlay name=under-test {options}"))
    }

    pub fn around(caps: &gst::Caps, elements: &str) -> Self {
        init();
        let line = format!("appsrc name=source format=time ! {elements} ! appsink name=sink sync=false");
        let pipeline = gst::parse::launch(&line)
            .unwrap()
            .downcast::<gst::Pipeline>()
            .unwrap();
        let source = pipeline
            .by_name("source")
            .unwrap()
            .downcast::<gst_app::AppSrc>()
            .unwrap();
        let sink = pipeline
            .by_name("sink")
            .unwrap()
            .downcast::<gst_app::AppSink>()
            .unwrap();
        let element = pipeline.by_name("under-test").unwrap();
        source.set_caps(Some(caps));
        pipeline.set_state(gst::State::Playing).unwrap();
        Self {
            pipeline,
            source,
            sink,
            element,
        }
    }

    pub fn set_caps(&self, caps: &gst::Caps) {
        self.source.set_caps(Some(caps));
    }

    pub fn push(&self, buffer: gst::Buffer) -> gst::Sample {
        self.source.push_buffer(buffer).unwrap();
        self.sink
            .try_pull_sample(gst::ClockTime::from_seconds(20))
            .unwrap_or_else(|| {
                let message = self
                    .pipeline
                    .bus()
                    .unwrap()
                    .pop_filtered(&[gst::MessageType::Error]);
                panic!("no frame came out: {message:?}")
            })
    }

    /// Texts of the warnings posted so far.
    pub fn warnings(&self) -> Vec<String> {
        let bus = self.pipeline.bus().unwrap();
        std::iter::from_fn(|| bus.pop_filtered(&[gst::MessageType::Warning]))
            .map(|message| match message.view() {
                gst::MessageView::Warning(warning) => warning.error().to_string(),
                _ => String::new(),
            })
            .collect()
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

pub fn bytes_of(sample: &gst::Sample) -> Vec<u8> {
    sample.buffer().unwrap().map_readable().unwrap().to_vec()
}
