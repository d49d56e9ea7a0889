//! `masammask`: what it makes of a mask, and how it negotiates.

#![cfg(feature = "gst")]

mod overlay_support;

use gst::prelude::*;
use gst_video::VideoFormat;
use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use masam::geometry::{Rect, Size};
use masam::gst::meta::MaskMeta;
use masam::labels::ClassSet;
use overlay_support::{FORMATS, Frame, Overlay, Random, info, meta};

fn size(width_px: u32, height_px: u32) -> Size {
    Size { width_px, height_px }
}

/// A mask element for frames of this format and size.
fn element(format: VideoFormat, frame: Size, options: &str) -> (Overlay, gst::Buffer) {
    overlay_support::init();
    masam::gst::mask::register(None).unwrap();
    let info = info(format, frame, None);
    let overlay = Overlay::around(
        &info.to_caps().unwrap(),
        &format!("masammask name=under-test {options}"),
    );
    (overlay, Frame::random(&info, 7, &mut Random(3)).to_buffer())
}

/// The pixels of the only plane of what came out, without padding, and their format.
fn pixels(sample: &gst::Sample) -> (VideoFormat, Vec<u8>) {
    let info = gst_video::VideoInfo::from_caps(sample.caps().unwrap()).unwrap();
    let frame = gst_video::VideoFrameRef::from_buffer_ref_readable(sample.buffer().unwrap(), &info).unwrap();
    let row_bytes = info.width() as usize * info.format_info().pixel_stride()[0] as usize;
    let rows = frame
        .plane_data(0)
        .unwrap()
        .chunks(frame.plane_stride()[0] as usize);
    (
        info.format(),
        rows.take(info.height() as usize)
            .flat_map(|row| row[..row_bytes].to_vec())
            .collect(),
    )
}

fn attach(mut buffer: gst::Buffer, meta: &MaskMeta) -> gst::Buffer {
    meta.attach(buffer.get_mut().unwrap());
    buffer
}

/// The mask pixel that the centre of frame pixel `(x, y)` lies in.
fn nearest(ids: &[u8], mask: Size, region: Rect, x: u32, y: u32) -> Option<u8> {
    let at = |x: u32, start: u32, length: u32, cells: u32| {
        let x = (f64::from(x) + 0.5 - f64::from(start)) / f64::from(length);
        (0.0..1.0).contains(&x).then(|| (x * f64::from(cells)) as usize)
    };
    let column = at(x, region.x_px, region.width_px, mask.width_px)?;
    let row = at(y, region.y_px, region.height_px, mask.height_px)?;
    Some(ids[row * mask.width_px as usize + column])
}

#[test]
fn classes_and_colours_are_those_of_the_nearest_mask_pixel() {
    for (frame, region, mask) in [
        (
            size(61, 45),
            Rect {
                x_px: 3,
                y_px: 5,
                width_px: 51,
                height_px: 31,
            },
            size(16, 9),
        ),
        (size(33, 17), size(33, 17).rect(), size(64, 64)),
        (size(1, 1), size(1, 1).rect(), size(3, 3)),
    ] {
        let mut random = Random(11);
        let ids: Vec<u8> = (0..mask.area())
            .map(|_| [0, 1, 2, 6, 11, 12, 255][random.below(7) as usize])
            .collect();
        let classes = ClassSet::endovis_2018();
        for format in FORMATS {
            let (element, buffer) = element(format, frame, "hide-classes=2");
            let sample = element.push(attach(buffer, &meta(frame, region, mask, ids.clone())));
            let (of, got) = pixels(&sample);
            assert_eq!(of, VideoFormat::Gray8);
            let expected: Vec<u8> = (0..frame.height_px)
                .flat_map(|y| (0..frame.width_px).map(move |x| (x, y)))
                .map(|(x, y)| match nearest(&ids, mask, region, x, y) {
                    None | Some(12 | 255) => 255,
                    Some(2) => 0,
                    Some(id) => id,
                })
                .collect();
            assert_eq!(got, expected, "{format} {frame:?}");
        }
        let (element, buffer) = element(
            VideoFormat::Nv12,
            frame,
            "output=colour palette=endovis,6=#010203",
        );
        let (of, got) = pixels(&element.push(attach(buffer, &meta(frame, region, mask, ids.clone()))));
        assert_eq!(of, VideoFormat::Rgb);
        for (at, pixel) in got.chunks(3).enumerate() {
            let (x, y) = (at as u32 % frame.width_px, at as u32 / frame.width_px);
            let expected = match nearest(&ids, mask, region, x, y) {
                None | Some(0 | 12 | 255) => [0; 3],
                Some(6) => [1, 2, 3],
                Some(id) => classes.get(id).unwrap().color,
            };
            assert_eq!(pixel, expected, "{x},{y}");
        }
    }
}

