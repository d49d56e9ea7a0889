//! Picture kernels on whole frames, each beside a plain copy of the frame's bytes: what moving them costs in any case.

use criterion::{BenchmarkGroup, Criterion, Throughput, measurement::WallTime};
use masam::geometry::{Orientation, Size};
use masam::kernels::picture::blend::Pass;
use masam::kernels::picture::blend_color::{self, Range};
use masam::kernels::picture::blend_layer::ChromaRows;
use masam::kernels::picture::blend_sheet::{FrameLayout, Sheet};
use masam::kernels::picture::contour::{ClassInk, Drawing, Limits, MaskPlane, NOT_DRAWN, Tracer};
use masam::kernels::picture::convert::{self, ColorSpace, Matrix, Picture, PixelFormat, PlaneRef};
use masam::kernels::picture::resize::AreaResizer;
use masam::kernels::picture::resize_reference::resize_reference;
use masam::kernels::picture::text::Font;
use masam::kernels::picture::text_canvas::{Canvas, Panel};
use std::hint::black_box;

const HD: Size = Size {
    width_px: 1920,
    height_px: 1080,
};
const UHD: Size = Size {
    width_px: 3840,
    height_px: 2160,
};
const MASK_SIDE_PX: u32 = 512;

/// Bytes that no kernel finds easy.
fn noise(count: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..count).map(|_| next()).collect()
}

/// A group whose first entry copies `bytes`.
fn beside_a_copy<'c>(criterion: &'c mut Criterion, name: &str, bytes: &[u8]) -> BenchmarkGroup<'c, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group
        .sample_size(20)
        .throughput(Throughput::Bytes(bytes.len() as u64));
    let mut target = vec![0; bytes.len()];
    group.bench_function("plain copy", |b| {
        b.iter(|| black_box(&mut target).copy_from_slice(black_box(bytes)))
    });
    group
}

/// An NV12 frame to the model's square, by area and as the reference does it.
pub fn resizes(criterion: &mut Criterion) {
    let pixels = HD.area();
    let bytes = noise(pixels + pixels / 2);
    let stride_bytes = HD.width_px as usize;
    let planes = [&bytes[..pixels], &bytes[pixels..]].map(|data| PlaneRef { data, stride_bytes });
    let colors = ColorSpace {
        matrix: Matrix::BT709,
        range: convert::Range::Limited,
    };
    let picture = Picture::new(PixelFormat::Nv12, HD, &planes, colors).expect("a whole picture");
    let mut group = beside_a_copy(criterion, "NV12 1920x1080 to the model's square", &bytes);
    for side in [256, 512] {
        let mut square = vec![0; Size::square(side).area() * 3];
        let mut resizer = AreaResizer::new(HD, side).expect("a side within bounds");
        group.bench_function(format!("area {side}"), |b| {
            b.iter(|| {
                let done = resizer.resize(&picture, HD.rect(), Orientation::Upright, &mut square);
                done.expect("sizes fit");
                black_box(&mut square);
            })
        });
        group.sample_size(10);
        group.bench_function(format!("reference {side}"), |b| {
            b.iter(|| {
                let done = resize_reference(&picture, HD.rect(), side, Orientation::Upright, &mut square);
                done.expect("sizes fit");
                black_box(&mut square);
            })
        });
    }
    group.finish();
}

/// Class ids of a mask: one class everywhere, or bands and a disc of eleven.
fn ids(one: bool) -> Vec<u8> {
    let side = MASK_SIDE_PX;
    let id = |at: u32| {
        let (x, y) = (at % side, at / side);
        let in_disc = x.abs_diff(side / 2).pow(2) + y.abs_diff(side / 2).pow(2) < (side / 4).pow(2);
        match (one, in_disc) {
            (true, _) => 4,
            (false, true) => 1 + (x / (side / 8) % 3) as u8,
            (false, false) => 4 + ((x + y) / (side / 5) % 8) as u8,
        }
    };
    (0..side * side).map(id).collect()
}

const INKS: [ClassInk; 11] = [ClassInk {
    color: [100.0, 90.0, 200.0],
    fill: 0.45,
    stroke: 0.9,
}; 11];

/// Traces a mask on frames of `layout` into `sheet`.
fn trace(tracer: &mut Tracer, sheet: &mut Sheet, layout: &FrameLayout, ids: &[u8], half_stroke_px: f32) {
    let mut ink_of_id = [NOT_DRAWN; 256];
    for (ink, id) in (1..12).enumerate() {
        ink_of_id[id] = ink as u8;
    }
    let mask = MaskPlane {
        ids,
        mask: Size::square(MASK_SIDE_PX),
        region: layout.size.rect(),
        frame: layout.size,
    };
    let drawing = Drawing {
        ink_of_id: &ink_of_id,
        inks: &INKS,
        half_stroke_px,
    };
    tracer.trace(&mask, &drawing, Limits::default(), &mut sheet.layer);
    sheet.finish(layout);
}

