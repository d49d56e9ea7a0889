//! `masam run` on what cameras, phones and hospitals give: colors, orientations, sizes that change, further streams,
//! late starts, cut files, and files that are no video at all.

use gstreamer as gst;
use gstreamer::prelude::*;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// Longest a pipeline of the tests themselves may take.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_seconds(120);

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn masam(arguments: &[&str], input: Stdio) -> Output {
    // Kills what does not end; the silence of an endless input ends a run by itself after 30 s.
    Command::new("timeout")
        .args(["170", env!("CARGO_BIN_EXE_masam")])
        .args(arguments)
        .stdin(input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap()
}

/// The demo model with placeholder weights, made once.
fn model() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let made = masam(
            &["convert", "--untrained", "demo", "-o", text(&path)],
            Stdio::null(),
        );
        assert!(made.status.success());
        folder
    });
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| folder.path().join("model.safetensors"))
}

/// Exit status and what was said.
fn run_from(input: &str, output: &Path, stdin: Stdio) -> (i32, String) {
    let ended = masam(
        &[
            "run",
            input,
            "-o",
            text(output),
            "--model",
            text(model()),
            "--emit",
            "newest",
        ],
        stdin,
    );
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    (ended.status.code().unwrap_or(-1), said)
}

fn run(input: &str, output: &Path) -> String {
    let (status, said) = run_from(input, output, Stdio::null());
    assert_eq!(status, 0, "{said}");
    said
}

/// Plays a description to its end.
fn play(description: &str) {
    gst::init().unwrap();
    let pipeline = gst::parse::launch(description).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(PATIENCE, &ends);
    pipeline.set_state(gst::State::Null).unwrap();
    let message = message.unwrap_or_else(|| panic!("{description} did not end"));
    assert_eq!(
        message.type_(),
        gst::MessageType::Eos,
        "{description}: {message:?}"
    );
}

/// What one stream of a container holds.
struct Stream {
    caps: gst::Caps,
    /// Start and end of each buffer in running time, milliseconds.
    times: Vec<(f64, f64)>,
}

/// The streams of a file as its demuxer and parsers give them, or decoded.
fn streams_of(file: &Path, decoded: bool) -> Vec<Stream> {
    use std::sync::{Arc, Mutex};
    gst::init().unwrap();
    let splitter = if decoded { "decodebin" } else { "parsebin" };
    let pipeline = gst::parse::launch(&format!(
        "filesrc location={} ! {splitter} name=split",
        text(file)
    ))
    .unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    type Found = Vec<(gst::Pad, Vec<(f64, f64)>)>;
    let found: Arc<Mutex<Found>> = Arc::default();
    let (adding, noted) = (pipeline.downgrade(), found.clone());
    pipeline
        .by_name("split")
        .unwrap()
        .connect_pad_added(move |_, pad| {
            let pipeline = adding.upgrade().unwrap();
            let queue = gst::ElementFactory::make("queue")
                .property("max-size-buffers", 0u32)
                .property("max-size-bytes", 0u32)
                .property("max-size-time", 0u64)
                .build()
                .unwrap();
            let sink = gst::ElementFactory::make("fakesink")
                .property("async", false)
                .build()
                .unwrap();
            pipeline.add_many([&queue, &sink]).unwrap();
            queue.link(&sink).unwrap();
            queue.sync_state_with_parent().unwrap();
            sink.sync_state_with_parent().unwrap();
            let index = noted.lock().unwrap().len();
            noted.lock().unwrap().push((pad.clone(), Vec::new()));
            let noted = noted.clone();
            pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
                let buffer = info.buffer().unwrap();
                let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
                let segment = segment.segment().downcast_ref::<gst::ClockTime>().unwrap();
                let running =
                    |time: gst::ClockTime| segment.to_running_time(time).map(|t| t.nseconds() as f64 / 1e6);
                if let Some(start) = buffer.pts()
                    && let Some(begin) = running(start)
                {
                    let end = running(start + buffer.duration().unwrap_or_default()).unwrap_or(begin);
                    let mut all = noted.lock().unwrap();
                    all[index].1.push((begin, end));
                }
                gst::PadProbeReturn::Ok
            });
            pad.link(&queue.static_pad("sink").unwrap()).unwrap();
        });
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(PATIENCE, &ends);
    let ended = message.is_some_and(|m| m.type_() == gst::MessageType::Eos);
    let streams = std::mem::take(&mut *found.lock().unwrap())
        .into_iter()
        .map(|(pad, times)| Stream {
            caps: pad.current_caps().unwrap(),
            times,
        })
        .collect();
    pipeline.set_state(gst::State::Null).unwrap();
    assert!(ended, "{file:?}");
    streams
}

