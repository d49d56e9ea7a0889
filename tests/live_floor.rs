//! Masks of a live video keep a floor beside other programs at work, and a model that is kept from the processor is told
//! from one that is slow. The bounds in full, on a machine with nothing else to do:
//! `cargo test --release --test live_floor -- --ignored --nocapture`, and once more with `MASAM_SLICES=off`, which
//! leaves slices as they are, as on Linux before 6.12.

mod stream_support;

use gst::prelude::*;
use gstreamer as gst;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use stream_support::init;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");
/// From the start of the pipeline, with the time that it takes to open the model: 270 frames.
const WATCHED: Duration = Duration::from_secs(9);
const ROUNDS: usize = 3;

/// One at a time.
static MACHINE: Mutex<()> = Mutex::new(());

/// Programs that take all of the processor they can get, one for each that this machine has.
struct Busy(Vec<Child>);

impl Busy {
    /// With that niceness; `apart`, each in a session of its own, as from another terminal.
    fn start(niceness: i32, apart: bool) -> Self {
        let count = std::thread::available_parallelism().unwrap().get();
        let start = |_| {
            let mut command = Command::new("nice");
            command.args(["-n", &niceness.to_string(), "sh", "-c", "while :; do :; done"]);
            command.stdin(Stdio::null());
            if apart {
                // SAFETY: setsid is one of the calls that may be made between fork and exec.
                unsafe {
                    command.pre_exec(|| match libc::setsid() {
                        -1 => Err(std::io::Error::last_os_error()),
                        _ => Ok(()),
                    });
                }
            }
            command.spawn().unwrap()
        };
        Self((0..count).map(start).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The numbers of a live video, 720p30, of which the demo model makes a step a frame, after [`WATCHED`].
fn watched(priority: &str) -> gst::Structure {
    let pipeline = gst::parse::launch(&format!(
        "videotestsrc is-live=true pattern=ball ! video/x-raw,width=1280,height=720,framerate=30/1 \
         ! masaminfer name=infer model={MODEL} emit=step priority={priority} ! masamoverlay ! fakesink sync=true"
    ));
    let pipeline = pipeline.unwrap().downcast::<gst::Pipeline>().unwrap();
    let until = Instant::now() + WATCHED;
    pipeline.set_state(gst::State::Playing).unwrap();
    std::thread::sleep(until.saturating_duration_since(Instant::now()));
    let stats = pipeline.by_name("infer").unwrap().property("stats");
    pipeline.set_state(gst::State::Null).unwrap();
    stats
}

fn masks(stats: &gst::Structure) -> u64 {
    stats.get("clips-run").unwrap()
}

#[test]
fn masks_come_beside_busy_programs_of_the_same_niceness() {
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    init();
    let busy = Busy::start(0, false);
    let stats = watched("low");
    drop(busy);
    // 90 where nothing else runs; other tests' machines have more to do.
    assert!(masks(&stats) >= 50, "{stats}");
}

#[test]
fn a_model_kept_from_the_processor_is_starved_and_not_slow() {
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    init();
    let busy = Busy::start(0, false);
    let stats = watched("idle");
    drop(busy);
    assert_eq!(stats.get("starved"), Ok(true), "{stats}");
    assert!(stats.get::<f64>("processor-share").unwrap() < 0.3, "{stats}");
}

#[test]
#[ignore = "a measurement that needs an idle machine"]
fn masks_have_their_floor() {
    let _machine = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    init();
    let slices = std::env::var("MASAM_SLICES").unwrap_or_else(|_| "as they are set".into());
    println!("new masks in 9 s of 270 frames, and the share of the processor time wanted; slices: {slices}");
    println!("{:>14}{:>14}{:>14}{:>14}", "alone", "nice 0", "nice 19", "setsid");
    let mut misses = Vec::new();
    for round in 0..ROUNDS {
        let beside = [None, Some((0, false)), Some((19, false)), Some((0, true))];
        let [alone, nice_0, nice_19, apart] = beside.map(|busy| {
            let busy = busy.map(|(niceness, apart)| Busy::start(niceness, apart));
            let stats = watched("low");
            drop(busy);
            let share: f64 = stats.get("processor-share").unwrap_or(f64::NAN);
            print!("{:>8}{share:>6.2}", masks(&stats));
            masks(&stats)
        });
        println!();
        for (what, is_met) in [
            ("a third beside loops", nice_0 >= 90),
            ("three quarters beside nice loops", 4 * nice_19 >= 3 * alone),
            ("80 beside loops of another session", apart >= 80),
        ] {
            if !is_met {
                misses.push(format!("round {round}: {what}"));
            }
        }
    }
    assert!(misses.is_empty(), "{misses:?}");
}
