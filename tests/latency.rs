//! `masam latency`: what it measures is there, and masks are as old as they say.

use serde_json::Value;
use std::process::{Command, Output};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");

fn latency(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_masam"))
        .arg("latency")
        .args(arguments)
        .output()
        .unwrap()
}

fn json(output: &Output) -> Value {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{error}");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn delay_and_true_age_are_measured_with_and_without_the_elements() {
    // A machine at work may take longer than half a second for a clip; its masks are to be shown here all the same.
    let description = format!(
        "videotestsrc is-live=true ! video/x-raw,format=NV12,width=640,height=360,framerate=20/1 ! queue \
         ! masaminfer model={MODEL} max-mask-age=60000000000 threads=2 \
         ! masamoverlay expire-after=60000000000 ! videoconvert ! video/x-raw,format=RGBA ! fakesink sync=true"
    );
    let found = json(&latency(&[
        "--pipeline",
        &description,
        "--seconds",
        "4",
        "--pairs",
        "2",
        "--json",
    ]));
    for side in ["without", "with"] {
        let frames = found[side]["frames"].as_u64().unwrap();
        assert!((20..=100).contains(&frames), "{found}");
        assert_eq!(found[side]["frames_unread"], 0, "{found}");
        let delay = &found[side]["delay_ms"];
        let at = |name: &str| delay[name].as_f64().unwrap();
        assert!(at("p50") <= at("p95") && at("p95") <= at("p99") && at("p99") <= at("max"));
        let bars = found[side]["histogram"].as_array().unwrap();
        assert_eq!(bars.iter().filter_map(Value::as_u64).sum::<u64>(), frames);
    }
    assert_eq!(found["pairs"], 2);
    let masks = &found["masks"];
    assert!(masks["frames"].as_u64().unwrap() > 0, "{found}");
    assert_eq!(
        masks["unread"], 0,
        "every mask says which frame it is of: {found}"
    );
    // The claim rests on timestamps, the truth on when the picture was made: they differ by the source's own jitter.
    let bounds = masks["claimed_minus_true_ms"].as_array().unwrap();
    assert!(
        bounds.iter().all(|ms| ms.as_f64().unwrap().abs() < 1000.0),
        "{found}"
    );
    assert!(found["forward_ms"]["p50"].as_f64().unwrap() > 0.0);
}

/// Where nothing in the pipeline says the format, ours do, with them and without them.
#[test]
fn a_format_that_nobody_asks_for_is_that_of_the_elements() {
    let description = format!(
        "videotestsrc is-live=true ! videoconvert ! video/x-raw,width=640,height=360,framerate=20/1 \
         ! masaminfer model={MODEL} threads=1 ! masamoverlay ! videoconvert ! fakesink sync=true"
    );
    let found = json(&latency(&[
        "--pipeline",
        &description,
        "--seconds",
        "2",
        "--pairs",
        "1",
        "--json",
    ]));
    for side in ["without", "with"] {
        assert!(found[side]["frames"].as_u64().unwrap() > 0, "{found}");
        assert_eq!(found[side]["frames_unread"], 0, "{found}");
    }
}

#[test]
fn what_cannot_be_measured_is_an_error() {
    for (arguments, cause) in [
        (vec!["--pipeline", "videotestsrc ! fakesink"], "no masaminfer"),
        (vec!["--size", "64x64"], "at least 256x144"),
        (vec!["--seconds", "0"], "1 to 86400"),
        (vec!["--model", "absent.safetensors"], "absent.safetensors"),
        (
            vec![
                "--pipeline",
                "videotestsrc is-live=true ! video/x-raw,format=RGB,width=320,height=240 ! masaminfer ! fakesink",
            ],
            "model",
        ),
    ] {
        let output = latency(&arguments);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && error.contains(cause),
            "{arguments:?}: {error}"
        );
    }
}