fn name(stream: &Stream) -> String {
    stream.caps.structure(0).unwrap().name().to_string()
}

fn field(stream: &Stream, field: &str) -> String {
    let structure = stream.caps.structure(0).unwrap();
    structure
        .value(field)
        .map(|v| v.serialize().unwrap().to_string())
        .unwrap_or_default()
}

/// The video of a file, decoded.
fn video_of(file: &Path) -> Stream {
    let mut all = streams_of(file, true);
    all.retain(|stream| name(stream).starts_with("video/"));
    assert_eq!(all.len(), 1, "{file:?}");
    all.remove(0)
}

#[test]
fn colors_keep_their_names() {
    let folder = tempfile::tempdir().unwrap();
    // That the numbers stay, too, is tested where they pass: src/cli/fit.rs.
    // Matroska, because GStreamer's own MP4 reader takes every range for limited.
    for (index, color) in [
        "1:3:5:1",
        "bt709",
        "bt601",
        "1:4:16:4",
        "bt2020",
        "bt2100-pq",
        "bt2100-hlg",
    ]
    .iter()
    .enumerate()
    {
        for container in ["mp4", "mkv"] {
            let source = folder.path().join(format!("{index}_in.{container}"));
            let mux = if container == "mp4" {
                "mp4mux"
            } else {
                "matroskamux"
            };
            play(&format!(
                "videotestsrc num-buffers=3 pattern=solid-color foreground-color=0xffb14030 ! \
                 video/x-raw,format=I420,width=160,height=120,framerate=25/1,colorimetry={color} ! \
                 x264enc quantizer=4 pass=quant ! {mux} ! filesink location={}",
                text(&source)
            ));
            let output = folder.path().join(format!("{index}_{container}_out.mkv"));
            let said = run(text(&source), &output);
            let after = video_of(&output);
            let kept = gstreamer_video::VideoInfo::from_caps(&after.caps)
                .unwrap()
                .colorimetry();
            let wanted: gstreamer_video::VideoColorimetry = color.parse().unwrap();
            assert_eq!(kept.range(), wanted.range(), "{color} {container}: {said}");
            assert_eq!(kept.matrix(), wanted.matrix(), "{color} {container}");
            assert_eq!(kept.transfer(), wanted.transfer(), "{color} {container}");
            assert_eq!(kept.primaries(), wanted.primaries(), "{color} {container}");
            assert_eq!(said.contains("HDR"), color.starts_with("bt2100"), "{said}");
        }
    }
}

#[test]
fn every_format_becomes_high_420() {
    let folder = tempfile::tempdir().unwrap();
    for format in [
        "RGB",
        "Y444",
        "Y42B",
        "I420_10LE",
        "GRAY8",
        "UYVY",
        "NV12",
        "BGRA",
        "v210",
    ] {
        let output = folder.path().join(format!("{format}.mp4"));
        run(
            &format!(
                "videotestsrc num-buffers=3 ! video/x-raw,format={format},width=160,height=120,framerate=25/1"
            ),
            &output,
        );
        let streams = streams_of(&output, false);
        assert_eq!(name(&streams[0]), "video/x-h264");
        assert_eq!(field(&streams[0], "profile"), "high", "{format}");
        assert_eq!(field(&streams[0], "chroma-format"), "4:2:0", "{format}");
        assert_eq!(field(&streams[0], "bit-depth-luma"), "8", "{format}");
    }
}

