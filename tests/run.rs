//! The program from outside: `masam phantom`, `convert`, `run` and `selftest` on good and bad input.

use gstreamer as gst;
use gstreamer::prelude::*;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::time::{Duration, Instant};

const FRAMES: usize = 12;
/// Longest a command may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// Runs the program to its end, or to a failure of the test when it does not come to one.
fn masam(arguments: &[&str]) -> Output {
    let child = Command::new(env!("CARGO_BIN_EXE_masam"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id();
    let (ended, end) = mpsc::channel();
    let waiting = std::thread::spawn(move || {
        let output = child.wait_with_output();
        // Nobody listens any more once the patience is over.
        let _ = ended.send(());
        output
    });
    if end.recv_timeout(PATIENCE).is_err() {
        let kill = Command::new("kill").args(["-KILL", &id.to_string()]).status();
        let output = waiting.join().unwrap().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        panic!("{arguments:?} did not end in {PATIENCE:?} (killed: {kill:?}): {said}");
    }
    waiting.join().unwrap().unwrap()
}

/// Runs and expects success; gives what was said on standard error.
fn good(arguments: &[&str]) -> String {
    let output = masam(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {said}");
    said
}

/// Runs and expects exit code 1, a message and no panic.
fn bad(arguments: &[&str]) -> String {
    let started = Instant::now();
    let output = masam(arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
    assert!(!said.contains("panicked"), "{said}");
    assert!(
        started.elapsed() < Duration::from_secs(60),
        "{arguments:?} took {:?}",
        started.elapsed()
    );
    said
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with a small scene as mp4 and as mkv, and the demo model, made once for all tests.
fn fixture() -> &'static Path {
    static FOLDER: OnceLock<tempfile::TempDir> = OnceLock::new();
    FOLDER
        .get_or_init(|| {
            let folder = tempfile::tempdir().unwrap();
            let scene = folder.path().join("scene");
            let frames = FRAMES.to_string();
            let size = ["--size", "160x120", "--fps", "30", "--seed", "3"];
            let what = [
                "phantom",
                "--out",
                text(&scene),
                "--sequences",
                "1",
                "--frames",
                &frames,
                "--video",
            ];
            good(&[&what[..], &size[..]].concat());
            std::fs::rename(scene.join("seq_1.mp4"), folder.path().join("scene.mp4")).unwrap();
            good(&[
                "convert",
                "--untrained",
                "demo",
                "-o",
                text(&folder.path().join("model.safetensors")),
            ]);
            run(folder.path(), "scene.mp4", "scene.mkv");
            folder
        })
        .path()
}

fn run(folder: &Path, input: &str, output: &str) -> String {
    let paths = [input, output, "model.safetensors"].map(|name| folder.join(name));
    good(&[
        "run",
        text(&paths[0]),
        "-o",
        text(&paths[1]),
        "--model",
        text(&paths[2]),
    ])
}

/// Running times of the buffers that reach the encoder of `description`, whose encoder is called `encoder`.
fn running_times(description: &str) -> Vec<u64> {
    gst::init().unwrap();
    masam::gst::register().unwrap();
    let pipeline = gst::parse::launch(description)
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let times = Arc::new(Mutex::new(Vec::new()));
    let pad = pipeline.by_name("encoder").unwrap().static_pad("sink").unwrap();
    let noted = times.clone();
    pad.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let pts = info.buffer().unwrap().pts().unwrap();
        let segment = pad.sticky_event::<gst::event::Segment>(0).unwrap();
        let segment = segment.segment().downcast_ref::<gst::ClockTime>().unwrap();
        noted
            .lock()
            .unwrap()
            .push(segment.to_running_time(pts).unwrap().nseconds());
        gst::PadProbeReturn::Ok
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let message = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(120),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(
        message.map(|m| m.type_()),
        Some(gst::MessageType::Eos),
        "{description}"
    );
    std::mem::take(&mut *times.lock().unwrap())
}

fn frames_of(video: &Path) -> usize {
    let chain = format!(
        "filesrc location={} ! decodebin ! fakesink name=encoder",
        text(video)
    );
    running_times(&chain).len()
}

#[test]
fn every_frame_in_comes_out_at_its_time() {
    let folder = fixture();
    let said = run(folder, "scene.mp4", "overlay.mp4");
    assert!(
        said.contains(&format!("{FRAMES} frames in, {FRAMES} out")),
        "{said}"
    );
    assert!(
        said.contains("masks mean nothing"),
        "placeholder weights are called so: {said}"
    );
    assert_eq!(frames_of(&folder.join("overlay.mp4")), FRAMES);

    let (source, model) = (folder.join("scene.mp4"), folder.join("model.safetensors"));
    let around = |elements: &str| {
        let head = format!("filesrc location={} ! decodebin ! videoconvert", text(&source));
        format!("{head} ! {elements}videoconvert ! x264enc name=encoder ! mp4mux ! fakesink")
    };
    let ours = format!("masaminfer model={} mode=exact ! masamoverlay ! ", text(&model));
    let (with, without) = (running_times(&around(&ours)), running_times(&around("")));
    assert_eq!(without.len(), FRAMES);
    assert_eq!(with, without);
}

#[test]
fn the_contact_sheet_shows_the_overlay() {
    let folder = fixture();
    let sheet = folder.join("sheet.png");
    let paths = ["scene.mp4", "sheet.mp4", "model.safetensors"].map(|name| folder.join(name));
    good(&[
        "run",
        text(&paths[0]),
        "-o",
        text(&paths[1]),
        "--model",
        text(&paths[2]),
        "--contact-sheet",
        text(&sheet),
    ]);
    let picture = image::open(&sheet).unwrap().to_rgb8();
    assert_eq!(picture.dimensions(), (4 * 480, 3 * 360));
    let distinct: std::collections::HashSet<_> = picture.pixels().step_by(997).map(|p| p.0).collect();
    assert!(distinct.len() > 50, "{} colours", distinct.len());
}

#[test]
fn the_overlay_is_drawn_as_asked() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture().join("model.safetensors");
    // The one picture of a run, as a contact sheet shows it.
    let picture = |options: &[&str]| {
        let (video, sheet) = (folder.path().join("o.mkv"), folder.path().join("o.png"));
        let _ = std::fs::remove_file(&video);
        let mut arguments = vec![
            "run",
            "videotestsrc num-buffers=1 pattern=white",
            "-o",
            text(&video),
        ];
        arguments.extend([
            "--model",
            text(&model),
            "--roi",
            "none",
            "--contact-sheet",
            text(&sheet),
        ]);
        arguments.extend(["--legend", "false", "--status", "false", "--quality", "100"]);
        arguments.extend(options);
        good(&arguments);
        let sheet = image::open(&sheet).unwrap().to_rgb8();
        image::imageops::crop_imm(&sheet, 0, 0, 480, 360).to_image()
    };
    let share = |picture: &image::RgbImage, is: fn(&[u8; 3]) -> bool| {
        picture.pixels().filter(|p| is(&p.0)).count() as f64 / picture.pixels().len() as f64
    };
    let white = |p: &[u8; 3]| p.iter().all(|v| *v > 230);
    let red = |p: &[u8; 3]| p[0] > 180 && p[1] < 70 && p[2] < 70;
    assert!(share(&picture(&["--opacity", "0"]), white) > 0.99);
    // Every class but one in red, and nothing shines through.
    let all = (0..12).map(|id| id.to_string()).collect::<Vec<_>>();
    let palette = all
        .iter()
        .map(|id| format!("{id}=#e00000"))
        .collect::<Vec<_>>()
        .join(",");
    let all = all.join(",");
    let opaque = ["--opacity", "1", "--palette", &palette, "--show-classes", &all];
    let full = share(&picture(&opaque), red);
    assert!(full > 0.95);
    assert!(
        share(
            &picture(&[&opaque[..], &["--hide-classes", &all]].concat()),
            white
        ) > 0.99
    );
    let contour = share(&picture(&[&opaque[..], &["--style", "contour"]].concat()), red);
    // These weights are noise: outlines of small areas.
    assert!(contour < full - 0.1, "outlines cover {contour} of the picture");
}

#[test]
fn wrong_wishes_for_the_overlay_are_errors_before_a_file_is_opened() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("o.mp4");
    for (option, value, expected) in [
        ("--palette", "thread=red", "palette"),
        ("--show-classes", "nothing", "--show-classes nothing"),
        ("--hide-classes", "99", "--hide-classes 99"),
        ("--class-opacity", "thread=-1", "class-opacity"),
        ("--opacity", "3", "--opacity 3"),
        ("--style", "dots", "fill, contour, both"),
        ("--emit", "middle", "auto, newest, center, ensemble, step"),
        ("--roi", "1,2", "--roi"),
    ] {
        let source = "videotestsrc num-buffers=2";
        let said = bad(&["run", source, "-o", text(&output), option, value]);
        assert!(said.contains(expected), "{option} {value}: {said}");
        assert!(!output.exists());
    }
    let masks = folder.path().join("masks");
    let said = bad(&[
        "run",
        "videotestsrc num-buffers=2",
        "-o",
        text(&masks),
        "--style",
        "both",
    ]);
    assert!(said.contains("--style") && !masks.exists(), "{said}");
}

#[test]
fn a_region_outside_the_frame_ends_the_run_before_its_first_frame() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("o.mp4");
    let source = "videotestsrc num-buffers=20 ! video/x-raw,width=160,height=120";
    let said = bad(&["run", source, "-o", text(&output), "--roi", "100,0,100,100"]);
    assert!(said.contains("roi is 100,0,100,100"), "{said}");
    assert!(!output.exists());
}

#[test]
fn bad_input_is_a_message() {
    let folder = fixture();
    let model = folder.join("model.safetensors");
    let output = folder.join("bad.mp4");
    let write = |name: &str, bytes: &[u8]| -> PathBuf {
        let path = folder.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let good_bytes = std::fs::read(folder.join("scene.mp4")).unwrap();
    for (input, part) in [
        (folder.join("absent.mp4"), "no such file"),
        (write("empty.mp4", b""), ""),
        (
            write("text.mp4", b"this is not a video\n".repeat(50).as_slice()),
            "",
        ),
        (write("cut.mp4", &good_bytes[..good_bytes.len() / 3]), ""),
        (folder.join("model.safetensors"), ""),
    ] {
        let said = bad(&["run", text(&input), "-o", text(&output), "--model", text(&model)]);
        assert!(said.contains(part), "{input:?}: {said}");
        assert!(!output.exists(), "{input:?} leaves no empty video");
    }
}

#[test]
fn frames_before_a_break_come_out() {
    let folder = fixture();
    let bytes = std::fs::read(folder.join("scene.mkv")).unwrap();
    std::fs::write(folder.join("cut.mkv"), &bytes[..bytes.len() * 95 / 100]).unwrap();
    let before = frames_of(&folder.join("cut.mkv"));
    assert!((1..FRAMES).contains(&before), "{before}");
    let paths = ["cut.mkv", "rescued.mp4", "model.safetensors"].map(|name| folder.join(name));
    let output = masam(&[
        "run",
        text(&paths[0]),
        "-o",
        text(&paths[1]),
        "--model",
        text(&paths[2]),
    ]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains(&format!("{before} out")), "{said}");
    assert_eq!(frames_of(&paths[1]), before);
}

#[test]
fn a_source_that_breaks_early_leaves_its_frames() {
    let folder = fixture();
    let model = folder.join("model.safetensors");
    for (after, name) in [(2, "early2.mp4"), (4, "early4.mp4"), (4, "early4.mkv")] {
        let source = format!(
            "videotestsrc num-buffers=80 ! video/x-raw,width=160,height=120 ! identity error-after={after}"
        );
        let output = folder.join(name);
        let said = bad(&[
            "run",
            &source,
            "-o",
            text(&output),
            "--model",
            text(&model),
            "--roi",
            "none",
        ]);
        assert!(said.contains("identity"), "{said}");
        let frames = frames_of(&output);
        assert!(
            frames > 0 && said.contains(&format!("{frames} out")),
            "{frames}: {said}"
        );
    }
}

#[test]
fn a_broken_picture_does_not_take_others_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture().join("model.safetensors");
    let pictures = folder.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    for index in 0..6 {
        let picture = image::RgbImage::from_pixel(96, 64, image::Rgb([index * 30, 90, 40]));
        picture.save(pictures.join(format!("p{index}.png"))).unwrap();
    }
    std::fs::write(pictures.join("p4.png"), b"no picture").unwrap();
    let masks = folder.path().join("masks");
    let said = bad(&[
        "run",
        text(&pictures),
        "-o",
        text(&masks),
        "--model",
        text(&model),
    ]);
    assert!(said.contains("p4.png") && said.contains("4 out"), "{said}");
    assert_eq!(std::fs::read_dir(&masks).unwrap().count(), 4);
}

#[test]
fn what_was_there_stays_when_a_run_fails() {
    let folder = fixture();
    let model = folder.join("model.safetensors");
    let scene = std::fs::read(folder.join("scene.mp4")).unwrap();
    let (input, output) = (folder.join("own.mp4"), folder.join("kept.mp4"));
    std::fs::write(&input, &scene).unwrap();
    std::fs::write(&output, b"precious").unwrap();
    std::fs::write(folder.join("noise.mp4"), b"no video at all").unwrap();
    let noise = folder.join("noise.mp4");
    bad(&["run", text(&noise), "-o", text(&output), "--model", text(&model)]);
    assert_eq!(std::fs::read(&output).unwrap(), b"precious");
    assert!(!folder.join("kept.mp4.part").exists());
    let link = folder.join("link.mp4");
    std::fs::hard_link(&input, &link).unwrap();
    let address = format!("file://{}", text(&input));
    let description = format!("filesrc location={} ! decodebin", text(&input));
    for (from, to) in [(text(&input), &link), (&address, &input), (&description, &input)] {
        let said = bad(&["run", from, "-o", text(to), "--model", text(&model)]);
        assert!(said.contains("the same file"), "{said}");
        assert_eq!(std::fs::read(&input).unwrap(), scene);
    }
}

#[test]
fn odd_sides_can_be_encoded() {
    let folder = fixture();
    let model = folder.join("model.safetensors");
    let source = "videotestsrc num-buffers=6 ! video/x-raw,format=I420,width=161,height=121";
    for name in ["odd.mp4", "odd.mkv", "odd.webm"] {
        let output = folder.join(name);
        good(&[
            "run",
            source,
            "-o",
            text(&output),
            "--model",
            text(&model),
            "--roi",
            "none",
        ]);
        assert_eq!(frames_of(&output), 6, "{name}");
    }
}

#[test]
fn a_description_that_stops_without_a_word_is_an_error() {
    // A demuxer that fails while decodebin plugs it in is not heard; the run has to see that nothing comes.
    let folder = fixture();
    let model = folder.join("model.safetensors");
    let bytes = std::fs::read(folder.join("scene.mp4")).unwrap();
    let cut = folder.join("third.mp4");
    std::fs::write(&cut, &bytes[..bytes.len() / 3]).unwrap();
    let source = format!("filesrc location={} ! decodebin", text(&cut));
    for _ in 0..10 {
        let output = folder.join("third_out.mp4");
        bad(&["run", &source, "-o", text(&output), "--model", text(&model)]);
        assert!(!output.exists());
    }
}

#[test]
fn bad_models_and_options_are_messages() {
    let folder = fixture();
    let (input, output) = (folder.join("scene.mp4"), folder.join("never.mp4"));
    let model = std::fs::read(folder.join("model.safetensors")).unwrap();
    let cut = folder.join("cut.safetensors");
    std::fs::write(&cut, &model[..model.len() / 2]).unwrap();
    let said = bad(&["run", text(&input), "-o", text(&output), "--model", text(&cut)]);
    assert!(
        said.contains("cut.safetensors") && said.contains("truncated"),
        "{said}"
    );
    let said = bad(&[
        "run",
        text(&input),
        "-o",
        text(&output),
        "--model",
        "/nowhere/model.safetensors",
    ]);
    assert!(said.contains("/nowhere/model.safetensors"), "{said}");
    let good_model = folder.join("model.safetensors");
    let with = |option: &[&str]| {
        let base = [
            "run",
            text(&input),
            "-o",
            text(&output),
            "--model",
            text(&good_model),
        ];
        bad(&[&base[..], option].concat())
    };
    assert!(with(&["--device", "cuda:0"]).contains("cuda:0"));
    assert!(with(&["--precision", "f16", "--device", "cpu"]).contains("f16"));
    let said = bad(&[
        "run",
        text(&input),
        "-o",
        text(&folder.join("x.avi")),
        "--model",
        text(&good_model),
    ]);
    assert!(said.contains(".mp4"), "{said}");
    assert!(!output.exists());
}

#[test]
fn selftest_fails_where_there_is_nothing_to_test() {
    let folder = tempfile::tempdir().unwrap();
    let empty = masam(&["selftest", "--goldens", text(folder.path())]);
    assert_eq!(empty.status.code(), Some(1));
    std::fs::write(folder.path().join("broken.safetensors"), b"nothing").unwrap();
    let broken = masam(&["selftest", "--goldens", text(folder.path())]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&broken.stdout).contains("FAIL"));
    bad(&["selftest", "--goldens", text(&folder.path().join("absent"))]);
}

