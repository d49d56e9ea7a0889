//! `masaminfer` and the ways buffers come: formats, strides, several memories, crops, fields, scarce pools.

mod stream_support;

use gst::prelude::*;
use gst_video::VideoFormat as F;
use gstreamer as gst;
use gstreamer_video as gst_video;
use masam::geometry::{Rect, Size};
use masam::gst::meta::MaskMeta;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use stream_support::{Bench, Fake, Noise, class_of, infer_with, init, rgb_caps};

const FORMATS: [F; 11] = [
    F::Nv12,
    F::I420,
    F::Yuy2,
    F::Uyvy,
    F::Rgb,
    F::Bgr,
    F::Rgba,
    F::Bgra,
    F::Rgbx,
    F::Bgrx,
    F::Gray8,
];

fn bench_of(fake: &Fake, properties: &[(&str, &str)]) -> Bench {
    let element = infer_with(fake);
    for (name, value) in properties {
        element.set_property_from_str(name, value);
    }
    Bench::new(element, false)
}

fn rect(x_px: u32, y_px: u32, width_px: u32, height_px: u32) -> Rect {
    Rect {
        x_px,
        y_px,
        width_px,
        height_px,
    }
}

fn covers(rect: Rect, x_px: u32, y_px: u32) -> bool {
    (rect.x_px..rect.right_px()).contains(&x_px) && (rect.y_px..rect.bottom_px()).contains(&y_px)
}

/// A bench that frames of 16x8 are coming to.
fn begun_nv12_bench(fake: &Fake) -> Bench {
    let bench = bench_of(fake, &[]);
    let size = Size {
        width_px: 16,
        height_px: 8,
    };
    bench.begin(&info_of(F::Nv12, size).to_caps().unwrap());
    bench
}

/// Full-range info, so that luma is gray.
fn info_of(format: F, size: Size) -> gst_video::VideoInfo {
    let yuv = matches!(format, F::Nv12 | F::I420 | F::Yuy2 | F::Uyvy);
    let builder = gst_video::VideoInfo::builder(format, size.width_px, size.height_px).fps((25, 1));
    let full: gst_video::VideoColorimetry = "1:4:0:0".parse().unwrap();
    if yuv {
        builder.colorimetry(&full).build().unwrap()
    } else {
        builder.build().unwrap()
    }
}

/// Rows and bytes per row of a plane.
fn plane_bytes(info: &gst_video::VideoInfo, plane: u32) -> (usize, usize) {
    let (width, height) = (info.width() as usize, info.height() as usize);
    let half = |n: usize| n.div_ceil(2);
    match (info.format(), plane) {
        (F::Nv12 | F::I420 | F::Gray8, 0) => (height, width),
        (F::Nv12, _) => (half(height), half(width) * 2),
        (F::I420, _) => (half(height), half(width)),
        (F::Yuy2 | F::Uyvy, _) => (height, half(width) * 4),
        (F::Rgb | F::Bgr, _) => (height, width * 3),
        _ => (height, width * 4),
    }
}

/// A frame all gray, its padding full of noise. With `padding_bytes` its layout is in a video meta.
fn gray_of(
    info: &gst_video::VideoInfo,
    gray: u8,
    padding_bytes: Option<usize>,
    noise: &mut Noise,
) -> gst::Buffer {
    let planes = info.n_planes();
    let (mut offsets, mut strides, mut end) = (Vec::new(), Vec::new(), 0);
    for plane in 0..planes {
        let (rows, row_bytes) = plane_bytes(info, plane);
        let (offset, stride) = match padding_bytes {
            Some(padding) => (end + padding, row_bytes + padding),
            None => (
                info.offset()[plane as usize],
                info.stride()[plane as usize] as usize,
            ),
        };
        end = offset + stride * rows;
        offsets.push(offset);
        strides.push(stride as i32);
    }
    let bytes_in_all = if padding_bytes.is_some() { end } else { info.size() };
    let mut bytes: Vec<u8> = (0..bytes_in_all).map(|_| noise.below(256) as u8).collect();
    for plane in 0..planes {
        let (rows, row_bytes) = plane_bytes(info, plane);
        for row in 0..rows {
            let start = offsets[plane as usize] + row * strides[plane as usize] as usize;
            for (at, byte) in bytes[start..start + row_bytes].iter_mut().enumerate() {
                *byte = match (info.format(), plane) {
                    (F::Nv12 | F::I420, 1..) => 128,
                    (F::Yuy2, _) if at % 2 == 1 => 128,
                    (F::Uyvy, _) if at % 2 == 0 => 128,
                    _ => gray,
                };
            }
        }
    }
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    if padding_bytes.is_some() {
        let buffer = buffer.get_mut().unwrap();
        let flags = gst_video::VideoFrameFlags::empty();
        let (width, height) = (info.width(), info.height());
        gst_video::VideoMeta::add_full(buffer, flags, info.format(), width, height, &offsets, &strides)
            .unwrap();
    }
    buffer
}

