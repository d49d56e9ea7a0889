//! Reading pictures of every format against GStreamer's own converter.

mod stream_support;

use gst_video::prelude::*;
use gstreamer as gst;
use gstreamer_video as gst_video;
use masam::geometry::Size;
use masam::kernels::picture::convert::{ColorSpace, Matrix, Picture, PixelFormat, PlaneRef, Range, RgbRow};
use stream_support::{Noise, init};

const FORMATS: [(PixelFormat, gst_video::VideoFormat); 11] = [
    (PixelFormat::Nv12, gst_video::VideoFormat::Nv12),
    (PixelFormat::I420, gst_video::VideoFormat::I420),
    (PixelFormat::Yuy2, gst_video::VideoFormat::Yuy2),
    (PixelFormat::Uyvy, gst_video::VideoFormat::Uyvy),
    (PixelFormat::Rgb, gst_video::VideoFormat::Rgb),
    (PixelFormat::Bgr, gst_video::VideoFormat::Bgr),
    (PixelFormat::Rgba, gst_video::VideoFormat::Rgba),
    (PixelFormat::Bgra, gst_video::VideoFormat::Bgra),
    (PixelFormat::Rgbx, gst_video::VideoFormat::Rgbx),
    (PixelFormat::Bgrx, gst_video::VideoFormat::Bgrx),
    (PixelFormat::Gray8, gst_video::VideoFormat::Gray8),
];

const COLORS: [(&str, Matrix, Range); 6] = [
    ("bt601", Matrix::BT601, Range::Limited),
    ("bt709", Matrix::BT709, Range::Limited),
    ("bt2020", Matrix::BT2020, Range::Limited),
    ("smpte240m", Matrix::SMPTE240M, Range::Limited),
    ("1:4:0:0", Matrix::BT601, Range::Full), // BT.601, full range
    ("1:3:0:0", Matrix::BT709, Range::Full), // BT.709, full range
];

/// A frame in `format` of noise.
fn noise_frame(
    info: &gst_video::VideoInfo,
    noise: &mut Noise,
) -> gst_video::VideoFrame<gst_video::video_frame::Readable> {
    let bytes: Vec<u8> = (0..info.size()).map(|_| noise.below(256) as u8).collect();
    let buffer = gst::Buffer::from_mut_slice(bytes);
    gst_video::VideoFrame::from_buffer_readable(buffer, info).unwrap()
}

/// The frame as RGB bytes, by GStreamer: chroma repeated rather than interpolated, no dithering.
fn by_gstreamer(frame: &gst_video::VideoFrame<gst_video::video_frame::Readable>) -> Vec<u8> {
    let info = frame.info();
    let out = gst_video::VideoInfo::builder(gst_video::VideoFormat::Rgb, info.width(), info.height())
        .build()
        .unwrap();
    let mut config = gst_video::VideoConverterConfig::new();
    config.set_chroma_mode(gst_video::VideoChromaMode::None);
    config.set_dither_method(gst_video::VideoDitherMethod::None);
    let converter = gst_video::VideoConverter::new(info, &out, Some(config)).unwrap();
    let mut converted =
        gst_video::VideoFrame::from_buffer_writable(gst::Buffer::with_size(out.size()).unwrap(), &out)
            .unwrap();
    converter.frame(frame, &mut converted);
    let stride = converted.plane_stride()[0] as usize;
    let rows = converted
        .plane_data(0)
        .unwrap()
        .chunks(stride)
        .take(info.height() as usize);
    rows.flat_map(|row| row[..info.width() as usize * 3].to_vec())
        .collect()
}

fn by_us(
    format: PixelFormat,
    frame: &gst_video::VideoFrame<gst_video::video_frame::Readable>,
    colors: ColorSpace,
) -> Vec<u8> {
    let info = frame.info();
    let planes: Vec<PlaneRef> = (0..info.n_planes())
        .map(|plane| PlaneRef {
            data: frame.plane_data(plane).unwrap(),
            stride_bytes: frame.plane_stride()[plane as usize] as usize,
        })
        .collect();
    let size = Size {
        width_px: info.width(),
        height_px: info.height(),
    };
    let picture = Picture::new(format, size, &planes, colors).unwrap();
    let mut row = RgbRow::default();
    let mut rgb = Vec::new();
    for y in 0..size.height_px {
        // In two parts that meet at an odd column: neither may depend on where it begins.
        let split = (size.width_px / 2) | 1;
        for (x, width) in [
            (0, split.min(size.width_px)),
            (split, size.width_px.saturating_sub(split)),
        ] {
            picture.read_row(y, x, width, &mut row);
            for ((red, green), blue) in row.red.iter().zip(&row.green).zip(&row.blue) {
                rgb.extend([*red, *green, *blue]);
            }
        }
    }
    rgb
}