#[test]
fn pixel_aspect_and_odd_sides_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.mp4", "a.mkv", "a.webm"] {
        let output = folder.path().join(name);
        run(
            "videotestsrc num-buffers=3 ! video/x-raw,format=I420,width=161,height=121,framerate=25/1,\
             pixel-aspect-ratio=4/3,colorimetry=1:4:5:4",
            &output,
        );
        let video = video_of(&output);
        assert_eq!(
            (field(&video, "width"), field(&video, "height")),
            ("162".into(), "122".into()),
            "{name}"
        );
        // VP8 says nothing of the pixels; its container says how wide they are shown.
        assert_eq!(field(&video, "pixel-aspect-ratio"), "4/3", "{name}");
    }
}

/// A photo with a red left half and an EXIF block of `orientation`.
fn photo(path: &Path, orientation: u8) {
    let picture = image::RgbImage::from_fn(64, 32, |x, _| {
        image::Rgb(if x < 32 { [250, 0, 0] } else { [0, 0, 250] })
    });
    let mut jpeg = Vec::new();
    let encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(&mut jpeg, 95);
    picture.write_with_encoder(encoder).unwrap();
    let mut exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0]);
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    let whole = [&jpeg[..2], b"\xff\xe1", &length, &exif, &jpeg[2..]].concat();
    std::fs::write(path, whole).unwrap();
}

#[test]
fn photos_stand_upright() {
    let folder = tempfile::tempdir().unwrap();
    // Orientation, size shown, a place that is red, one that is blue.
    for (orientation, size, red, blue) in [
        (1, (64, 32), (5, 16), (58, 16)),
        (2, (64, 32), (58, 16), (5, 16)),
        (3, (64, 32), (58, 16), (5, 16)),
        (6, (32, 64), (16, 5), (16, 58)),
        (8, (32, 64), (16, 58), (16, 5)),
    ] {
        let path = folder.path().join(format!("{orientation}.jpg"));
        photo(&path, orientation);
        let upright = masam::data::picture::read_upright(&path).unwrap();
        assert_eq!(upright.dimensions(), size, "{orientation}");
        assert!(upright.get_pixel(red.0, red.1).0[0] > 200, "{orientation}");
        assert!(upright.get_pixel(blue.0, blue.1).0[2] > 200, "{orientation}");
        let output = folder.path().join(format!("{orientation}.mp4"));
        run(text(&path), &output);
        let video = video_of(&output);
        assert_eq!(
            (field(&video, "width"), field(&video, "height")),
            (size.0.to_string(), size.1.to_string())
        );
    }
}

#[test]
fn pictures_of_every_kind_are_read_and_a_folder_names_them() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    let picture = image::RgbImage::from_pixel(64, 48, image::Rgb([120, 60, 30]));
    for suffix in ["png", "jpg", "tif", "bmp", "webp", "gif"] {
        picture.save(pictures.join(format!("p.{suffix}"))).unwrap();
    }
    let said = run(text(&pictures), &folder.path().join("new/folders/out.mp4"));
    assert!(said.contains("6 frames in, 6 out"), "{said}");
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    std::fs::write(empty.join("scan.nii"), nifti()).unwrap();
    let (status, said) = run_from(text(&empty), &folder.path().join("never.mp4"), Stdio::null());
    assert_eq!(status, 1);
    assert!(
        said.contains("tif") && said.contains("webp") && said.contains("NIfTI"),
        "{said}"
    );
}