#[test]
fn bench_prints_what_it_measured() {
    let output = masam(&["bench", "--config", "tiny", "--runs", "2", "--warmup", "0"]);
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: serde_json::Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    for key in ["min_s", "median_s", "max_s", "gflops", "peak_gflops"] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}: {report}");
    }
    assert!(report["gflops"].as_f64().unwrap() < report["peak_gflops"].as_f64().unwrap());
    assert!(report["peak_rss_bytes"].as_u64().unwrap() > 1_000_000);
    bad(&["bench", "--config", "tiny", "--size", "100"]);
    bad(&["bench", "--config", "vit_x"]);
}

#[test]
fn folders_of_pictures_become_folders_of_masks() {
    let folder = fixture();
    let frames = folder.join("scene/miccai_challenge_2018_release_1/seq_1/left_frames");
    let (model, ids, colours) = (
        folder.join("model.safetensors"),
        folder.join("ids"),
        folder.join("colours"),
    );
    good(&["run", text(&frames), "-o", text(&ids), "--model", text(&model)]);
    good(&[
        "run",
        text(&frames),
        "-o",
        text(&colours),
        "--masks",
        "colour",
        "--model",
        text(&model),
    ]);
    let names = |folder: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(&ids), names(&frames), "masks are called as their pictures");
    let palette = masam::labels::ClassSet::endovis_2018();
    for name in names(&ids) {
        let (id, colour) = (
            image::open(ids.join(&name)).unwrap(),
            image::open(colours.join(&name)).unwrap(),
        );
        assert_eq!(
            (id.color(), colour.color()),
            (image::ColorType::L8, image::ColorType::Rgb8)
        );
        assert_eq!((id.width(), id.height()), (160, 120));
        for (id, colour) in id.to_luma8().pixels().zip(colour.to_rgb8().pixels()) {
            assert_eq!(palette.get(id.0[0]).unwrap().color, colour.0);
        }
    }
    let again = bad(&["run", text(&frames), "-o", text(&ids), "--model", text(&model)]);
    assert!(again.contains("not empty"), "{again}");
}