#[test]
fn every_format_at_odd_sizes_and_padded_strides_has_its_mask_and_keeps_its_bytes() {
    init();
    let seed = 99;
    println!("seed {seed}");
    let mut noise = Noise(seed);
    for format in FORMATS {
        let fake = Fake::new();
        let bench = bench_of(&fake, &[]);
        let mut first = true;
        for (width_px, height_px) in [(1, 1), (2, 1), (1, 2), (3, 5), (33, 17), (320, 180), (641, 361)] {
            let size = Size { width_px, height_px };
            let info = info_of(format, size);
            let caps = info.to_caps().unwrap();
            if std::mem::take(&mut first) {
                bench.begin(&caps)
            } else {
                assert!(bench.src.push_event(gst::event::Caps::new(&caps)))
            }
            for padding in [None, Some(0), Some(1), Some(37)] {
                let gray = 40 + noise.below(150) as u8;
                let buffer = gray_of(&info, gray, padding, &mut noise);
                let sent = buffer.copy_deep().unwrap();
                bench.push(buffer).unwrap();
                let got = bench.frames().remove(0);
                assert_eq!(class_of(&got), Some(gray), "{format:?} {size:?} {padding:?}");
                assert_eq!(MaskMeta::from_buffer(&got).unwrap().frame, size);
                assert_eq!(
                    got.map_readable().unwrap().as_slice(),
                    sent.map_readable().unwrap().as_slice()
                );
            }
        }
        assert_eq!(bench.complaints(), Vec::<String>::new());
    }
}

#[test]
fn frames_of_7680x4320_pass_unchanged_and_uncopied() {
    init();
    let size = Size {
        width_px: 7680,
        height_px: 4320,
    };
    for format in [F::Nv12, F::Yuy2, F::Rgb, F::Bgra] {
        let fake = Fake::new();
        let bench = bench_of(&fake, &[]);
        let info = info_of(format, size);
        bench.begin(&info.to_caps().unwrap());
        let mut bytes = vec![128_u8; info.size()];
        // Gray everywhere: luma, chroma and colours are all 128.
        bytes[0] = 129;
        let buffer = gst::Buffer::from_mut_slice(bytes);
        let address = buffer.map_readable().unwrap().as_ptr();
        bench.push(buffer).unwrap();
        let got = bench.frames().remove(0);
        let map = got.map_readable().unwrap();
        assert_eq!(
            (class_of(&got), map.as_ptr(), map[0]),
            (Some(128), address, 129),
            "{format:?}"
        );
        assert!(map[1..].iter().all(|&byte| byte == 128));
    }
}

#[test]
fn planes_in_memories_of_their_own_are_read_where_they_are() {
    let fake = Fake::new();
    let bench = begun_nv12_bench(&fake);
    let mut buffer = gst::Buffer::new();
    {
        let buffer = buffer.get_mut().unwrap();
        buffer.append_memory(gst::Memory::from_slice(vec![90_u8; 16 * 8]));
        buffer.append_memory(gst::Memory::from_slice(vec![128_u8; 16 * 4]));
    }
    bench.push(buffer).unwrap();
    let got = bench.frames().remove(0);
    assert_eq!((class_of(&got), got.n_memory()), (Some(90), 2));
}

