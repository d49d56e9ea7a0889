//! How long `masamoverlay` holds a frame. Run with
//! `cargo test --release --test overlay_speed -- --ignored --nocapture`.

#![cfg(feature = "gst")]

use gst::prelude::*;
use gstreamer as gst;
use masam::geometry::Size;
use masam::gst::meta::MaskMeta;
use masam::labels::ClassSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What the masks look like.
#[derive(Clone, Copy, Debug)]
enum Mask {
    /// One class everywhere.
    Full,
    /// Bands and discs of eleven classes, no background.
    Classes,
    /// A new class at every pixel.
    Noise,
}

fn ids(kind: Mask, side: u32, shift: u32) -> Vec<u8> {
    let mut seed = 1_u32.wrapping_add(shift);
    let mut random = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        seed >> 24
    };
    (0..side * side)
        .map(|at| {
            let (x, y) = ((at % side + shift) % side, at / side);
            match kind {
                Mask::Full => 4,
                Mask::Classes => {
                    let disc =
                        (x.abs_diff(side / 2)).pow(2) + (y.abs_diff(side / 2)).pow(2) < (side / 4).pow(2);
                    if disc {
                        1 + (x / (side / 8) % 3) as u8
                    } else {
                        4 + ((x + y) / (side / 5) % 8) as u8
                    }
                }
                Mask::Noise => (random() % 12) as u8,
            }
        })
        .collect()
}

fn measure(format: &str, size: Size, options: &str, kind: Mask, fresh: bool) -> Vec<Duration> {
    const FRAMES: usize = 150;
    let (width, height) = (size.width_px, size.height_px);
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc pattern=snow num-buffers={FRAMES} ! video/x-raw,format={format},width={width},height={height} \
         ! identity name=tap ! masamoverlay name=overlay {options} ! fakesink"
    ))
    .unwrap()
    .downcast::<gst::Pipeline>()
    .unwrap();
    let planes: Vec<_> = (0..4)
        .map(|shift| gst::glib::Bytes::from_owned(ids(kind, 512, shift * 3)))
        .collect();
    let meta = MaskMeta {
        epoch: 0,
        running_time_nanos: None,
        age_nanos: 0,
        frame: size,
        region: size.rect(),
        mask: Size::square(512),
        classes: ClassSet::endovis_2018(),
        plane: planes[0].clone(),
        model_id: "demo".into(),
        carried: false,
        untrained: false,
        confidence: None,
        status: None,
    };
    let frames = AtomicUsize::new(0);
    let tap = pipeline.by_name("tap").unwrap().static_pad("src").unwrap();
    tap.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        let count = frames.fetch_add(1, Ordering::Relaxed);
        let plane = planes[if fresh { count % 4 } else { 0 }].clone();
        let meta = MaskMeta {
            plane,
            age_nanos: count as u64 * 1_000_000,
            ..meta.clone()
        };
        meta.attach(info.buffer_mut().unwrap().make_mut());
        gst::PadProbeReturn::Ok
    });
    let overlay = pipeline.by_name("overlay").unwrap();
    let entered = Arc::new(Mutex::new(None));
    let taken = Arc::new(Mutex::new(Vec::new()));
    let began = entered.clone();
    overlay
        .static_pad("sink")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            *began.lock().unwrap() = Some(Instant::now());
            gst::PadProbeReturn::Ok
        });
    let times = taken.clone();
    overlay
        .static_pad("src")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            if let Some(began) = entered.lock().unwrap().take() {
                times.lock().unwrap().push(began.elapsed());
            }
            gst::PadProbeReturn::Ok
        });
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = bus
        .timed_pop_filtered(gst::ClockTime::from_seconds(120), &kinds)
        .unwrap();
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    let mut times = taken.lock().unwrap().clone();
    assert_eq!(times.len(), FRAMES);
    times.sort();
    times
}