#[test]
fn a_size_that_changes_is_scaled_into_the_first() {
    let folder = tempfile::tempdir().unwrap();
    let pictures = folder.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    for (index, (width, height)) in [(96, 64), (96, 64), (64, 96), (200, 120)].into_iter().enumerate() {
        let picture = image::RgbImage::from_pixel(width, height, image::Rgb([200, 90, 40]));
        picture.save(pictures.join(format!("{index}.png"))).unwrap();
    }
    for name in ["a.mp4", "a.mkv"] {
        let output = folder.path().join(name);
        let said = run(text(&pictures), &output);
        assert!(said.contains("changes from 96x64 to 64x96"), "{said}");
        let video = video_of(&output);
        assert_eq!(video.times.len(), 4, "{name}: {said}");
        assert_eq!(
            (field(&video, "width"), field(&video, "height")),
            ("96".into(), "64".into())
        );
    }
    let masks = folder.path().join("masks");
    run(text(&pictures), &masks);
    let mask = |index| image::image_dimensions(masks.join(format!("{index}.png"))).unwrap();
    assert_eq!(
        [0, 2, 3].map(mask),
        [(96, 64), (64, 96), (200, 120)],
        "masks have their pictures' sizes"
    );
}

/// Two seconds of picture and sound; the picture starts `late` milliseconds after the sound.
fn with_sound(path: &Path, audio: &str, mux: &str, late: u64) {
    play(&format!(
        "{mux} name=mux ! filesink location={} \
         videotestsrc num-buffers=50 timestamp-offset={} ! video/x-raw,width=160,height=120,framerate=25/1 ! \
         x264enc bframes=2 b-adapt=false ! h264parse ! queue max-size-time=0 ! mux. \
         audiotestsrc num-buffers=86 ! audio/x-raw,rate=44100,channels=2 ! {audio} ! queue max-size-time=0 ! mux.",
        text(path),
        late * 1_000_000
    ));
}

#[test]
fn sound_is_copied_and_stays_with_the_picture() {
    let folder = tempfile::tempdir().unwrap();
    for (input, audio, mux, late) in [
        ("a.mkv", "avenc_aac", "matroskamux", 0),
        ("late.mkv", "avenc_aac", "matroskamux", 500),
        ("a.ts", "avenc_aac ! aacparse", "mpegtsmux", 0),
    ] {
        let source = folder.path().join(input);
        with_sound(&source, audio, mux, late);
        for output in ["mp4", "mkv"] {
            let output = folder.path().join(format!("{input}.{output}"));
            let said = run(text(&source), &output);
            let (before, after) = (streams_of(&source, false), streams_of(&output, false));
            let times = |streams: &[Stream], kind: &str| {
                let stream = streams.iter().find(|s| name(s).starts_with(kind));
                let stream = stream.unwrap_or_else(|| panic!("no {kind}: {said}"));
                let (start, end) = (stream.times.iter(), stream.times.iter());
                let start = start.map(|t| t.0).fold(f64::MAX, f64::min);
                (start, end.map(|t| t.1).fold(0.0, f64::max), stream.times.len())
            };
            let [v0, v1] = [&before, &after].map(|s| times(s, "video/"));
            let [a0, a1] = [&before, &after].map(|s| times(s, "audio/"));
            assert_eq!((v1.2, a1.2), (50, a0.2), "{input} to {output:?}: {said}");
            assert!(
                ((a1.0 - v1.0) - (a0.0 - v0.0)).abs() < 40.0,
                "{input} {output:?}: {a0:?} {v0:?} {a1:?} {v1:?}"
            );
        }
    }
}

#[test]
fn what_a_container_does_not_take_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("pcm.mkv");
    with_sound(&source, "identity", "matroskamux", 0);
    let said = run(text(&source), &folder.path().join("pcm.mp4"));
    assert!(
        said.contains("not kept in .mp4: sound (PCM); .mkv keeps it"),
        "{said}"
    );
    let said = run(text(&source), &folder.path().join("kept.mkv"));
    assert!(!said.contains("not kept"), "{said}");
    let kept = streams_of(&folder.path().join("kept.mkv"), false);
    assert!(kept.iter().any(|s| name(s) == "audio/x-raw"));
}