/// Mapping the second plane merges memories; the first, which is mapped by then, must not be one of them.
#[test]
fn a_plane_across_memories_does_not_free_the_one_before() {
    let fake = Fake::new();
    let bench = begun_nv12_bench(&fake);
    let critical = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&critical);
    gst::glib::log_set_handler(
        Some("GStreamer"),
        gst::glib::LogLevels::LEVEL_CRITICAL,
        false,
        false,
        move |_, _, text| {
            eprintln!("{text}");
            seen.store(true, Ordering::SeqCst);
        },
    );
    let mut buffer = gst::Buffer::new();
    {
        let buffer = buffer.get_mut().unwrap();
        buffer.append_memory(gst::Memory::from_mut_slice(vec![90_u8; 16 * 8]));
        buffer.append_memory(gst::Memory::from_mut_slice(vec![128_u8; 16]));
        buffer.append_memory(gst::Memory::from_mut_slice(vec![128_u8; 16 * 3]));
    }
    bench.push(buffer).unwrap();
    assert_eq!(class_of(&bench.frames()[0]), Some(90));
    assert!(!critical.load(Ordering::SeqCst), "GStreamer complained");
}

#[test]
fn a_crop_meta_moves_the_frame() {
    let fake = Fake::new();
    let bench = bench_of(&fake, &[]);
    let size = Size {
        width_px: 8,
        height_px: 4,
    };
    bench.begin(&info_of(F::Gray8, size).to_caps().unwrap());
    // 32x16 in memory, 70 where the frame is.
    let mut bytes = vec![5_u8; 32 * 16];
    for y in 6..10 {
        bytes[y * 32 + 10..y * 32 + 18].fill(70);
    }
    let mut buffer = gst::Buffer::from_mut_slice(bytes);
    {
        let buffer = buffer.get_mut().unwrap();
        let flags = gst_video::VideoFrameFlags::empty();
        gst_video::VideoMeta::add_full(buffer, flags, F::Gray8, 32, 16, &[0], &[32]).unwrap();
        gst_video::VideoCropMeta::add(buffer, (10, 6, 8, 4));
    }
    bench.push(buffer).unwrap();
    assert_eq!(class_of(&bench.frames()[0]), Some(70));
}

#[test]
fn metas_that_lie_are_refused_and_the_frame_passes() {
    let fake = Fake::new();
    let bench = bench_of(&fake, &[]);
    let size = Size {
        width_px: 16,
        height_px: 8,
    };
    bench.begin(&info_of(F::Gray8, size).to_caps().unwrap());
    let flags = gst_video::VideoFrameFlags::empty();
    let lie = |width, height, offset: usize, stride: i32| {
        let mut buffer = gst::Buffer::from_mut_slice(vec![50_u8; 16 * 8]);
        let made = gst_video::VideoMeta::add_full(
            buffer.get_mut().unwrap(),
            flags,
            F::Gray8,
            width,
            height,
            &[offset],
            &[stride],
        );
        made.is_ok().then_some(buffer)
    };
    let buffers: Vec<gst::Buffer> = [
        lie(16, 8, 1, 16),
        lie(16, 8, usize::MAX, 16),
        lie(16, 8, 0, 17),
        lie(16, 8, 0, i32::MAX),
        lie(16, 8, 0, -16),
        lie(8, 8, 0, 16),
        lie(16, 4, 0, 16),
        lie(0, 0, 0, 0),
    ]
    .into_iter()
    .flatten()
    .collect();
    let count = buffers.len();
    assert!(count >= 5, "GStreamer let {count} lies through");
    for buffer in buffers {
        bench.push(buffer).unwrap();
    }
    bench
        .push(gray_of(&info_of(F::Gray8, size), 60, None, &mut Noise(1)))
        .unwrap();
    let classes: Vec<_> = bench.frames().iter().map(class_of).collect();
    assert_eq!(classes.len(), count + 1);
    assert!(
        classes[..count].iter().all(Option::is_none) && classes[count] == Some(60),
        "{classes:?}"
    );
    assert_eq!(bench.stat("frames-unreadable"), count as u64);
}

