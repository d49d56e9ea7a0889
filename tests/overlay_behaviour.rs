//! How `masamoverlay` behaves: off, age, live changes, bad wishes, shared buffers, allocation.

#![cfg(feature = "gst")]

mod overlay_support;

use gst::prelude::*;
use gst_video::{VideoFormat, VideoInfo};
use gstreamer as gst;
use gstreamer_video as gst_video;
use masam::geometry::{Rect, Size};
use masam::gst::meta::MaskMeta;
use overlay_support::{FORMATS, Frame, Overlay, Random, bytes_of, info, meta};

const FRAME: Size = Size {
    width_px: 161,
    height_px: 121,
};

fn example(format: VideoFormat) -> (VideoInfo, Frame) {
    let info = info(format, FRAME, None);
    let frame = Frame::random(&info, 5, &mut Random(17));
    (info, frame)
}

/// Class 1 on the left, class 4 on the right, background between.
fn two_classes() -> MaskMeta {
    let ids = (0..96)
        .map(|at| [1, 1, 1, 0, 0, 0, 0, 0, 4, 4, 4, 4][at % 12])
        .collect();
    meta(
        FRAME,
        FRAME.rect(),
        Size {
            width_px: 12,
            height_px: 8,
        },
        ids,
    )
}

fn with(frame: &Frame, meta: &MaskMeta) -> gst::Buffer {
    let mut buffer = frame.to_buffer();
    meta.attach(buffer.get_mut().unwrap());
    buffer
}

#[test]
fn off_is_the_same_buffer_with_the_same_bytes() {
    let background = MaskMeta {
        plane: gst::glib::Bytes::from_owned(vec![0_u8; 96]),
        ..two_classes()
    };
    let quiet = "legend=false status=false";
    for format in FORMATS {
        let (info, frame) = example(format);
        let caps = info.to_caps().unwrap();
        let old = MaskMeta {
            age_nanos: 500_000_001,
            ..two_classes()
        };
        let foreign = MaskMeta {
            frame: Size {
                width_px: 161,
                height_px: 120,
            },
            region: Rect {
                height_px: 120,
                ..FRAME.rect()
            },
            ..two_classes()
        };
        for (options, buffer) in [
            ("opacity=0", with(&frame, &two_classes())),
            ("", frame.to_buffer()),
            (quiet, with(&frame, &background)),
            (quiet, with(&frame, &old)),
            ("", with(&frame, &foreign)),
            (
                "legend=false status=false hide-classes=1,4",
                with(&frame, &two_classes()),
            ),
        ] {
            // Somebody else holds the buffer as well: a copy would show.
            let held = buffer.clone();
            let overlay = Overlay::new(&caps, options);
            // The source marks its first buffer, and so copies it.
            overlay.push(frame.to_buffer());
            let sample = overlay.push(buffer);
            assert_eq!(bytes_of(&sample), frame.bytes, "{format} {options}");
            assert_eq!(
                sample.buffer().unwrap().as_ptr(),
                held.as_ptr(),
                "{format} {options}: copied"
            );
        }
    }
}

#[test]
fn a_shared_buffer_is_copied_before_it_is_drawn_on() {
    let (info, frame) = example(VideoFormat::I420);
    let overlay = Overlay::new(&info.to_caps().unwrap(), "");
    let buffer = with(&frame, &two_classes());
    let held = buffer.clone();
    let sample = overlay.push(buffer);
    assert_ne!(bytes_of(&sample), frame.bytes);
    assert_eq!(held.map_readable().unwrap().as_slice(), frame.bytes);
    // The copy still says what it is.
    assert_eq!(
        MaskMeta::from_frame(sample.buffer().unwrap(), FRAME).unwrap(),
        two_classes()
    );
}

#[test]
fn background_stays_as_it_is() {
    let (info, frame) = example(VideoFormat::Nv12);
    let overlay = Overlay::new(&info.to_caps().unwrap(), "legend=false status=false style=both");
    let after = bytes_of(&overlay.push(with(&frame, &two_classes())));
    // Mask pixels 4 to 6 of 12 are background with background around.
    for y in 0..121 {
        for x in 161 * 4 / 12 + 1..161 * 7 / 12 {
            let at = frame.index(0, x, y);
            assert_eq!(after[at], frame.bytes[at], "{x},{y}");
        }
    }
    assert!(
        (0..121)
            .filter(|&y| after[frame.index(0, 10, y)] != frame.bytes[frame.index(0, 10, y)])
            .count()
            > 90
    );
}

