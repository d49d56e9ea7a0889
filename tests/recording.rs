//! What `masam run -o` leaves behind when it is killed, told to end, or runs out of disk: it plays, and nothing that
//! was there before is lost. `MASAM_LONG=1` repeats each way to end often enough to meet rare moments.

mod recording_support;

use recording_support::{Played, Random, played, repeats, write_small_model};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Longest a step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// Bytes that a frame leaves in the file that counts frames.
const COUNTED: u64 = 16 * 16;

/// A folder with the model, where runs write to.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        write_small_model(&folder.path().join("model.safetensors"));
        Self(folder)
    }

    fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Starts `masam run`, with a file for what it says.
    fn run(&self, source: &str, output: &Path, more: &[&str]) -> Run {
        // Not beside the output, whose disk may be full.
        static RUNS: AtomicUsize = AtomicUsize::new(0);
        let log = self.join(&format!("{}.log", RUNS.fetch_add(1, Ordering::Relaxed)));
        let child = Command::new(env!("CARGO_BIN_EXE_masam"))
            .args(["run", source, "--roi", "none", "--model"])
            .arg(self.join("model.safetensors"))
            .arg("-o")
            .arg(output)
            .args(more)
            .stdin(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Run { child, log }
    }
}

/// A run, killed if the test ends before it does.
struct Run {
    child: Child,
    log: PathBuf,
}