#[test]
fn of_interlaced_frames_the_field_that_came_first_is_seen() {
    init();
    let size = Size {
        width_px: 16,
        height_px: 32,
    };
    let caps = |mode: &str| {
        let mut caps = info_of(F::Gray8, size).to_caps().unwrap();
        caps.get_mut().unwrap().set("interlace-mode", mode);
        caps
    };
    let frame = |flags: &[gst_video::VideoBufferFlags]| {
        // Rows of the top field are 60, those of the bottom field 160.
        let bytes: Vec<u8> = (0..32)
            .flat_map(|y| [if y % 2 == 0 { 60 } else { 160 }; 16])
            .collect();
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        for flag in flags {
            buffer
                .get_mut()
                .unwrap()
                .set_flags(gst::BufferFlags::from_bits_retain(flag.bits()));
        }
        buffer
    };
    use gst_video::VideoBufferFlags as V;
    for (mode, flags, class) in [
        ("interleaved", vec![V::INTERLACED, V::TFF], Some(60)),
        ("interleaved", vec![V::INTERLACED], Some(160)),
        ("mixed", vec![V::INTERLACED, V::TFF], Some(60)),
        ("mixed", vec![], Some(110)),
        ("progressive", vec![], Some(110)),
    ] {
        for roi in ["none", "auto", "4,8,8,16"] {
            let fake = Fake::new();
            let bench = bench_of(&fake, &[("roi", roi)]);
            bench.begin(&caps(mode));
            bench.push(frame(&flags)).unwrap();
            let got = bench.frames().remove(0);
            assert_eq!(class_of(&got), class, "{mode} {flags:?} {roi}");
            let region = MaskMeta::from_buffer(&got).unwrap().region;
            assert_eq!(
                (region.width_px, region.height_px),
                if roi.contains(',') { (8, 16) } else { (16, 32) }
            );
        }
    }
    let fake = Fake::new();
    let bench = bench_of(&fake, &[]);
    assert!(bench.src.push_event(gst::event::StreamStart::new("bench")));
    let _ = bench.src.push_event(gst::event::Caps::new(&caps("fields")));
    bench.segment();
    assert_eq!(bench.push(frame(&[])), Err(gst::FlowError::NotNegotiated));
    let complaints = bench.complaints();
    assert!(
        complaints[0].contains("interlace-mode is fields") && complaints[0].contains("deinterlacer"),
        "{complaints:?}"
    );
}

#[test]
fn a_region_is_found_in_the_first_frames_and_begins_an_epoch() {
    let fake = Fake::new();
    let bench = bench_of(&fake, &[("emit", "centre")]);
    let size = Size {
        width_px: 64,
        height_px: 32,
    };
    let info = info_of(F::Gray8, size);
    bench.begin(&info.to_caps().unwrap());
    let pillars = |gray: u8| {
        let row: Vec<u8> = (0..64)
            .map(|x| if (16..48).contains(&x) { gray } else { 2 })
            .collect();
        gst::Buffer::from_mut_slice(row.repeat(32))
    };
    bench
        .push(gst::Buffer::from_mut_slice(vec![1_u8; 64 * 32]))
        .unwrap(); // dark: the whole frame
    for gray in [100, 101, 102, 103, 104] {
        bench.push(pillars(gray)).unwrap();
    }
    bench.end();
    let frames = bench.frames();
    let metas: Vec<_> = frames
        .iter()
        .map(|frame| MaskMeta::from_buffer(frame).unwrap())
        .collect();
    assert_eq!(
        metas.iter().map(|m| m.region.width_px).collect::<Vec<_>>(),
        [64, 32, 32, 32, 32, 32]
    );
    assert_eq!(metas[1].region.x_px, 16);
    assert!(metas[0].epoch < metas[1].epoch);
    let classes: Vec<_> = frames.iter().map(class_of).collect();
    assert_eq!(
        classes,
        [1, 100, 101, 102, 103, 104].map(Some),
        "no pixel of the pillars is seen"
    );
    // New caps, new region.
    let wide = info_of(
        F::Gray8,
        Size {
            width_px: 80,
            height_px: 32,
        },
    );
    bench.element.set_state(gst::State::Ready).unwrap();
    bench.element.set_state(gst::State::Playing).unwrap();
    bench.begin(&wide.to_caps().unwrap());
    bench.push(gray_of(&wide, 77, None, &mut Noise(3))).unwrap();
    bench.end();
    assert_eq!(
        MaskMeta::from_buffer(&bench.frames()[0]).unwrap().region.width_px,
        80
    );
}