/// Luma of what is drawn at the middle of class 1, of background and of class 4, on a black frame.
fn probes(overlay: &Overlay, info: &VideoInfo, meta: &MaskMeta, pts_nanos: u64) -> [u8; 3] {
    let mut frame = Frame::random(info, 0, &mut Random(1));
    frame.bytes.fill(16);
    let mut buffer = with(&frame, meta);
    buffer
        .get_mut()
        .unwrap()
        .set_pts(gst::ClockTime::from_nseconds(pts_nanos));
    let after = bytes_of(&overlay.push(buffer));
    [15, 80, 145].map(|x| after[frame.index(0, x, 60)])
}

#[test]
fn every_wish_can_change_while_playing() {
    let (info, _) = example(VideoFormat::I420);
    let overlay = Overlay::new(
        &info.to_caps().unwrap(),
        "legend=false status=false opacity=1 palette=model",
    );
    let probe = || probes(&overlay, &info, &two_classes(), 0);
    let set = |name: &str, value: &str| overlay.element.set_property_from_str(name, value);
    // Green and orange in BT.601.
    assert_eq!(probe(), [145, 16, 109]);
    set("opacity", "0.5");
    assert_eq!(probe(), [80, 16, 63]);
    set("class-opacity", "4=0.5,1=9");
    assert_eq!(probe(), [145, 16, 39]);
    set("class-opacity", "");
    set("opacity", "1");
    set("hide-classes", "instrument-shaft");
    assert_eq!(probe(), [16, 16, 109]);
    set("hide-classes", "");
    set("show-classes", "0,1");
    // Background is drawn when asked for: black.
    assert_eq!(probe(), [145, 16, 16]);
    set("show-classes", "");
    set("palette", "model,instrument-shaft=#ffffff");
    assert_eq!(probe(), [235, 16, 109]);
    set("palette", "safe");
    let safe = probe();
    assert!(safe[0] != 145 && safe[2] != 109, "{safe:?}");
    // The colours told apart by everyone are what the element starts with, and what entries alone change.
    let fresh = Overlay::new(&info.to_caps().unwrap(), "legend=false status=false opacity=1");
    assert_eq!(probes(&fresh, &info, &two_classes(), 0), safe);
    set("palette", "instrument-shaft=#ffffff");
    assert_eq!(probe(), [235, 16, safe[2]]);
    set("palette", "endovis");
    set("style", "contour");
    assert_eq!(probe(), [16, 16, 16]);
    set("style", "fill");
    assert_eq!(probe(), [145, 16, 109]);
    set("opacity", "0");
    assert_eq!(probe(), [16, 16, 16]);
    assert_eq!(overlay.warnings(), Vec::<String>::new());
}

#[test]
fn masks_expire_by_their_own_age_and_by_the_frames() {
    let (info, _) = example(VideoFormat::I420);
    let overlay = Overlay::new(
        &info.to_caps().unwrap(),
        "legend=false status=false opacity=1 palette=model",
    );
    let drawn = |age_nanos: u64, made_nanos: Option<u64>, shown_nanos: u64| {
        let meta = MaskMeta {
            age_nanos,
            running_time_nanos: made_nanos,
            ..two_classes()
        };
        probes(&overlay, &info, &meta, shown_nanos)[0] != 16
    };
    const LIMIT: u64 = 500_000_000;
    assert!(drawn(LIMIT, None, 0) && !drawn(LIMIT + 1, None, 0));
    // The meta may be on a later frame than it was attached to, as when frames are repeated.
    assert!(drawn(0, Some(7), LIMIT + 7) && !drawn(0, Some(7), LIMIT + 8));
    // Never younger than it said it was.
    assert!(!drawn(LIMIT + 1, Some(1_000), 1_000));
    assert!(drawn(0, Some(LIMIT * 3), 0));
    overlay.element.set_property("expire-after", 10_u64);
    assert!(drawn(10, None, 0) && !drawn(11, None, 0));
    overlay.element.set_property("expire-after", u64::MAX);
    assert!(drawn(u64::MAX, None, 0));
}

