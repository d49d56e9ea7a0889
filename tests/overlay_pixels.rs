//! Every byte that `masamoverlay` writes, against a plain rendering in double precision.

#![cfg(feature = "gst")]

mod overlay_support;

use gst_video::VideoFormat;
use gstreamer_video as gst_video;
use masam::geometry::{Rect, Size};
use masam::labels::ClassSet;
use overlay_support::reference::{Reference, Wishes};
use overlay_support::{FORMATS, Frame, Overlay, Random, bytes_of, info, meta};

const QUIET: &str = "legend=false status=false palette=model";

fn size(width_px: u32, height_px: u32) -> Size {
    Size { width_px, height_px }
}

/// Blobs of classes, with single pixels and pixels of no mask among them.
fn blobs(mask: Size, random: &mut Random) -> Vec<u8> {
    let (width, height) = (mask.width_px, mask.height_px);
    let mut ids = vec![0_u8; mask.area()];
    for _ in 0..12 {
        let (id, x, y) = (random.below(12) as u8, random.below(width), random.below(height));
        let (rx, ry) = (
            1 + random.below(width.div_ceil(3)),
            1 + random.below(height.div_ceil(3)),
        );
        for (at, target) in ids.iter_mut().enumerate() {
            let (dx, dy) = ((at as u32 % width).abs_diff(x), (at as u32 / width).abs_diff(y));
            if dx * dx * ry * ry + dy * dy * rx * rx <= rx * rx * ry * ry {
                *target = id;
            }
        }
    }
    for id in [255, 13, 3] {
        let at = random.below(mask.area() as u32) as usize;
        ids[at] = id;
    }
    ids
}

struct Case<'a> {
    format: VideoFormat,
    frame: Size,
    region: Rect,
    mask: Size,
    padding: usize,
    style: &'a str,
    colorimetry: Option<&'a str>,
    /// Luma weights of red and blue, and whether the range is full, that the colorimetry stands for.
    expected: (Option<(f64, f64)>, bool),
    rows: Option<usize>,
}

/// Renders a random frame and mask and compares. Returns components compared and left out.
fn check(case: &Case<'_>, seed: u64) -> (usize, usize) {
    let mut random = Random(seed);
    let info = info(case.format, case.frame, case.colorimetry);
    let before = Frame::random(&info, case.padding, &mut random);
    let ids = blobs(case.mask, &mut random);
    let opacity = 0.2 + f64::from(random.below(80)) / 100.0;
    let what = format!(
        "seed {seed}: {} {:?} {:?} {:?} padding {} style {} {:?}",
        case.format, case.frame, case.region, case.mask, case.padding, case.style, case.colorimetry
    );
    let overlay = Overlay::new(
        &info.to_caps().unwrap(),
        &format!("{QUIET} opacity={opacity} style={}", case.style),
    );
    let mut buffer = before.to_buffer();
    meta(case.frame, case.region, case.mask, ids.clone()).attach(buffer.get_mut().unwrap());
    let after = bytes_of(&overlay.push(buffer));
    assert_eq!(after.len(), before.bytes.len(), "{what}");
    let reference = Reference {
        ids: &ids,
        mask: case.mask,
        region: case.region,
        frame: case.frame,
        wishes: Wishes {
            opacity,
            fill: case.style != "contour",
            contour: case.style != "fill",
        },
        classes: ClassSet::endovis_2018(),
        weights: case.expected.0,
        full_range: case.expected.1,
    };
    let height = case.frame.height_px as usize;
    let rows = match case.rows {
        None => (0..height).collect::<Vec<_>>(),
        Some(count) => (0..count)
            .map(|_| random.below(height as u32) as usize / 2 * 2)
            .collect(),
    };
    let result = reference.check(&before, &after, rows.into_iter(), &what);
    check_the_rest(&before, &after, case.format, &what);
    result
}

/// Bytes that are no component (padding, alpha, the fourth byte of RGBx) stay as they were.
fn check_the_rest(before: &Frame, after: &[u8], format: VideoFormat, what: &str) {
    let (width, height) = (before.info.width() as usize, before.info.height() as usize);
    let mut used = vec![false; after.len()];
    let chroma = match format {
        VideoFormat::Nv12 | VideoFormat::I420 => Some((width.div_ceil(2), height.div_ceil(2))),
        VideoFormat::Yuy2 | VideoFormat::Uyvy => Some((width.div_ceil(2), height)),
        VideoFormat::Gray8 => Some((0, 0)),
        _ => None,
    };
    for component in 0..3 {
        let (width, height) = if component == 0 {
            (width, height)
        } else {
            chroma.unwrap_or((width, height))
        };
        for y in 0..height {
            for x in 0..width {
                used[before.index(component, x, y)] = true;
            }
        }
    }
    for (at, used) in used.iter().enumerate() {
        assert!(
            *used || before.bytes[at] == after[at],
            "{what}: byte {at} is nobody's and was written"
        );
    }
}