/// Frames of 64x32 that show a spot, too small for a picture, or, as the last does, one of 32 columns.
#[test]
fn frames_that_show_nothing_are_searched_one_by_one_but_for_a_live_video() {
    let size = Size {
        width_px: 64,
        height_px: 32,
    };
    let frame = |lit: Rect, index: u64| {
        let row = |y: u32| (0..64).map(move |x| if covers(lit, x, y) { 100_u8 } else { 2 });
        let mut buffer = gst::Buffer::from_mut_slice((0..32).flat_map(row).collect::<Vec<u8>>());
        let frame = buffer.get_mut().unwrap();
        frame.set_pts(gst::ClockTime::from_mseconds(40 * index));
        frame.set_duration(gst::ClockTime::from_mseconds(40));
        buffer
    };
    let spot = rect(20, 10, 6, 6);
    let picture = rect(16, 0, 32, 32);
    // Frames come every 40 ms: of a live video 0, 1, 3, 6 and 11 are searched.
    for (mode, spots, is_found) in [
        ("exact", 2, true),
        ("live", 2, false),
        ("live", 3, true),
        ("exact", 10, true),
        ("live", 10, false),
        ("live", 11, true),
    ] {
        let fake = Fake::new();
        let bench = bench_of(&fake, &[("mode", mode), ("roi", "auto")]);
        bench.begin(&info_of(F::Gray8, size).to_caps().unwrap());
        for index in 0..=spots {
            let lit = if index == spots { picture } else { spot };
            bench.push(frame(lit, index)).unwrap();
            if mode == "live" {
                bench.wait_for_passes(index + 1);
            }
        }
        if mode == "exact" {
            bench.end();
        }
        let asked = fake.asked();
        let last = asked.last().unwrap().bytes.last().copied();
        assert_eq!(last == Some(100), is_found, "{mode}, {spots} spots: {last:?}");
    }
}

#[test]
fn of_interlaced_and_other_frames_by_turns_one_region_is_found() {
    use gst_video::VideoBufferFlags as V;
    let size = Size {
        width_px: 64,
        height_px: 40,
    };
    let fake = Fake::new();
    let bench = bench_of(&fake, &[("roi", "auto")]);
    let mut caps = info_of(F::Gray8, size).to_caps().unwrap();
    caps.get_mut().unwrap().set("interlace-mode", "mixed");
    bench.begin(&caps);
    for index in 0..12 {
        let row = |y: u32| {
            (0..64).map(move |x| {
                if covers(rect(16, 10, 32, 20), x, y) {
                    90_u8
                } else {
                    2
                }
            })
        };
        let mut buffer = gst::Buffer::from_mut_slice((0..40).flat_map(row).collect::<Vec<u8>>());
        if index % 2 == 0 {
            let flags = gst::BufferFlags::from_bits_retain((V::INTERLACED | V::TFF).bits());
            buffer.get_mut().unwrap().set_flags(flags);
        }
        bench.push(buffer).unwrap();
    }
    bench.end();
    let metas: Vec<_> = bench
        .frames()
        .iter()
        .map(|frame| MaskMeta::from_buffer(frame).unwrap())
        .collect();
    assert_eq!(metas.len(), 12);
    for meta in &metas {
        assert_eq!((meta.region, meta.epoch), (rect(16, 10, 32, 20), metas[0].epoch));
    }
}

/// The last row of the second of 486, with which NTSC begins, has no chroma of its own.
#[test]
fn interlaced_frames_of_any_height_are_seen() {
    for format in [F::Nv12, F::I420, F::Yuy2] {
        for height_px in [2, 6, 7, 486] {
            let size = Size {
                width_px: 20,
                height_px,
            };
            let mut caps = info_of(format, size).to_caps().unwrap();
            caps.get_mut().unwrap().set("interlace-mode", "interleaved");
            let info = gst_video::VideoInfo::from_caps(&caps).unwrap();
            for roi in ["none", "auto"] {
                let fake = Fake::new();
                let bench = bench_of(&fake, &[("roi", roi)]);
                bench.begin(&caps);
                bench.push(gray_of(&info, 100, None, &mut Noise(1))).unwrap();
                assert_eq!(
                    class_of(&bench.frames()[0]),
                    Some(100),
                    "{format:?} {height_px} {roi}"
                );
                assert_eq!(bench.complaints(), Vec::<String>::new());
            }
        }
    }
}

/// A pool of at most `most` buffers (0: as many as asked for) for frames of `caps`.
fn pool_of(caps: &gst::Caps, bytes: u32, most: u32) -> gst::BufferPool {
    let pool = gst::BufferPool::new();
    let mut config = pool.config();
    config.set_params(Some(caps), bytes, 0, most);
    pool.set_config(config).unwrap();
    pool.set_active(true).unwrap();
    pool
}