#[test]
fn wrong_wishes_are_warned_of_once_and_do_not_stop_the_rest() {
    let (info, _) = example(VideoFormat::I420);
    let overlay = Overlay::new(
        &info.to_caps().unwrap(),
        "legend=false status=false opacity=1 palette=model show-classes=thread,knife",
    );
    for _ in 0..3 {
        assert_eq!(probes(&overlay, &info, &two_classes(), 0), [145, 16, 109]);
    }
    let warnings = overlay.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("knife"), "{warnings:?}");
    // A palette that does not exist leaves the element's own.
    overlay.element.set_property_from_str("show-classes", "");
    overlay.element.set_property_from_str("palette", "");
    let standard = probes(&overlay, &info, &two_classes(), 0);
    overlay.element.set_property_from_str("palette", "model");
    for (name, value, word, drawn) in [
        ("palette", "blue", "blue", standard),
        ("class-opacity", "1=x", "1=x", [145, 16, 109]),
        ("hide-classes", "99", "99", [145, 16, 109]),
    ] {
        overlay.element.set_property_from_str("show-classes", "");
        overlay.element.set_property_from_str(name, value);
        assert_eq!(probes(&overlay, &info, &two_classes(), 0), drawn, "{name}");
        let warnings = overlay.warnings();
        assert!(
            warnings.len() == 1 && warnings[0].contains(word),
            "{name}: {warnings:?}"
        );
        // Another setting changes: nothing new can be said.
        overlay.element.set_property("expire-after", 1_000_000_000_u64);
        probes(&overlay, &info, &two_classes(), 0);
        assert_eq!(overlay.warnings(), Vec::<String>::new(), "{name}");
        overlay
            .element
            .set_property_from_str(name, if name == "palette" { "model" } else { "" });
        assert_eq!(probes(&overlay, &info, &two_classes(), 0), [145, 16, 109]);
    }
}

/// Number of pixels of a rectangle that differ from the frame.
fn changed(frame: &Frame, after: &[u8], rect: Rect) -> usize {
    (rect.y_px..rect.bottom_px())
        .flat_map(|y| (rect.x_px..rect.right_px()).map(move |x| (x as usize, y as usize)))
        .filter(|&(x, y)| after[frame.index(0, x, y)] != frame.bytes[frame.index(0, x, y)])
        .count()
}

#[test]
fn legend_and_status_are_where_they_belong_and_go_when_told_to() {
    let size = Size {
        width_px: 640,
        height_px: 360,
    };
    let info = info(VideoFormat::Nv12, size, None);
    let mut frame = Frame::random(&info, 0, &mut Random(4));
    frame.bytes.fill(100);
    let upper = Rect {
        x_px: 0,
        y_px: 0,
        width_px: 320,
        height_px: 120,
    };
    let lower = Rect { y_px: 240, ..upper };
    // A mask whose classes are far from both corners.
    let mut ids = vec![0; 64 * 36];
    ids[18 * 64 + 55] = 1;
    ids[18 * 64 + 57] = 3;
    let mask = meta(
        size,
        size.rect(),
        Size {
            width_px: 64,
            height_px: 36,
        },
        ids,
    );
    let draw = |options: &str, meta: &MaskMeta| {
        let after = bytes_of(&Overlay::new(&info.to_caps().unwrap(), options).push(with(&frame, meta)));
        (changed(&frame, &after, upper), changed(&frame, &after, lower))
    };
    let none = draw("legend=false status=false", &mask);
    assert_eq!(none, (0, 0));
    let (status, legend) = draw("", &mask);
    assert!(status > 500 && legend > 1000, "{status} {legend}");
    assert_eq!(draw("legend=false", &mask), (status, 0));
    assert_eq!(draw("status=false", &mask), (0, legend));
    // A class less, a line less.
    let fewer = draw("hide-classes=3", &mask);
    assert!(fewer.1 > 0 && fewer.1 < legend, "{} {legend}", fewer.1);
    // Untrained weights are named even where no status is wanted, and faults where it is.
    let untrained = MaskMeta {
        untrained: true,
        ..mask.clone()
    };
    assert!(draw("status=false legend=false", &untrained).0 > 1000);
    assert!(draw("", &untrained).0 > status + 1000);
    let faulty = MaskMeta {
        status: Some("model is slow".into()),
        ..mask.clone()
    };
    assert!(draw("", &faulty).0 > status + 500);
    // An old mask loses its legend and says so.
    let old = MaskMeta {
        age_nanos: 2_000_000_000,
        ..mask
    };
    let (late, gone) = draw("", &old);
    assert!(late > 500 && gone == 0, "{late} {gone}");
    assert_eq!(draw("status=false", &old), (0, 0));
}