#[test]
fn every_format_matrix_and_range_is_within_one_level_of_gstreamer() {
    init();
    let seed = 7_301;
    println!("seed {seed}");
    let mut noise = Noise(seed);
    for (format, gst_format) in FORMATS {
        for (colorimetry, matrix, range) in COLORS {
            for (width, height) in [(64, 48), (33, 21), (2, 2), (1, 1), (1, 9), (9, 1), (322, 5)] {
                let yuv = matches!(
                    format,
                    PixelFormat::Nv12 | PixelFormat::I420 | PixelFormat::Yuy2 | PixelFormat::Uyvy
                );
                let mut builder = gst_video::VideoInfo::builder(gst_format, width, height);
                let mut colorimetry: gst_video::VideoColorimetry = colorimetry.parse().unwrap();
                if !yuv && format != PixelFormat::Gray8 {
                    colorimetry = gst_video::VideoColorimetry::new(
                        colorimetry.range(),
                        gst_video::VideoColorMatrix::Rgb,
                        colorimetry.transfer(),
                        colorimetry.primaries(),
                    );
                }
                builder = builder.colorimetry(&colorimetry);
                let colors = ColorSpace { matrix, range };
                let frame = noise_frame(&builder.build().unwrap(), &mut noise);
                let (ours, theirs) = (by_us(format, &frame, colors), by_gstreamer(&frame));
                assert_eq!(ours.len(), theirs.len());
                for (at, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
                    assert!(
                        ours.abs_diff(*theirs) <= 1,
                        "{format:?} {matrix:?} {range:?} {width}x{height} byte {at}: {ours}, GStreamer {theirs}"
                    );
                }
            }
        }
    }
}

#[test]
fn pictures_are_checked_against_their_planes() {
    let refused = |format, size, planes: &[PlaneRef<'_>]| {
        Picture::new(format, size, planes, ColorSpace::RGB)
            .unwrap_err()
            .to_string()
    };
    let size = Size {
        width_px: 5,
        height_px: 3,
    };
    let short = PlaneRef {
        data: &[0; 44],
        stride_bytes: 15,
    };
    assert!(refused(PixelFormat::Rgb, size, &[short]).contains("needs 45 bytes"));
    let narrow = PlaneRef {
        data: &[0; 100],
        stride_bytes: 14,
    };
    assert!(refused(PixelFormat::Rgb, size, &[narrow]).contains("a row of Rgb takes 15 bytes"));
    let luma = PlaneRef {
        data: &[0; 15],
        stride_bytes: 5,
    };
    assert!(refused(PixelFormat::Nv12, size, &[luma]).contains("has 2 planes"));
    let wild = PlaneRef {
        data: &[0; 15],
        stride_bytes: usize::MAX,
    };
    assert!(refused(PixelFormat::Gray8, size, &[wild]).contains("more than memory holds"));
    assert!(
        refused(
            PixelFormat::Gray8,
            Size {
                width_px: 0,
                height_px: 3
            },
            &[luma]
        )
        .contains("width is 0")
    );
    // The last row need not be padded.
    let tight = PlaneRef {
        data: &[0; 8 + 8 + 5],
        stride_bytes: 8,
    };
    assert!(Picture::new(PixelFormat::Gray8, size, &[tight], ColorSpace::RGB).is_ok());
}

#[test]
fn fields_are_every_second_row() {
    let bytes: Vec<u8> = (0..5_u8).flat_map(|y| [y * 10; 4]).collect();
    let plane = PlaneRef {
        data: &bytes,
        stride_bytes: 4,
    };
    let size = Size {
        width_px: 4,
        height_px: 5,
    };
    let picture = Picture::new(PixelFormat::Gray8, size, &[plane], ColorSpace::RGB).unwrap();
    let rows = |picture: &Picture<'_>| -> Vec<u8> {
        let mut row = RgbRow::default();
        (0..picture.size().height_px)
            .map(|y| {
                picture.read_row(y, 0, 4, &mut row);
                row.green[3]
            })
            .collect()
    };
    assert_eq!(rows(&picture.field(false)), [0, 20, 40]);
    assert_eq!(rows(&picture.field(true)), [10, 30]);
    let line = PlaneRef {
        data: &bytes[..4],
        stride_bytes: 4,
    };
    let single = Picture::new(
        PixelFormat::Gray8,
        Size { height_px: 1, ..size },
        &[line],
        ColorSpace::RGB,
    )
    .unwrap();
    assert_eq!(rows(&single.field(true)), [0]);
}