#[test]
#[ignore = "a measurement, not a check"]
fn chain_time() {
    gst::init().unwrap();
    masam::gst::overlay::register(None).unwrap();
    let hd = Size {
        width_px: 1920,
        height_px: 1080,
    };
    let uhd = Size {
        width_px: 3840,
        height_px: 2160,
    };
    println!(
        "{:6} {:>9} {:8} {:5} {:40} {:>8} {:>8} {:>8}",
        "format", "size", "mask", "fresh", "options", "p50 ms", "p99 ms", "max ms"
    );
    let plain = "status=false legend=false";
    let hud = "status=true legend=true";
    for (format, size, options, kind, fresh) in [
        ("NV12", hd, plain, Mask::Full, false),
        ("NV12", hd, hud, Mask::Full, false),
        ("NV12", hd, plain, Mask::Classes, false),
        ("NV12", hd, plain, Mask::Classes, true),
        (
            "NV12",
            hd,
            "style=both status=false legend=false",
            Mask::Classes,
            true,
        ),
        ("NV12", hd, hud, Mask::Classes, true),
        ("NV12", hd, plain, Mask::Noise, false),
        ("NV12", hd, plain, Mask::Noise, true),
        ("I420", hd, plain, Mask::Classes, false),
        ("YUY2", hd, plain, Mask::Classes, false),
        ("RGB", hd, plain, Mask::Classes, false),
        ("RGBA", hd, plain, Mask::Full, false),
        ("RGBA", hd, plain, Mask::Classes, false),
        ("RGBA", hd, plain, Mask::Classes, true),
        ("NV12", uhd, plain, Mask::Classes, false),
        ("NV12", uhd, plain, Mask::Classes, true),
        ("RGBA", uhd, plain, Mask::Classes, false),
    ] {
        let times = measure(format, size, options, kind, fresh);
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
        println!(
            "{format:6} {:>9} {:8} {fresh:5} {options:40} {:8.3} {:8.3} {:8.3}",
            format!("{}x{}", size.width_px, size.height_px),
            format!("{kind:?}"),
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
}

#[test]
#[ignore = "a measurement, not a check"]
fn kernel_time() {
    use masam::kernels::picture::blend::Pass;
    use masam::kernels::picture::blend_color::{ColorSpace, Range};
    use masam::kernels::picture::blend_layer::ChromaRows;
    use masam::kernels::picture::blend_sheet::{FrameLayout, Sheet};
    use masam::kernels::picture::contour::{ClassInk, Drawing, Limits, MaskPlane, Tracer};
    let frame = Size {
        width_px: 1920,
        height_px: 1080,
    };
    let inks = [ClassInk {
        color: [100.0, 90.0, 200.0],
        fill: 0.45,
        stroke: 0.9,
    }; 11];
    let mut ink_of_id = [255; 256];
    for (ink, id) in (1..12).enumerate() {
        ink_of_id[id] = ink as u8;
    }
    let layout = FrameLayout {
        size: frame,
        passes: Pass::NV12,
        chroma_rows: ChromaRows::Pairs,
        space: ColorSpace::yuv(0.2126, 0.0722, Range::Limited),
    };
    for kind in [Mask::Full, Mask::Classes, Mask::Noise] {
        for half_stroke_px in [0.0, 1.5] {
            let plane = ids(kind, 512, 0);
            let mask = MaskPlane {
                ids: &plane,
                mask: Size::square(512),
                region: frame.rect(),
                frame,
            };
            let drawing = Drawing {
                ink_of_id: &ink_of_id,
                inks: &inks,
                half_stroke_px,
            };
            let (mut tracer, mut sheet) = (Tracer::default(), Sheet::default());
            let mut times = [const { Vec::new() }; 2];
            for _ in 0..40 {
                let began = Instant::now();
                tracer.trace(&mask, &drawing, Limits::default(), &mut sheet.layer);
                times[0].push(began.elapsed());
                let began = Instant::now();
                sheet.finish(&layout);
                times[1].push(began.elapsed());
            }
            times.iter_mut().for_each(|times| times.sort());
            println!(
                "{kind:?} {half_stroke_px}: trace {:?}, finish {:?}, {:?}",
                times[0][20],
                times[1][20],
                sheet.layer.counts()
            );
        }
    }
}