#[test]
fn panels_fit_frames_of_any_size() {
    let mut random = Random(8);
    for (width_px, height_px) in [
        (1, 1),
        (2, 1),
        (1, 3),
        (5, 300),
        (300, 5),
        (17, 23),
        (64, 48),
        (321, 243),
    ] {
        for format in FORMATS {
            let size = Size { width_px, height_px };
            let info = info(format, size, None);
            let frame = Frame::random(&info, 3, &mut random);
            let ids = (0..16).collect();
            let meta = MaskMeta {
                untrained: true,
                ..meta(size, size.rect(), Size::square(4), ids)
            };
            let sample = Overlay::new(&info.to_caps().unwrap(), "style=both").push(with(&frame, &meta));
            assert_eq!(bytes_of(&sample).len(), frame.bytes.len());
        }
    }
}

#[test]
fn caps_may_change_in_mid_stream() {
    let (info, _) = example(VideoFormat::I420);
    let overlay = Overlay::new(
        &info.to_caps().unwrap(),
        "legend=false status=false opacity=1 palette=model",
    );
    assert_eq!(probes(&overlay, &info, &two_classes(), 0), [145, 16, 109]);
    let other = overlay_support::info(VideoFormat::Nv12, FRAME, Some("bt709"));
    overlay.set_caps(&other.to_caps().unwrap());
    // Green and orange in BT.709.
    assert_eq!(probes(&overlay, &other, &two_classes(), 0), [173, 16, 96]);
    overlay.set_caps(&info.to_caps().unwrap());
    assert_eq!(probes(&overlay, &info, &two_classes(), 0), [145, 16, 109]);
}

#[test]
fn the_allocation_query_reaches_downstream_and_comes_back() {
    overlay_support::init();
    let element = gst::ElementFactory::make("masamoverlay").build().unwrap();
    let sink = gst::ElementFactory::make("fakesink")
        .property("sync", false)
        .build()
        .unwrap();
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([&element, &sink]).unwrap();
    element.link(&sink).unwrap();
    sink.static_pad("sink")
        .unwrap()
        .add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| {
            if let Some(query) = info.query_mut()
                && let gst::QueryViewMut::Allocation(query) = query.view_mut()
            {
                query.add_allocation_pool(None::<&gst::BufferPool>, 4711, 7, 9);
                query.add_allocation_meta::<gst_video::VideoMeta>(None);
                return gst::PadProbeReturn::Handled;
            }
            gst::PadProbeReturn::Ok
        });
    pipeline.set_state(gst::State::Paused).unwrap();
    let caps = info(VideoFormat::Nv12, FRAME, None).to_caps().unwrap();
    let pad = element.static_pad("sink").unwrap();
    pad.send_event(gst::event::StreamStart::new("test"));
    pad.send_event(gst::event::Caps::new(&caps));
    let mut query = gst::query::Allocation::new(Some(&caps), true);
    assert!(pad.query(query.query_mut()));
    assert_eq!(
        query
            .allocation_pools()
            .next()
            .map(|pool| (pool.1, pool.2, pool.3)),
        Some((4711, 7, 9))
    );
    assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some());
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_frame_that_cannot_be_mapped_goes_on_without_a_mask() {
    let (info, frame) = example(VideoFormat::I420);
    let overlay = Overlay::new(&info.to_caps().unwrap(), "");
    let short = |meta: &MaskMeta| {
        let mut buffer = gst::Buffer::from_slice(vec![9_u8; 100]);
        meta.attach(buffer.get_mut().unwrap());
        buffer
    };
    for _ in 0..3 {
        assert_eq!(bytes_of(&overlay.push(short(&two_classes()))), vec![9; 100]);
    }
    assert_eq!(overlay.warnings().len(), 1);
    assert_ne!(bytes_of(&overlay.push(with(&frame, &two_classes()))), frame.bytes);
    overlay.push(short(&two_classes()));
    assert_eq!(overlay.warnings().len(), 1);
}

