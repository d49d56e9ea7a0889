//! What the program logs of a run: JSON and nothing else on standard error, with the parts of a run's story in fields.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/demo.safetensors");

fn masam(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_masam"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("MASAM_LOG")
        .env_remove("GST_DEBUG")
        .envs(variables.iter().copied())
        .output()
        .unwrap()
}

/// The lines, each of which is a JSON object.
fn events(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stderr);
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(parse).collect()
}

/// The fields of the event with that message.
fn event<'a>(events: &'a [Value], message: &str) -> &'a Value {
    let found = events.iter().find(|event| event["fields"]["message"] == message);
    &found.unwrap_or_else(|| panic!("no event {message}: {events:#?}"))["fields"]
}

#[test]
fn a_run_tells_its_story_in_named_fields() {
    let folder = tempfile::tempdir().unwrap();
    let source = "videotestsrc num-buffers=6 ! video/x-raw,format=NV12,width=320,height=240,framerate=25/1";
    let run = [
        "run",
        source,
        "-o",
        "out.mkv",
        "--model",
        MODEL,
        "--threads",
        "2",
        "--log-json",
    ];
    let output = masam(folder.path(), &run, &[]);
    assert!(output.status.success(), "{output:?}");
    let events = events(&output);
    for event in &events {
        for key in ["timestamp", "level", "target", "fields"] {
            assert!(!event[key].is_null(), "{key}: {event}");
        }
    }
    let start = event(&events, "start");
    assert_eq!(start["version"], env!("CARGO_PKG_VERSION"));
    assert!(
        start["command"].as_str().unwrap().contains("-o out.mkv"),
        "{start}"
    );
    let sum = Command::new("sha256sum").arg(MODEL).output().unwrap();
    let model = event(&events, "model");
    let sha256 = model["sha256"].as_str().unwrap();
    assert!(
        String::from_utf8_lossy(&sum.stdout).starts_with(sha256) && sha256.len() == 64,
        "{model}"
    );
    let device = event(&events, "device");
    assert!(
        !device["device"].as_str().unwrap().is_empty() && device["threads"] == 2,
        "{device}"
    );
    let input = event(&events, "input");
    assert_eq!(
        (&input["width"], &input["height"]),
        (&320.into(), &240.into()),
        "{input}"
    );
    assert_eq!(
        (&input["format"], &input["frame_rate"]),
        (&"NV12".into(), &"25/1".into()),
        "{input}"
    );
    let written = event(&events, "written");
    assert_eq!(
        (&written["frames_in"], &written["frames_out"]),
        (&6.into(), &6.into()),
        "{written}"
    );
    let bytes = std::fs::metadata(folder.path().join("out.mkv")).unwrap().len();
    assert_eq!(
        (&written["bytes"], &written["kept"]),
        (&bytes.into(), &true.into()),
        "{written}"
    );
    let end = event(&events, "end");
    assert!(
        end["success"] == true && end["seconds"].as_f64().unwrap() > 0.0,
        "{end}"
    );
    let order = ["start", "model", "device", "input", "written", "end"];
    let places = order.map(|message| {
        events
            .iter()
            .position(|e| e["fields"]["message"] == message)
            .unwrap()
    });
    assert!(places.is_sorted(), "{places:?}");
}

#[test]
fn what_went_wrong_is_the_end_s_reason() {
    let folder = tempfile::tempdir().unwrap();
    let output = masam(folder.path(), &["run", "absent.mp4", "--log-json"], &[]);
    assert_eq!(output.status.code(), Some(1));
    let events = events(&output);
    let end = events.last().unwrap();
    assert_eq!(
        (&end["level"], &end["fields"]["success"]),
        (&"ERROR".into(), &false.into()),
        "{end}"
    );
    assert!(
        end["fields"]["reason"].as_str().unwrap().contains("absent.mp4"),
        "{end}"
    );
}

#[test]
fn libraries_that_print_do_not_break_the_lines() {
    let folder = tempfile::tempdir().unwrap();
    let source = "videotestsrc num-buffers=2 ! video/x-raw,width=64,height=64";
    let run = ["run", source, "-o", "out.mkv", "--model", MODEL, "--log-json"];
    let output = masam(
        folder.path(),
        &run,
        &[("GST_DEBUG", "masaminfer:5"), ("G_MESSAGES_DEBUG", "all")],
    );
    assert!(output.status.success(), "{output:?}");
    let events = events(&output);
    let from_gstreamer = events.iter().find(|event| event["target"] == "gstreamer");
    let fields = &from_gstreamer.expect("GST_DEBUG was set")["fields"];
    assert_eq!(fields["category"], "masaminfer", "{fields}");
    assert!(
        !fields["message"].as_str().unwrap().is_empty() && fields["line"].is_number(),
        "{fields}"
    );
}

#[test]
fn levels_are_chosen_by_option_and_by_variable() {
    let folder = tempfile::tempdir().unwrap();
    let source = "videotestsrc num-buffers=2 ! video/x-raw,width=64,height=64";
    let run = |options: &[&str], variables: &[(&str, &str)]| {
        let run = ["run", source, "-o", "out.mkv", "--model", MODEL];
        let output = masam(folder.path(), &[&run, options].concat(), variables);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let quiet = run(&[], &[]);
    assert!(
        !quiet.contains("sha256") && quiet.contains("2 frames in"),
        "{quiet}"
    );
    let informed = run(&["--log-level", "info"], &[]);
    assert!(
        informed.contains("sha256=") && !informed.contains("gstreamer"),
        "{informed}"
    );
    let detailed = run(&[], &[("MASAM_LOG", "debug")]);
    assert!(
        detailed.contains("sha256=") && detailed.contains("category=\"masam"),
        "{detailed}"
    );
    let wrong = run(&[], &[("MASAM_LOG", "masam=loud")]);
    assert!(wrong.contains("invalid MASAM_LOG"), "{wrong}");
}