#[test]
fn a_run_goes_on_when_its_messages_have_no_reader() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("o.mkv");
    let source = "videotestsrc num-buffers=10 ! video/x-raw,width=160,height=120";
    let model = fixture().join("model.safetensors");
    let mut child = Command::new(env!("CARGO_BIN_EXE_masam"))
        .args(["run", source, "-o", text(&output), "--model", text(&model)])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(frames_of(&output), 10);
}

#[test]
fn control_c_finishes_the_file() {
    let folder = fixture();
    let (model, output) = (folder.join("model.safetensors"), folder.join("stopped.mp4"));
    let source = "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=10/1";
    let mut child = Command::new(env!("CARGO_BIN_EXE_masam"))
        .args([
            "run",
            source,
            "-o",
            text(&output),
            "--model",
            text(&model),
            "--roi",
            "none",
        ])
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    // Until the muxer has begun to write; the endless source would go on for ever.
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&output).map_or(0, |m| m.len()) == 0 {
        assert!(Instant::now() < deadline, "nothing was written");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    let stopped = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(stopped.success());
    let status = child.wait().unwrap();
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().unwrap(), &mut said).unwrap();
    assert!(status.success(), "{said}");
    assert!(frames_of(&output) > 0, "{said}");
}

/// The decoder holds frames back whose turn has not come: the file must not have holes where they belong.
#[test]
fn control_c_in_a_recording_keeps_every_frame_that_went_in() {
    let folder = fixture();
    let (model, output) = (folder.join("model.safetensors"), folder.join("half.mp4"));
    let input = folder.join("long.mp4");
    // Frames that refer to later ones, as x264 makes them where nobody is in a hurry.
    running_times(&format!(
        "videotestsrc num-buffers=200 pattern=snow ! video/x-raw,width=160,height=120,framerate=30/1 \
         ! x264enc name=encoder bframes=3 b-adapt=false ! h264parse ! mp4mux ! filesink location={}",
        text(&input)
    ));
    let child = Command::new(env!("CARGO_BIN_EXE_masam"))
        .args(["run", text(&input), "-o", text(&output), "--model", text(&model)])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while std::fs::metadata(&output).map_or(0, |m| m.len()) == 0 {
        assert!(Instant::now() < deadline, "nothing was written");
        std::thread::sleep(Duration::from_millis(5));
    }
    let stopped = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status()
        .unwrap();
    assert!(stopped.success());
    let ended = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(ended.status.success(), "{said}");
    let counts = said.split(" frames in, ").collect::<Vec<_>>();
    let number = |text: &str| text.split_whitespace().last().unwrap().parse::<usize>().unwrap();
    let (read, written) = (number(counts[0]), number(counts[1].split(" out").next().unwrap()));
    assert!((1..200).contains(&written) && read == written, "{said}");
    let times = running_times(&format!(
        "filesrc location={} ! decodebin ! fakesink name=encoder",
        text(&output)
    ));
    assert_eq!(times.len(), written, "{said}");
    for pair in times.windows(2) {
        assert!((pair[1] - pair[0]).abs_diff(33_333_333) < 2_000_000, "{times:?}");
    }
}

#[test]
fn what_a_package_installs_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let output = masam(&["completions", shell]);
        assert!(
            output.status.success() && String::from_utf8_lossy(&output.stdout).contains("selftest"),
            "{shell}"
        );
    }
    good(&["man", text(folder.path())]);
    assert!(
        std::fs::read_to_string(folder.path().join("masam-run.1"))
            .unwrap()
            .contains("contact")
    );
    let doctor = masam(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout).into_owned();
    assert!(
        doctor.status.success() && said.contains("device=cpu runs"),
        "{said}"
    );
}
