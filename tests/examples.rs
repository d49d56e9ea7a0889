//! Every example and every command of the documents is run as it is written there, so that neither can drift from
//! the other. What a user has and a test has not gets a stand-in: videos, pictures, checkpoints and a window.

mod documents;

use documents::{Change, Scratch, commands_of};
use std::path::Path;

const FRAMES: usize = 6;

/// Placeholders of the user's own things, and what the test has in their place.
const STAND_INS: &[Change] = &[
    Change {
        from: "autovideosink",
        to: "fakesink",
        why: "there is no screen",
    },
    Change {
        from: "--config vit_b",
        to: "--config tiny --runs 1 --warmup 0",
        why: "seconds instead of minutes; the options are the same",
    },
    Change {
        from: "make demo",
        to: "make demo CARGO=true FRAMES=2",
        why: "everything is built already, and a short scene will do",
    },
    Change {
        from: "make plugin",
        to: "make plugin CARGO=true && test -f target/release/libmasam.so",
        why: "it is built already",
    },
    Change {
        from: "make cuda",
        to: "make --dry-run cuda",
        why: "minutes; `make test` builds it besides",
    },
    Change {
        from: "make test",
        to: "make --dry-run test",
        why: "it is what runs this",
    },
    Change {
        from: " … ",
        to: " frame2.png frame3.png frame4.png ",
        why: "a shell knows no ellipsis",
    },
];

#[test]
fn the_commands_of_the_documents_run() {
    let mut used = vec![0; STAND_INS.len()];
    for (document, least) in [
        ("README.md", 8),
        ("pipelines/README.md", 2),
        ("weights/README.md", 3),
    ] {
        let scratch = Scratch::new(FRAMES);
        let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
        let commands = commands_of(&text);
        assert!(commands.len() >= least, "{document}: {commands:?}");
        let mut script = String::from("set -eu\n");
        for command in &commands {
            let mut line = command.clone();
            for (change, used) in STAND_INS.iter().zip(&mut used) {
                if line.contains(change.from) {
                    println!(
                        "{document}: {:?} is {:?} here: {}",
                        change.from, change.to, change.why
                    );
                    line = line.replace(change.from, change.to);
                    *used += 1;
                }
            }
            script.push_str(&format!("echo '--- '{}\n{line}\n", quoted(&line)));
        }
        let output = scratch.shell(&script);
        assert!(output.success, "{document}:\n{script}\n{}", output.text);
        if document == "README.md" {
            for made in [
                "demo/overlay.mp4",
                "demo/contact-sheet.png",
                "overlay.mp4",
                "one-object.mp4",
            ] {
                let bytes = std::fs::metadata(scratch.path(made)).map_or(0, |m| m.len());
                assert!(bytes > 1000, "{made}: {bytes} bytes\n{}", output.text);
            }
            assert_eq!(scratch.frames_of("overlay.mp4"), FRAMES);
            assert_eq!(scratch.frames_of("demo/overlay.mp4"), 2);
        }
    }
    for (change, used) in STAND_INS.iter().zip(&used) {
        // The ellipsis is the examples'.
        assert!(
            *used > 0 || change.from == " … ",
            "no document says {:?} any more",
            change.from
        );
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// What an example has printed and written.
fn check(name: &str, scratch: &Scratch, printed: &str) {
    let lines = printed.lines().filter(|line| !line.is_empty()).count();
    match name {
        "mask_sink.rs" => {
            assert_eq!(lines, FRAMES, "{printed}");
            assert!(printed.contains(" ms  ") && printed.contains(" %"), "{printed}");
        }
        "read_masks.py" => {
            assert_eq!(lines, FRAMES, "{printed}");
            assert!(
                printed.starts_with("frame 0: 256 x 256, class ids ["),
                "{printed}"
            );
        }
        "video_masks.rs" => {
            assert_eq!(lines, FRAMES, "{printed}");
            let first = printed.lines().next().unwrap_or_default();
            assert!(
                first.starts_with("frame     0  ") && first.contains(" %"),
                "{printed}"
            );
        }
        "offline_video.rs" => assert_eq!(scratch.frames_of("overlay.mkv"), FRAMES, "{printed}"),
        "one_clip.rs" => {
            let mask = image::open(scratch.path("mask.png")).unwrap().to_rgb8();
            assert_eq!(mask.dimensions(), (320, 240), "as large as its frame: {printed}");
            let palette = masam::labels::ClassSet::endovis_2018();
            let known = |p: &image::Rgb<u8>| (0..12).any(|id| palette.get(id).unwrap().color == p.0);
            assert!(mask.pixels().all(known), "class colours and nothing else");
        }
        _ => panic!("{name}: nobody has said what it should do; add it here"),
    }
}

#[test]
fn every_example_runs_as_its_header_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    let mut names: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 4, "{names:?}");
    for name in names {
        let text = std::fs::read_to_string(folder.join(&name)).unwrap();
        let command = match name.strip_suffix(".rs") {
            Some(stem) => {
                let header: Vec<&str> = text
                    .lines()
                    .map_while(|l| l.strip_prefix("//!"))
                    .map(str::trim_start)
                    .collect();
                let commands = commands_of(&header.join("\n"));
                let [command] = &commands[..] else {
                    panic!("{name}: one command, not {commands:?}")
                };
                let built = format!("target/release/examples/{stem}");
                let through_cargo = format!("cargo run --release --example {stem} --");
                assert!(command.contains(&through_cargo), "{name}: {command}");
                command.replace(&through_cargo, &built)
            }
            None => {
                let command = text
                    .lines()
                    .map(str::trim)
                    .find(|line| line.contains(&format!("examples/{name}")));
                command
                    .unwrap_or_else(|| panic!("{name}: no line says how to run it"))
                    .to_owned()
            }
        };
        let command = STAND_INS
            .iter()
            .fold(command, |line, change| line.replace(change.from, change.to));
        let scratch = Scratch::new(FRAMES);
        let output = scratch.shell(&command);
        assert!(output.success, "{name}: {command}\n{}", output.text);
        check(&name, &scratch, &output.printed);
    }
}