#[test]
fn a_pool_of_four_does_not_starve() {
    init();
    let size = Size {
        width_px: 32,
        height_px: 16,
    };
    let caps = rgb_caps(size, 25);
    for (most, copied) in [(4, 100), (0, 0), (64, 0), (63, 0), (62, 100)] {
        let fake = Fake::new();
        let bench = bench_of(&fake, &[("emit", "ensemble"), ("frame-stride", "15")]);
        bench.begin(&caps);
        let pool = pool_of(&caps, (size.area() * 3) as u32, most);
        for index in 0..100_u8 {
            let mut buffer = pool.acquire_buffer(None).unwrap();
            {
                let buffer = buffer.get_mut().unwrap();
                buffer.copy_from_slice(0, &vec![index; size.area() * 3]).unwrap();
                buffer.set_pts(gst::ClockTime::from_mseconds(40) * u64::from(index));
            }
            bench.push(buffer).unwrap();
            // The neighbour downstream keeps nothing.
            for frame in bench.frames() {
                check(&frame);
            }
        }
        bench.end();
        for frame in bench.frames() {
            check(&frame);
        }
        assert_eq!(
            (bench.stat("frames-copied"), bench.stat("frames-out")),
            (copied, 100),
            "a pool of {most}"
        );
        pool.set_active(false).unwrap();
    }
    fn check(frame: &gst::Buffer) {
        let index = frame.pts().unwrap().mseconds() / 40;
        assert_eq!(class_of(frame), Some(index as u8));
        assert!(
            frame
                .map_readable()
                .unwrap()
                .iter()
                .all(|&byte| u64::from(byte) == index)
        );
    }
}

#[test]
fn the_allocation_query_reaches_downstream_and_frames_stay_where_they_are() {
    init();
    let fake = Fake::new();
    let size = Size {
        width_px: 3840,
        height_px: 2160,
    };
    let info = info_of(F::Nv12, size);
    let caps = info.to_caps().unwrap();
    let answer: stream_support::AnswerAllocation = |query| {
        let bytes = 3840 * 2160 * 3 / 2;
        let pool = pool_of(&query.get_owned().0.unwrap(), bytes, 0);
        query.add_allocation_pool(Some(&pool), bytes, 3, 0);
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
    };
    let element = infer_with(&fake);
    element.set_property_from_str("emit", "centre");
    let bench = Bench::with_allocation(element, false, Some(answer));
    bench.begin(&caps);
    let mut query = gst::query::Allocation::new(Some(&caps), true);
    assert!(bench.src.peer_query(&mut query));
    let (pool, bytes, least, most) = query.allocation_pools().next().unwrap();
    assert_eq!((bytes, least, most), (3840 * 2160 * 3 / 2, 3 + 2, 0));
    assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some());
    // A decoder that takes the pool: its buffers come out as they went in, nothing is copied.
    let pool = pool.unwrap();
    pool.set_active(true).unwrap();
    let mut addresses = Vec::new();
    for index in 0..6 {
        let mut buffer = pool.acquire_buffer(None).unwrap();
        let mut map = buffer.get_mut().unwrap().map_writable().unwrap();
        map.fill(100 + index);
        addresses.push(map.as_ptr());
        drop(map);
        bench.push(buffer).unwrap();
    }
    bench.end();
    let frames = bench.frames();
    let got: Vec<_> = frames
        .iter()
        .map(|frame| frame.map_readable().unwrap().as_ptr())
        .collect();
    assert_eq!(got, addresses);
    assert_eq!(bench.stat("frames-copied"), 0);
    drop(frames);
    pool.set_active(false).unwrap();
}

#[test]
fn the_delay_keeps_frames_of_a_small_pool_by_copying() {
    let size = Size {
        width_px: 32,
        height_px: 16,
    };
    let caps = rgb_caps(size, 25);
    let fake = Fake::new();
    let element = infer_with(&fake);
    element.set_property("video-delay", 1_000_000_000_u64);
    let bench = Bench::new(element, true);
    bench.begin(&caps);
    let pool = pool_of(&caps, (size.area() * 3) as u32, 4);
    for index in 0..60_u64 {
        let mut buffer = pool.acquire_buffer(None).unwrap();
        buffer
            .get_mut()
            .unwrap()
            .set_pts(gst::ClockTime::from_mseconds(40) * index);
        bench.push(buffer).unwrap();
        drop(bench.frames());
    }
    // The others leave when the last frame of all says that their second is over.
    while bench.stat("frames-out") < 35 {
        std::thread::yield_now();
    }
    assert_eq!((bench.stat("frames-copied"), bench.stat("frames-out")), (60, 35));
    pool.set_active(false).unwrap();
}