impl Run {
    fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    fn wait_for(&mut self, what: &str, ready: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !ready() {
            assert!(Instant::now() < deadline, "no {what}: {}", self.said());
            assert!(self.child.try_wait().unwrap().is_none(), "{}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its exit status.
    fn end(&mut self) -> Option<i32> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.said());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn len(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |there| there.len())
}

/// A recording to be killed.
#[derive(Debug, Clone, Copy)]
struct Case {
    suffix: &'static str,
    pattern: &'static str,
    fps: u64,
    /// When the picture and the sound begin, in milliseconds.
    video_ms: u64,
    sound_ms: Option<u64>,
}

const CASES: [Case; 6] = {
    let case = Case {
        suffix: "mp4",
        pattern: "smpte",
        fps: 30,
        video_ms: 0,
        sound_ms: None,
    };
    [
        case,
        Case {
            pattern: "black",
            video_ms: 500,
            ..case
        },
        Case {
            sound_ms: Some(0),
            ..case
        },
        Case {
            fps: 1,
            pattern: "black",
            ..case
        },
        Case {
            sound_ms: Some(0),
            video_ms: 700,
            ..case
        },
        Case {
            sound_ms: Some(1300),
            fps: 10,
            pattern: "ball",
            ..case
        },
    ]
};

impl Case {
    /// Frames and sound at the pace of a camera, with times that are known. Each frame is counted in `seen` when it
    /// leaves the source, a moment before it reaches the encoder.
    fn source(&self, seen: &Path) -> String {
        let Self {
            pattern,
            fps,
            video_ms,
            ..
        } = self;
        let sound = self.sound_ms.map_or_else(String::new, |ms| {
            format!(
                "audiotestsrc samplesperbuffer=1024 timestamp-offset={} ! audio/x-raw,rate=48000 \
                 ! identity sync=true ! voaacenc ! aacparse ! queue ! mux. ",
                ms * 1_000_000
            )
        });
        format!(
            "{sound}videotestsrc pattern={pattern} timestamp-offset={} \
             ! video/x-raw,format=I420,width=160,height=120,framerate={fps}/1 ! identity sync=true ! tee name=seen \
             seen. ! queue ! videoscale ! videoconvert ! video/x-raw,format=GRAY8,width=16,height=16 \
             ! filesink location={} buffer-mode=unbuffered async=false sync=false seen.",
            video_ms * 1_000_000,
            seen.display()
        )
    }

    /// Why what is left of a killed recording is not good enough.
    fn fault(&self, seen: u64, left: Result<Played, String>) -> Result<(), String> {
        let played = left?;
        let frames = played.video.len() as u64;
        // One more may have been counted and not come to the encoder.
        let lost = seen.saturating_sub(frames + 1);
        if lost > self.fps.max(2) {
            return Err(format!("{frames} of {seen} frames"));
        }
        let step = 1.0 / self.fps as f64;
        if let Some(pair) = played
            .video
            .windows(2)
            .find(|p| (p[1] - p[0] - step).abs() > 0.01)
        {
            return Err(format!("a gap: {pair:?}"));
        }
        let first = *played.video.first().ok_or("no frame")?;
        let truth = self.video_ms as f64 / 1e3;
        match (self.sound_ms, played.sound.first()) {
            (Some(ms), Some(sound)) => {
                let apart = (sound - first) - (ms as f64 / 1e3 - truth);
                let ends = played.sound.last().unwrap_or(sound) - played.video.last().unwrap_or(&first);
                if apart.abs() > 0.04 || ends.abs() > step.max(0.5) + 0.1 {
                    return Err(format!("sound is {apart} s late and ends {ends} s late"));
                }
            }
            // GStreamer's reader of Matroska begins at zero whatever the file says.
            _ if !["mkv", "webm"].contains(&self.suffix) && (first - truth).abs() > 0.04 => {
                return Err(format!("begins at {first} s"));
            }
            (Some(ms), None) if seen > self.fps * (ms / 1000 + 2) => return Err("no sound".into()),
            _ => {}
        }
        Ok(())
    }
}

/// Kills recordings of all cases, with these suffixes in turn.
fn kill_at_random_moments(suffixes: &[&'static str], count: usize) {
    let place = Place::new();
    let seed = u64::from(std::process::id());
    // Several at once, as they wait most of the time.
    let faults: Vec<String> = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4.min(count))
            .map(|worker| {
                let place = &place;
                scope.spawn(move || {
                    let mut random = Random(seed + worker as u64 * 7919);
                    let mut faults = Vec::new();
                    for index in (worker..count).step_by(4) {
                        let case = CASES[index % CASES.len()];
                        // There is no AAC in WebM.
                        let suffix = match suffixes[index / CASES.len() % suffixes.len()] {
                            "webm" if case.sound_ms.is_some() => "mkv",
                            suffix => suffix,
                        };
                        let case = Case { suffix, ..case };
                        let output = place.join(&format!("{index}.{suffix}"));
                        let seen = place.join(&format!("{index}.seen"));
                        let mut run = place.run(&case.source(&seen), &output, &["--mode", "live"]);
                        run.wait_for("frame", || len(&seen) > 0);
                        // At one frame a second three have to come before anything can be there; and the muxer
                        // begins when the sound does.
                        let least = if case.fps == 1 {
                            4000
                        } else {
                            1200 + case.sound_ms.unwrap_or(0)
                        };
                        let wait = least + random.below(4000);
                        std::thread::sleep(Duration::from_millis(wait));
                        run.child.kill().unwrap();
                        run.child.wait().unwrap();
                        let count = len(&seen) / COUNTED;
                        if let Err(fault) = case.fault(count, played(&output)) {
                            faults.push(format!("{case:?} after {wait} ms (seed {seed}): {fault}"));
                        } else {
                            std::fs::remove_file(&output).unwrap();
                        }
                    }
                    faults
                })
            })
            .collect();
        workers
            .into_iter()
            .flat_map(|worker| worker.join().unwrap())
            .collect()
    });
    println!("{suffixes:?}: {count} recordings killed, {} faults", faults.len());
    assert!(
        faults.is_empty(),
        "{} of {count}:\n{}",
        faults.len(),
        faults.join("\n")
    );
}

#[test]
fn a_killed_mp4_plays() {
    kill_at_random_moments(&["mp4", "mov", "mp4", "m4v"], repeats(6, 100));
}

#[test]
fn a_killed_mkv_plays() {
    kill_at_random_moments(&["mkv", "webm"], repeats(6, 100));
}

const CAMERA: &str = "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=30/1";
/// Beside it a stream that nobody ends, so that the whole never comes to its end by itself.
const ENDLESS: &str = "videotestsrc is-live=true ! fakesink \
                       videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=30/1";