#[test]
fn a_key_has_smooth_edges_and_straight_alpha() {
    let frame = size(64, 64);
    // A disc of class 6, twelve frame pixels per mask pixel.
    let mask = size(8, 8);
    let ids: Vec<u8> = (0..64_i32)
        .map(|at| {
            if (at % 8 - 4).pow(2) + (at / 8 - 4).pow(2) < 6 {
                6
            } else {
                0
            }
        })
        .collect();
    let (element, buffer) = element(VideoFormat::I420, frame, "output=key opacity=0.5");
    let (of, got) = pixels(&element.push(attach(buffer, &meta(frame, frame.rect(), mask, ids))));
    assert_eq!(of, VideoFormat::Rgba);
    let color = ClassSet::endovis_2018().get(6).unwrap().color;
    let mut alphas = [0; 256];
    for pixel in got.chunks(4) {
        alphas[usize::from(pixel[3])] += 1;
        if pixel[3] == 0 {
            assert_eq!(pixel, [0; 4]);
        } else if pixel[3] > 8 {
            for (got, wanted) in pixel.iter().zip(color) {
                assert!(got.abs_diff(wanted) <= 1, "{pixel:?} is not {color:?}");
            }
        }
    }
    // Outside, inside at half opacity, and some in between.
    assert!(alphas[0] > 1000 && alphas[128] > 500, "{alphas:?}");
    assert!(alphas[1..128].iter().sum::<i32>() > 20, "{alphas:?}");
    assert_eq!(alphas[129..].iter().sum::<i32>(), 0);
}

#[test]
fn without_a_fitting_mask_there_is_none() {
    let frame = size(20, 10);
    for (output, empty) in [
        ("classes", vec![255; 200]),
        ("colour", vec![0; 600]),
        ("key", vec![0; 800]),
    ] {
        let options = format!("output={output} expire-after=1000");
        let (element, buffer) = element(VideoFormat::Rgb, frame, &options);
        let good = meta(frame, frame.rect(), size(2, 2), vec![1; 4]);
        assert_ne!(
            pixels(&element.push(attach(buffer.copy(), &good))).1,
            empty,
            "{output}"
        );
        let other = MaskMeta {
            frame: size(20, 11),
            ..good.clone()
        };
        let old = MaskMeta {
            age_nanos: 1001,
            ..good.clone()
        };
        assert_eq!(pixels(&element.push(buffer.copy())).1, empty, "{output}: no meta");
        assert_eq!(
            pixels(&element.push(attach(buffer.copy(), &other))).1,
            empty,
            "{output}: foreign meta"
        );
        assert_eq!(
            pixels(&element.push(attach(buffer.copy(), &old))).1,
            empty,
            "{output}: old mask"
        );
        assert_ne!(
            pixels(&element.push(attach(buffer.copy(), &good))).1,
            empty,
            "{output}: again"
        );
    }
}

#[test]
fn caps_keep_size_and_rate_and_change_with_the_output() {
    overlay_support::init();
    masam::gst::mask::register(None).unwrap();
    let caps: gst::Caps = "video/x-raw,format=NV12,width=32,height=24,framerate=25/1,pixel-aspect-ratio=4/3,\
                           colorimetry=bt709,interlace-mode=progressive"
        .parse()
        .unwrap();
    let element = Overlay::around(&caps, "masammask name=under-test");
    let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
    let buffer = Frame::random(&info, 0, &mut Random(1)).to_buffer();
    let check = |format: &str| {
        let sample = element.push(buffer.copy());
        let structure = sample.caps().unwrap().structure(0).unwrap().to_owned();
        assert_eq!(structure.get::<&str>("format").unwrap(), format);
        assert_eq!(structure.get::<i32>("width").unwrap(), 32);
        assert_eq!(structure.get::<i32>("height").unwrap(), 24);
        assert_eq!(
            structure.get::<gst::Fraction>("framerate").unwrap(),
            gst::Fraction::new(25, 1)
        );
        assert_eq!(
            structure.get::<gst::Fraction>("pixel-aspect-ratio").unwrap(),
            gst::Fraction::new(4, 3)
        );
        assert!(!structure.has_field("chroma-site"), "{structure}");
    };
    check("GRAY8");
    element.element.set_property_from_str("output", "key");
    check("RGBA");
    element.element.set_property_from_str("output", "colour");
    check("RGB");
    assert_eq!(element.warnings(), Vec::<String>::new());
}

#[test]
fn an_output_that_downstream_cannot_take_is_not_negotiated() {
    overlay_support::init();
    masam::gst::mask::register(None).unwrap();
    let line = "videotestsrc num-buffers=1 ! video/x-raw,width=8,height=8 ! masammask output=classes \
                ! video/x-raw,format=RGB ! fakesink";
    let error = gst::parse::launch(line).expect_err("linked");
    assert!(error.message().contains("masammask0"), "{error}");
}