/// What the default colorimetry of small frames stands for.
fn default_of(format: VideoFormat) -> (Option<(f64, f64)>, bool) {
    match format {
        VideoFormat::Nv12 | VideoFormat::I420 | VideoFormat::Yuy2 | VideoFormat::Uyvy => {
            (Some((0.299, 0.114)), false)
        }
        VideoFormat::Gray8 => (Some((0.299, 0.114)), true),
        _ => (None, true),
    }
}

#[test]
fn every_format_at_odd_sizes_and_strides_equals_the_reference() {
    let (mut compared, mut left_out) = (0, 0);
    for (number, format) in FORMATS.into_iter().enumerate() {
        for (step, (frame, mask)) in [
            (size(1, 1), size(1, 1)),
            (size(1, 1), size(7, 5)),
            (size(2, 3), size(2, 2)),
            (size(17, 1), size(4, 4)),
            (size(1, 23), size(3, 8)),
            (size(64, 48), size(16, 16)),
            (size(97, 61), size(20, 31)),
            (size(320, 181), size(64, 64)),
            (size(51, 77), size(128, 128)),
        ]
        .into_iter()
        .enumerate()
        {
            for (style, padding) in [("fill", 0), ("contour", 13), ("both", 64)] {
                let seed = (number * 1000 + step * 10 + padding) as u64;
                let region = frame.rect();
                let case = Case {
                    format,
                    frame,
                    region,
                    mask,
                    padding,
                    style,
                    colorimetry: None,
                    expected: default_of(format),
                    rows: None,
                };
                let (some, none) = check(&case, seed);
                compared += some;
                left_out += none;
            }
        }
    }
    println!("{compared} components compared, {left_out} left out");
    assert!(left_out * 50 < compared, "{left_out} of {compared} left out");
}

#[test]
fn the_region_is_where_it_is_and_nothing_around_it_is_touched() {
    for (number, format) in FORMATS.into_iter().enumerate() {
        let mut random = Random(number as u64 + 77);
        for step in 0..6 {
            let frame = size(40 + random.below(90), 30 + random.below(70));
            let (x_px, y_px) = (random.below(frame.width_px), random.below(frame.height_px));
            let region = Rect {
                x_px,
                y_px,
                width_px: 1 + random.below(frame.width_px - x_px),
                height_px: 1 + random.below(frame.height_px - y_px),
            };
            let case = Case {
                format,
                frame,
                region,
                mask: size(1 + random.below(30), 1 + random.below(30)),
                padding: step * 3,
                style: "both",
                colorimetry: None,
                expected: default_of(format),
                rows: None,
            };
            check(&case, 9000 + number as u64 * 10 + step as u64);
        }
    }
}

#[test]
fn matrix_and_range_are_those_of_the_caps() {
    for (colorimetry, weights, full_range) in [
        ("bt601", (0.299, 0.114), false),
        ("bt709", (0.2126, 0.0722), false),
        ("bt2020", (0.2627, 0.0593), false),
        ("1:4:0:0", (0.299, 0.114), true),
        ("1:3:5:1", (0.2126, 0.0722), true),
    ] {
        for format in [
            VideoFormat::Nv12,
            VideoFormat::I420,
            VideoFormat::Yuy2,
            VideoFormat::Uyvy,
        ] {
            let frame = size(61, 45);
            let case = Case {
                format,
                frame,
                region: frame.rect(),
                mask: size(16, 12),
                padding: 5,
                style: "both",
                colorimetry: Some(colorimetry),
                expected: (Some(weights), full_range),
                rows: None,
            };
            check(&case, 31);
        }
    }
}

#[test]
fn the_largest_frames_are_right_too() {
    for format in [
        VideoFormat::Nv12,
        VideoFormat::Uyvy,
        VideoFormat::Rgb,
        VideoFormat::Bgrx,
        VideoFormat::Gray8,
    ] {
        let frame = size(7680, 4320);
        let case = Case {
            format,
            frame,
            region: Rect {
                x_px: 1281,
                y_px: 29,
                width_px: 5121,
                height_px: 4097,
            },
            mask: size(512, 512),
            padding: 0,
            style: "both",
            colorimetry: match format {
                VideoFormat::Nv12 | VideoFormat::Uyvy => Some("bt709"),
                _ => None,
            },
            expected: match format {
                VideoFormat::Nv12 | VideoFormat::Uyvy => (Some((0.2126, 0.0722)), false),
                other => default_of(other),
            },
            rows: Some(12),
        };
        let (compared, left_out) = check(&case, 5);
        assert!(left_out * 50 < compared, "{left_out} of {compared} left out");
    }
}