/// Frames that the program says it has written.
fn written(said: &str) -> usize {
    let before = said.split(" out,").next().unwrap();
    before
        .rsplit(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap_or_else(|_| panic!("{said}"))
}

/// The boxes of an MP4 file, one behind the other.
fn boxes(path: &Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    let (mut at, mut found) = (0, Vec::new());
    while let Some(head) = bytes.get(at..at + 16) {
        found.push(String::from_utf8_lossy(&head[4..8]).into_owned());
        at += match u32::from_be_bytes(head[..4].try_into().unwrap()) {
            1 => u64::from_be_bytes(head[8..].try_into().unwrap()) as usize,
            size => size as usize,
        };
    }
    found
}

#[test]
fn signals_at_once_are_one_wish() {
    let place = Place::new();
    let signals = ["-TERM", "-INT", "-HUP"];
    for index in 0..repeats(4, 20) {
        let suffix = ["mp4", "mkv", "mov", "webm"][index % 4];
        let output = place.join(&format!("{index}.{suffix}"));
        let mut run = place.run(CAMERA, &output, &["--mode", "live"]);
        run.wait_for("output", || len(&output) > 0);
        std::thread::sleep(Duration::from_millis(300 + 97 * index as u64 % 1000));
        run.signal(signals[index % 3]);
        run.signal(signals[index % 3]);
        let (status, said) = (run.end(), run.said());
        assert_eq!(status, Some(0), "{said}");
        assert_eq!(played(&output).unwrap().video.len(), written(&said), "{said}");
        if suffix.starts_with('m') && suffix != "mkv" {
            let boxes = boxes(&output);
            assert!(
                boxes.contains(&"moov".into()) && !boxes.contains(&"moof".into()),
                "an ordinary file: {boxes:?}"
            );
        }
    }
}

#[test]
fn a_late_second_signal_ends_within_five_seconds() {
    let place = Place::new();
    let output = place.join("hurry.mp4");
    let mut run = place.run(ENDLESS, &output, &["--mode", "live"]);
    run.wait_for("output", || len(&output) > 0);
    std::thread::sleep(Duration::from_millis(1500));
    run.signal("-INT");
    std::thread::sleep(Duration::from_millis(2300));
    let second = Instant::now();
    run.signal("-INT");
    assert_eq!(run.end(), Some(1), "{}", run.said());
    assert!(
        second.elapsed() < Duration::from_secs(5),
        "{:?}",
        second.elapsed()
    );
    assert!(played(&output).unwrap().video.len() > 15, "{}", run.said());
}

#[test]
fn an_earlier_file_is_replaced_at_the_end_alone() {
    let place = Place::new();
    for suffix in ["mp4", "mkv"] {
        let name = |more: &str| place.join(&format!("earlier.{suffix}{more}"));
        let output = name("");
        // The first run writes at the output itself.
        let mut first = place.run(CAMERA, &output, &["--duration", "1"]);
        assert_eq!(first.end(), Some(0), "{}", first.said());
        assert_eq!(played(&output).unwrap().video.len(), 30, "{}", first.said());
        let before = std::fs::read(&output).unwrap();
        // The second is killed.
        let part = name(".part");
        let mut second = place.run(CAMERA, &output, &["--mode", "live"]);
        second.wait_for("part", || len(&part) > 0);
        std::thread::sleep(Duration::from_millis(1500));
        second.child.kill().unwrap();
        second.child.wait().unwrap();
        assert!(
            second.said().contains(part.to_str().unwrap()),
            "{}",
            second.said()
        );
        assert_eq!(std::fs::read(&output).unwrap(), before);
        let rescued = std::fs::read(&part).unwrap();
        assert!(!played(&part).unwrap().video.is_empty());
        // The third breaks off.
        let broken = format!(
            "{} ! identity error-after=40",
            CAMERA.replace("videotestsrc", "videotestsrc num-buffers=80")
        );
        let mut third = place.run(&broken, &output, &[]);
        assert_eq!(third.end(), Some(1), "{}", third.said());
        let (said, next) = (third.said(), name(".part.1"));
        assert!(
            said.contains(part.to_str().unwrap()) && said.contains(next.to_str().unwrap()),
            "{said}"
        );
        assert_eq!(std::fs::read(&output).unwrap(), before);
        assert!(played(&next).unwrap().video.len() > 20, "{said}");
        // The fourth is told to end: that is what the user wanted.
        let mut fourth = place.run(CAMERA, &output, &["--mode", "live"]);
        fourth.wait_for("part", || len(&name(".part.2")) > 0);
        std::thread::sleep(Duration::from_millis(700));
        fourth.signal("-TERM");
        assert_eq!(fourth.end(), Some(0), "{}", fourth.said());
        assert_ne!(std::fs::read(&output).unwrap(), before);
        assert_eq!(played(&output).unwrap().video.len(), written(&fourth.said()));
        assert!(!name(".part.2").exists());
        assert_eq!(std::fs::read(&part).unwrap(), rescued, "parts of other runs stay");
    }
}

#[test]
fn a_run_without_frames_leaves_nothing() {
    let place = Place::new();
    let output = place.join("nothing.mp4");
    let mut run = place.run(
        "videotestsrc num-buffers=5 ! identity error-after=1",
        &output,
        &[],
    );
    assert_eq!(run.end(), Some(1), "{}", run.said());
    assert!(!output.exists(), "{}", run.said());
}

/// A disk of one megabyte.
struct SmallDisk(PathBuf);

impl SmallDisk {
    /// None, aloud, where this user may not mount one.
    fn mount(at: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let mount = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(&at)
            .output();
        match mount {
            Ok(done) if done.status.success() => Some(Self(at)),
            other => {
                println!("SKIPPED: mount -t tmpfs needs root: {other:?}");
                None
            }
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_costs_only_what_did_not_fit() {
    let place = Place::new();
    for index in 0..repeats(4, 20) {
        let suffix = ["mp4", "mkv"][index % 2];
        let Some(disk) = SmallDisk::mount(place.join(&format!("disk{index}"))) else {
            return;
        };
        let output = disk.0.join(format!("x.{suffix}"));
        // Every other time a good file is there already.
        let mut earlier = None;
        let mut kept = output.clone();
        if index % 4 > 1 {
            let mut run = place.run(
                "videotestsrc num-buffers=30 ! video/x-raw,width=160,height=120",
                &output,
                &[],
            );
            assert_eq!(run.end(), Some(0), "{}", run.said());
            earlier = Some(std::fs::read(&output).unwrap());
            kept = disk.0.join(format!("x.{suffix}.part"));
        }
        // Snow fills a megabyte in about two seconds.
        let mut run = place.run(
            "videotestsrc pattern=snow ! video/x-raw,width=160,height=120,framerate=30/1",
            &output,
            &["--mode", "live"],
        );
        let status = run.end();
        let said = run.said();
        assert_eq!(status, Some(28), "{said}");
        assert!(
            said.contains(&format!("the disk at {} is full", disk.0.display())),
            "{said}"
        );
        assert!(said.contains(kept.to_str().unwrap()), "{said}");
        let frames = played(&kept).unwrap().video.len();
        assert!(frames > 15 && frames + 32 >= written(&said), "{frames}: {said}");
        if let Some(earlier) = earlier {
            assert_eq!(std::fs::read(&output).unwrap(), earlier);
        }
    }
}

#[test]
fn duration_ends_picture_and_sound() {
    let place = Place::new();
    for suffix in ["mp4", "mkv"] {
        let output = place.join(&format!("two.{suffix}"));
        let source = "audiotestsrc ! audio/x-raw,rate=48000 ! voaacenc ! aacparse ! queue ! mux. \
                      videotestsrc ! video/x-raw,width=160,height=120,framerate=10/1";
        let mut run = place.run(source, &output, &["--duration", "0m2s"]);
        assert_eq!(run.end(), Some(0), "{}", run.said());
        let played = played(&output).unwrap();
        assert_eq!(played.video.len(), 20, "{}", run.said());
        let end = played.sound.last().unwrap() + 1024.0 / 48000.0;
        assert!((end - 2.0).abs() < 0.04, "{end}");
        // The rest of a file is not missing.
        let shorter = place.join(&format!("one.{suffix}"));
        let mut run = place.run(output.to_str().unwrap(), &shorter, &["--duration", "1"]);
        assert_eq!(run.end(), Some(0), "{}", run.said());
        assert!(!run.said().contains("cut"), "{}", run.said());
    }
}

/// The profile in an MP4 file's H.264 header; 100 is High: 4:2:0, 8 bits.
fn profile(path: &Path) -> u8 {
    let bytes = std::fs::read(path).unwrap();
    let header = bytes.windows(4).position(|w| w == b"avcC").unwrap();
    bytes[header + 5]
}

#[test]
fn every_source_becomes_high_profile() {
    let place = Place::new();
    for format in ["RGB", "Y444", "Y42B", "I420_10LE", "GRAY8", "NV12"] {
        let output = place.join(&format!("{format}.mp4"));
        let source = format!("videotestsrc num-buffers=5 ! video/x-raw,format={format},width=161,height=121");
        let mut run = place.run(&source, &output, &["--quality", "100"]);
        assert_eq!(run.end(), Some(0), "{}", run.said());
        assert_eq!(profile(&output), 100, "{format}");
        assert_eq!(played(&output).unwrap().video.len(), 5);
    }
}

#[test]
fn quality_is_paid_for() {
    let place = Place::new();
    for suffix in ["mp4", "webm"] {
        let mut sizes = Vec::new();
        for quality in ["10", "60", "95"] {
            let output = place.join(&format!("{quality}.{suffix}"));
            let source = "videotestsrc num-buffers=10 pattern=zone-plate kx2=20 ky2=20 kt=1 \
                          ! video/x-raw,width=160,height=120";
            let mut run = place.run(
                source,
                &output,
                &["--quality", quality, "--encoder-speed", "superfast"],
            );
            assert_eq!(run.end(), Some(0), "{}", run.said());
            sizes.push(len(&output));
        }
        assert!(
            sizes[0] * 2 < sizes[1] && sizes[1] * 3 < sizes[2] * 2,
            "{suffix}: {sizes:?}"
        );
    }
}

#[test]
fn a_window_beside_the_recording_costs_no_frame() {
    let place = Place::new();
    let output = place.join("shown.mp4");
    let log = place.join("shown.log");
    let status = Command::new(env!("CARGO_BIN_EXE_masam"))
        .args(["run", CAMERA, "--show", "--duration", "1.5", "--mode", "live", "--model"])
        .arg(place.join("model.safetensors"))
        .arg("-o")
        .arg(&output)
        // Takes the window's place where there is no screen.
        .env("GST_PLUGIN_FEATURE_RANK", "fakevideosink:9999")
        .stderr(std::fs::File::create(&log).unwrap())
        .status()
        .unwrap();
    let said = std::fs::read_to_string(&log).unwrap();
    assert!(status.success(), "{said}");
    assert_eq!(played(&output).unwrap().video.len(), 45, "{said}");
}

#[test]
fn a_kill_while_the_file_is_finished_costs_nothing() {
    let place = Place::new();
    let seed = u64::from(std::process::id());
    let mut random = Random(seed);
    for index in 0..repeats(6, 40) {
        let output = place.join(&format!("{index}.mp4"));
        let mut run = place.run(CAMERA, &output, &["--mode", "live"]);
        run.wait_for("output", || len(&output) > 0);
        std::thread::sleep(Duration::from_millis(1200));
        run.signal("-TERM");
        let wait = random.below(150);
        std::thread::sleep(Duration::from_millis(wait));
        run.child.kill().unwrap();
        run.child.wait().unwrap();
        let frames = played(&output).unwrap().video.len();
        assert!(
            frames >= 30,
            "{frames} frames, killed {wait} ms after the signal (seed {seed})"
        );
    }
}
