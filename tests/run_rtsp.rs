//! `masam run` on a network camera: an RTSP server on a port of its own, in another process.

mod recording_support;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;
use recording_support::{repeats, write_small_model};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Longest a step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// The camera. Killed when the test ends, however that may be.
struct Camera {
    process: Child,
    lines: BufReader<ChildStdout>,
    port: u64,
    frames: u64,
}

impl Camera {
    fn start(transport: &str) -> Self {
        let server = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rtsp_support/server.py");
        // Debian's own Python: bindings are installed for it alone.
        let mut process = Command::new("/usr/bin/python3")
            .args([server, transport])
            .stdout(Stdio::piped())
            .spawn()
            .expect("/usr/bin/python3 starts");
        let lines = BufReader::new(process.stdout.take().unwrap());
        let mut camera = Self {
            process,
            lines,
            port: 0,
            frames: 0,
        };
        camera.port = camera.next("port");
        camera
    }

    /// The number of the next line, which has to begin with `word`.
    fn next(&mut self, word: &str) -> u64 {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        let number = line.strip_prefix(word).and_then(|rest| rest.trim().parse().ok());
        number.unwrap_or_else(|| {
            panic!("the server says {line:?}; scripts/setup.sh installs what it needs: python3-gi and gir1.2-gst-rtsp-server-1.0")
        })
    }

    /// Returns when `count` more frames have been sent.
    fn wait_for(&mut self, count: u64) {
        let until = self.frames + count;
        while self.frames < until {
            self.frames = self.next("frame");
        }
    }

    fn address(&self) -> String {
        format!("rtsp://127.0.0.1:{}/scene", self.port)
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `masam run`, killed if the test ends before it does.
struct Recording(Child);

impl Recording {
    fn start(camera: &Camera, folder: &Path, output: &Path) -> Self {
        let model = folder.join("model.safetensors");
        write_small_model(&model);
        let child = Command::new(env!("CARGO_BIN_EXE_masam"))
            .args(["run", &camera.address(), "-o"])
            .arg(output)
            .arg("--model")
            .arg(&model)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Returns when the muxer has begun to write.
    fn wait_for_output(&mut self, camera: &mut Camera, output: &Path) {
        let deadline = Instant::now() + PATIENCE;
        while std::fs::metadata(output).map_or(0, |m| m.len()) == 0 {
            assert!(Instant::now() < deadline, "nothing was written");
            assert!(self.0.try_wait().unwrap().is_none(), "{}", self.said());
            camera.wait_for(1);
        }
    }

    /// Whether it ended well, and what it said.
    fn end(mut self) -> (bool, String) {
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(20));
        };
        let said = self.said();
        println!("{said}");
        (status.success(), said)
    }

    fn said(&mut self) -> String {
        let mut said = String::new();
        if let Some(mut stderr) = self.0.stderr.take() {
            stderr.read_to_string(&mut said).unwrap();
        }
        said
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The number before `word` in the line that `masam run` ends with.
fn count_before(said: &str, word: &str) -> usize {
    let before = said.split(word).next().unwrap();
    let number = before.split(' ').rfind(|part| !part.is_empty()).unwrap();
    number
        .parse()
        .unwrap_or_else(|_| panic!("no number before {word:?}: {said}"))
}

/// How much of each frame's right third has a colour; the camera's picture is grey, and panels are on the left.
fn coloured_shares(video: &Path) -> Vec<f64> {
    gst::init().unwrap();
    let chain = format!(
        "filesrc location={} ! decodebin ! videoconvert ! video/x-raw,format=RGB ! appsink name=out sync=false",
        video.display()
    );
    let pipeline = gst::parse::launch(&chain).unwrap();
    let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("out").unwrap();
    let sink = sink.downcast::<gst_app::AppSink>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let mut shares = Vec::new();
    while let Ok(sample) = sink.pull_sample() {
        let map = sample.buffer().unwrap().map_readable().unwrap();
        let rows = map.chunks_exact(320 * 3);
        assert_eq!(rows.len(), 240);
        let right = rows.flat_map(|row| row[320 * 2..].chunks_exact(3));
        let has_colour = |p: &[u8]| p.iter().max().unwrap() - p.iter().min().unwrap() > 24;
        let (coloured, all) = right.fold((0, 0), |(n, all), p| (n + usize::from(has_colour(p)), all + 1));
        shares.push(coloured as f64 / all as f64);
    }
    let error = pipeline.bus().unwrap().pop_filtered(&[gst::MessageType::Error]);
    assert!(error.is_none(), "{error:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    shares
}

/// The file plays to its end, no frame is missing, and the frames that were said to have masks show them.
fn check_file(output: &Path, said: &str) {
    let (written, masked) = (count_before(said, " out,"), count_before(said, " with masks"));
    let shares = coloured_shares(output);
    assert_eq!(shares.len(), written, "{said}");
    assert!(masked > 0, "{said}");
    // Coding blurs the first frames with a mask. More may show one: the overlay carries it over a gap.
    let shown = shares.iter().filter(|share| **share > 0.1).count();
    assert!(shown + 5 >= masked, "{shown} frames show colour: {said}");
}

#[test]
fn control_c_ends_a_network_stream_and_the_file_plays() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("camera.mp4");
    let mut camera = Camera::start("udp");
    let mut recording = Recording::start(&camera, folder.path(), &output);
    recording.wait_for_output(&mut camera, &output);
    camera.wait_for(30);
    let id = recording.0.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    let (success, said) = recording.end();
    assert!(success && said.contains("finishing the file"), "{said}");
    check_file(&output, &said);
}

#[test]
fn a_camera_that_disappears_leaves_a_file_that_plays() {
    for transport in ["udp", "tcp"].repeat(repeats(1, 10)) {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("camera.mp4");
        let mut camera = Camera::start(transport);
        let mut recording = Recording::start(&camera, folder.path(), &output);
        recording.wait_for_output(&mut camera, &output);
        camera.wait_for(30);
        drop(camera);
        let (_, said) = recording.end();
        assert!(
            said.contains("The server closed the connection"),
            "{transport}: {said}"
        );
        check_file(&output, &said);
    }
}

#[test]
fn a_camera_that_is_not_there_is_a_message() {
    // A port that was free a moment ago, on which nobody listens.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("camera.mp4");
    let run = Command::new(env!("CARGO_BIN_EXE_masam"))
        .args(["run", &format!("rtsp://127.0.0.1:{port}/scene"), "-o"])
        .arg(&output)
        .args([
            "--model",
            concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors"),
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert_eq!(run.status.code(), Some(1), "{said}");
    assert!(said.contains("connect"), "{said}");
    assert!(!output.exists());
}