fn layout(size: Size, passes: &'static [Pass]) -> FrameLayout {
    FrameLayout {
        size,
        passes,
        chroma_rows: ChromaRows::Pairs,
        space: blend_color::ColorSpace::yuv(0.2126, 0.0722, Range::Limited),
    }
}

/// A layer over a frame, every pixel of which is masked: what each frame costs while a mask is shown.
pub fn fills(criterion: &mut Criterion) {
    for (name, size, passes) in [
        ("NV12 1920x1080", HD, Pass::NV12),
        ("RGBA 1920x1080", HD, Pass::RGBX),
        ("NV12 3840x2160", UHD, Pass::NV12),
        ("RGBA 3840x2160", UHD, Pass::RGBX),
    ] {
        let layout = layout(size, passes);
        let pixels = size.area();
        let is_rgba = passes.len() == 1;
        let mut bytes = noise(if is_rgba { 4 * pixels } else { pixels + pixels / 2 });
        let stride_bytes = size.width_px as usize * if is_rgba { 4 } else { 1 };
        let mut group = beside_a_copy(criterion, &format!("overlay fill {name}, all masked"), &bytes);
        for (what, one, half_stroke_px) in [
            ("one class", true, 0.0),
            ("eleven classes", false, 0.0),
            ("eleven classes and contours", false, 1.5),
        ] {
            let (mut tracer, mut sheet) = (Tracer::default(), Sheet::default());
            trace(&mut tracer, &mut sheet, &layout, &ids(one), half_stroke_px);
            group.bench_function(what, |b| {
                b.iter(|| {
                    let (first, second) = bytes.split_at_mut(if is_rgba { 4 * pixels } else { pixels });
                    for (pass, plane) in [first, second].into_iter().take(passes.len()).enumerate() {
                        sheet.draw(&layout, pass, black_box(plane), stride_bytes);
                    }
                })
            });
        }
        group.finish();
    }
}

/// From class ids to a layer, fill and contour: what each new mask costs.
pub fn contours(criterion: &mut Criterion) {
    for (name, size) in [("1920x1080", HD), ("3840x2160", UHD)] {
        let layout = layout(size, Pass::NV12);
        let bytes = noise(size.area() * 3 / 2);
        let mut group = beside_a_copy(criterion, &format!("mask 512x512 to NV12 {name}"), &bytes);
        let plane = ids(false);
        for (what, half_stroke_px) in [("fill", 0.0), ("fill and contour", 1.5)] {
            let (mut tracer, mut sheet) = (Tracer::default(), Sheet::default());
            group.bench_function(what, |b| {
                b.iter(|| {
                    trace(
                        &mut tracer,
                        &mut sheet,
                        &layout,
                        black_box(&plane),
                        half_stroke_px,
                    )
                })
            });
        }
        group.finish();
    }
}

/// Two lines of status from their text to a sheet: what each frame costs while the mask's age is written on it.
pub fn texts(criterion: &mut Criterion) {
    const LINES: [&str; 2] = [
        "mask age 43 ms  ·  29.7 masks/s  ·  phantom tools, 256 px",
        "no mask: the forward pass failed: made to fail; again in 0.8 s",
    ];
    for (name, size, capital_px) in [("1920x1080", HD, 16.0), ("3840x2160", UHD, 32.0)] {
        let layout = layout(size, Pass::NV12);
        let (mut font, mut canvas, mut sheet) = (Font::new(capital_px), Canvas::default(), Sheet::default());
        let mut group = criterion.benchmark_group("status lines");
        group.bench_function(name, |b| {
            b.iter(|| {
                let widths = LINES.map(|text| (font.width_px(text) + capital_px * 1.6).ceil());
                let line_px = (capital_px * 2.6).round();
                let widest = widths.iter().copied().fold(0.0, f32::max);
                canvas.start(widest as usize, 2 * line_px as usize);
                for (row, (text, width_px)) in LINES.iter().zip(widths).enumerate() {
                    let y_px = row as f32 * line_px;
                    let panel = Panel {
                        x_px: 0.0,
                        y_px,
                        width_px,
                        height_px: line_px,
                        radius_px: (capital_px * 0.35).round(),
                    };
                    canvas.panel(panel, [12, 14, 18], 0.62);
                    let base_px = (y_px + capital_px * 1.8).round() as i32;
                    canvas.text(
                        &mut font,
                        capital_px * 0.8,
                        base_px,
                        black_box(text),
                        [168, 176, 186],
                    );
                }
                canvas.to_layer(20, 20, size, &layout.space, &mut sheet.layer);
                sheet.finish(&layout);
            })
        });
        group.finish();
    }
}