#[test]
fn of_two_videos_one_gets_masks_and_both_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("two.mkv");
    let video = |width: u32| {
        format!(
            "videotestsrc num-buffers=20 ! video/x-raw,width={width},height=120,framerate=25/1 ! x264enc ! h264parse ! queue ! mux."
        )
    };
    play(&format!(
        "matroskamux name=mux ! filesink location={} {} {}",
        text(&source),
        video(160),
        video(176)
    ));
    let output = folder.path().join("out.mp4");
    let said = run(text(&source), &output);
    assert!(said.contains("2 videos: number 1"), "{said}");
    let widths: Vec<_> = streams_of(&output, false)
        .iter()
        .map(|s| field(s, "width"))
        .collect();
    assert_eq!(widths, ["160", "176"]);
}

#[test]
fn uneven_times_stay() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("late.mkv");
    // Every frame at its time, with holes, from 0.2 s on.
    play(&format!(
        "videotestsrc num-buffers=20 timestamp-offset=200000000 ! video/x-raw,width=160,height=120,framerate=10/1 ! \
         videorate drop-only=true max-rate=7 ! x264enc bframes=0 ! h264parse ! matroskamux ! filesink location={}",
        text(&source)
    ));
    for name in ["out.mkv", "out.mp4"] {
        let output = folder.path().join(name);
        run(text(&source), &output);
        let [before, after] = [&source, &output].map(|file| video_of(file).times);
        assert_eq!(before.len(), after.len(), "{name}");
        assert!(
            before.windows(2).any(|pair| pair[1].0 - pair[0].0 > 150.0),
            "{before:?}"
        );
        // Where the first frame of an mp4 lies is the muxer's affair; the distances are ours.
        let shift = match name {
            "out.mp4" => after[0].0 - before[0].0,
            _ => 0.0,
        };
        for (before, after) in before.iter().zip(&after) {
            assert!(
                (before.0 + shift - after.0).abs() < 1.5,
                "{name}: {before:?} {after:?}"
            );
        }
    }
}

#[test]
fn a_cut_file_says_how_much_is_missing() {
    let folder = tempfile::tempdir().unwrap();
    let whole = folder.path().join("whole.mp4");
    play(&format!(
        "videotestsrc num-buffers=75 pattern=snow ! video/x-raw,width=160,height=120,framerate=25/1 ! x264enc bframes=0 ! \
         h264parse ! mp4mux faststart=true ! filesink location={}",
        text(&whole)
    ));
    let (status, said) = run_from(text(&whole), &folder.path().join("whole_out.mp4"), Stdio::null());
    assert_eq!(status, 0, "{said}");
    assert!(!said.contains("cut"), "{said}");
    let bytes = std::fs::read(&whole).unwrap();
    let cut = folder.path().join("cut.mp4");
    std::fs::write(&cut, &bytes[..bytes.len() * 60 / 100]).unwrap();
    let output = folder.path().join("cut_out.mp4");
    let (status, said) = run_from(text(&cut), &output, Stdio::null());
    assert_eq!(status, 3, "{said}");
    assert!(said.contains("declares 3.00 s, 1."), "{said}");
    assert!(video_of(&output).times.len() > 30);
    // A file without its index.
    let plain = folder.path().join("plain.mp4");
    play(&format!(
        "videotestsrc num-buffers=25 ! x264enc ! h264parse ! mp4mux ! filesink location={}",
        text(&plain)
    ));
    let bytes = std::fs::read(&plain).unwrap();
    std::fs::write(&plain, &bytes[..bytes.len() / 2]).unwrap();
    let (status, said) = run_from(text(&plain), &folder.path().join("never.mp4"), Stdio::null());
    assert_eq!(status, 1, "{said}");
    assert!(said.contains("moov"), "{said}");
}

#[test]
fn an_animation_ends() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gif");
    let file = std::fs::File::create(&path).unwrap();
    let mut encoder = image::codecs::gif::GifEncoder::new(file);
    for index in 0..5u8 {
        let picture = image::RgbaImage::from_pixel(64, 48, image::Rgba([index * 50, 40, 90, 255]));
        let delay = image::Delay::from_numer_denom_ms(if index == 2 { 300 } else { 100 }, 1);
        encoder
            .encode_frame(image::Frame::from_parts(picture, 0, 0, delay))
            .unwrap();
    }
    drop(encoder);
    let output = folder.path().join("a.mkv");
    let said = run(text(&path), &output);
    assert!(said.contains("5 frames in, 5 out"), "{said}");
    let starts: Vec<f64> = video_of(&output).times.iter().map(|t| t.0.round()).collect();
    assert_eq!(starts, [0.0, 100.0, 200.0, 500.0, 600.0]);
}