/// What is kept from frame to frame must not outlive its reason.
#[test]
fn the_same_plane_elsewhere_and_another_plane_in_its_place_are_drawn_anew() {
    let (info, _) = example(VideoFormat::I420);
    let overlay = Overlay::new(
        &info.to_caps().unwrap(),
        "legend=false status=false opacity=1 palette=model",
    );
    let probe = |meta: &MaskMeta| probes(&overlay, &info, meta, 0);
    let first = two_classes();
    assert_eq!(probe(&first), [145, 16, 109]);
    // Only the left half: the probes are at its end and outside.
    let left = MaskMeta {
        region: Rect {
            width_px: 80,
            ..FRAME.rect()
        },
        ..first.clone()
    };
    assert_eq!(left.plane.as_ptr(), first.plane.as_ptr());
    assert_eq!(probe(&left), [145, 16, 16]);
    // The same bytes as 8 columns of 12 rows.
    let turned = MaskMeta {
        mask: Size {
            width_px: 8,
            height_px: 12,
        },
        ..first.clone()
    };
    assert_ne!(probe(&turned), [145, 16, 109]);
    assert_eq!(probe(&first), [145, 16, 109]);
    let other = MaskMeta {
        plane: gst::glib::Bytes::from_owned(vec![4_u8; 96]),
        ..first.clone()
    };
    assert_eq!(probe(&other), [109, 109, 109]);
    // Another model's classes on the same plane.
    let renamed = MaskMeta {
        classes: first.classes.recolored("1=#ffffff").unwrap(),
        ..first.clone()
    };
    assert_eq!(probe(&renamed), [235, 16, 109]);
    assert_eq!(probe(&first), [145, 16, 109]);
}

#[test]
fn frames_whose_meta_lies_about_their_layout_are_left_alone() {
    let info = info(VideoFormat::Gray8, FRAME, None);
    let (width, height) = (FRAME.width_px as usize, FRAME.height_px as usize);
    let bytes = vec![90_u8; width * height];
    let lying = |rows: u32, offset: usize, stride: i32| {
        let mut buffer = gst::Buffer::from_mut_slice(bytes.clone());
        let writable = buffer.get_mut().unwrap();
        let flags = gst_video::VideoFrameFlags::empty();
        let (format, width) = (VideoFormat::Gray8, FRAME.width_px);
        let made = gst_video::VideoMeta::add_full(writable, flags, format, width, rows, &[offset], &[stride])
            .is_ok();
        two_classes().attach(writable);
        made.then_some(buffer)
    };
    let overlay = Overlay::new(&info.to_caps().unwrap(), "");
    let mut lies = 0;
    for (rows, offset, stride) in [
        (121, 1, 161),
        (121, bytes.len(), 161),
        (121, 0, 162),
        (121, 0, i32::MAX),
        (121, 0, -161),
        (16_384, 0, 161),
        (120, 0, 161),
    ] {
        let Some(buffer) = lying(rows, offset, stride) else {
            continue;
        };
        lies += 1;
        assert_eq!(bytes_of(&overlay.push(buffer)), bytes, "{rows} {offset} {stride}");
    }
    assert!(lies >= 4, "GStreamer let {lies} lies through");
    let warnings = overlay.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("no mask is drawn"), "{warnings:?}");
    let fine = lying(121, 0, 161).unwrap();
    assert_ne!(bytes_of(&overlay.push(fine)), bytes);
    assert_eq!(overlay.warnings(), Vec::<String>::new());
}

/// Brightness without its colour would be half a mask.
#[test]
fn a_frame_is_drawn_on_in_all_its_planes_or_in_none() {
    let info = info(VideoFormat::Nv12, FRAME, None);
    let bytes = vec![90_u8; info.size()];
    let at = |chroma: usize| {
        let mut buffer = gst::Buffer::from_mut_slice(bytes.clone());
        let writable = buffer.get_mut().unwrap();
        let flags = gst_video::VideoFrameFlags::empty();
        let (width, height) = (FRAME.width_px, FRAME.height_px);
        let offsets = [0, chroma];
        gst_video::VideoMeta::add_full(
            writable,
            flags,
            VideoFormat::Nv12,
            width,
            height,
            &offsets,
            info.stride(),
        )
        .unwrap();
        two_classes().attach(writable);
        buffer
    };
    let overlay = Overlay::new(&info.to_caps().unwrap(), "");
    assert_ne!(bytes_of(&overlay.push(at(info.offset()[1]))), bytes);
    assert_eq!(overlay.warnings(), Vec::<String>::new());
    assert_eq!(bytes_of(&overlay.push(at(bytes.len() - 1))), bytes);
    let warnings = overlay.warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("no mask is drawn"),
        "{warnings:?}"
    );
}