fn nifti() -> Vec<u8> {
    let mut head = vec![0u8; 4096];
    head[..4].copy_from_slice(&348i32.to_le_bytes());
    head[344..348].copy_from_slice(b"n+1\0");
    head
}

#[test]
fn foreign_files_are_named_with_a_cure() {
    let folder = tempfile::tempdir().unwrap();
    let sound = folder.path().join("sound.mp4");
    play(&format!(
        "audiotestsrc num-buffers=40 ! avenc_aac ! aacparse ! mp4mux ! filesink location={}",
        text(&sound)
    ));
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let dicom = [
        &[0u8; 128][..],
        b"DICM\x02\0\x10\0UI\x18\x001.2.840.10008.1.2.4.102\0",
    ]
    .concat();
    for (path, part) in [
        (sound, "no video in it, only sound (AAC)"),
        (write("empty.mp4", b""), "empty"),
        (write("endo.mp4", &dicom), "gdcmraw"),
        (write("ct.mp4", &nifti()), "NIfTI"),
        (
            write("page.mp4", b"<!doctype html><html><body>Sign in</body></html>"),
            "HTML",
        ),
        (
            write("lfs.mp4", b"version https://git-lfs.github.com/spec/v1\n"),
            "git lfs pull",
        ),
        (write("zip.mp4", b"PK\x03\x04\x14\0\0\0\x08\0abcdef"), "unpack"),
        (write("junk.mp4", &[0x91; 5000]), "does not know"),
    ] {
        let (status, said) = run_from(text(&path), &folder.path().join("never.mp4"), Stdio::null());
        assert_eq!(status, 1, "{path:?}: {said}");
        assert!(said.contains(part), "{path:?}: {said}");
        assert!(!folder.path().join("never.mp4").exists());
    }
}

#[test]
fn standard_input_is_read_and_output_refused() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("a.mkv");
    with_sound(&source, "avenc_aac", "matroskamux", 0);
    let output = folder.path().join("file.mp4");
    let (status, said) = run_from("-", &output, std::fs::File::open(&source).unwrap().into());
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("50 frames in, 50 out"), "{said}");
    let mut pipe = Command::new("cat")
        .arg(&source)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (status, said) = run_from(
        "-",
        &folder.path().join("pipe.mp4"),
        pipe.stdout.take().unwrap().into(),
    );
    assert_eq!(status, 0, "{said}");
    assert!(said.contains("50 frames in, 50 out"), "{said}");
    assert!(pipe.wait().unwrap().success());
    let refused = masam(
        &["run", text(&source), "-o", "-", "--model", text(model())],
        Stdio::null(),
    );
    assert_eq!(refused.status.code(), Some(1));
    assert!(!Path::new("-").exists());
}

#[test]
fn a_pipe_that_falls_silent_comes_to_an_end() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("a.ts");
    with_sound(&source, "avenc_aac ! aacparse", "mpegtsmux", 0);
    let bytes = std::fs::read(&source).unwrap();
    let output = folder.path().join("out.mp4");
    let mut child = Command::new(env!("CARGO_BIN_EXE_masam"))
        .args([
            "run",
            "-",
            "-o",
            text(&output),
            "--model",
            text(model()),
            "--emit",
            "newest",
        ])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&bytes).unwrap();
    let started = std::time::Instant::now();
    let ended = child.wait_with_output().unwrap(); // the pipe stays open
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    drop(pipe);
    assert!(started.elapsed() < std::time::Duration::from_secs(120));
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(
        said.contains("no frame for 10 s") && said.contains("stopped without an end"),
        "{said}"
    );
    assert!(video_of(&output).times.len() > 40, "{said}");
}
