//! `masam train` from outside: killed, interrupted and starved of disk, a run goes on as if nothing had happened.

use masam::checkpoint::ModelFile;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const STEPS: u64 = 40;
/// Longest anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(180);

/// A configuration in `folder`; the data are scenes on disk beside it.
fn configure(folder: &Path) -> PathBuf {
    let scenes = folder.join("scenes");
    let made = masam(&[
        "phantom",
        "--out",
        path(&scenes),
        "--sequences",
        "2",
        "--frames",
        "4",
        "--size",
        "96x80",
    ]);
    assert!(made.status.success(), "{made:?}");
    let config = folder.join("run.toml");
    let text = format!(
        "name = 'run'\ntrained = 'full'\npreprocessing = 'live'\n\
         [model]\npreset = 'demo'\nimage_side_px = 64\nencoder_depth = 2\nencoder_width = 96\nadapter_width = 16\n\
         global_blocks = [1]\n\
         [data]\nfolder = 'scenes'\nsplit = 'fold:1/2:train'\nvalidation_split = 'fold:1/2'\n\
         [clips]\nframes = 2\nbatch = 1\nby_class = 0.5\n\
         [schedule]\nsteps = {STEPS}\nwarm_up = 3\n\
         [save]\nevery = 3\nvalidate_every = 10\n"
    );
    std::fs::write(&config, text).unwrap();
    config
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_masam"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn masam(arguments: &[&str]) -> Output {
    command(arguments).output().unwrap()
}

/// Waits until the run in `folder` has noted `steps` steps.
fn wait_for(steps: usize, folder: &Path, run: &mut Child) {
    let began = Instant::now();
    let noted = || std::fs::read_to_string(folder.join("steps.csv")).map_or(0, |text| text.lines().count());
    while noted() < steps + 1 {
        assert!(
            run.try_wait().unwrap().is_none(),
            "it ended with {} steps",
            noted()
        );
        assert!(began.elapsed() < PATIENCE, "{} steps in {PATIENCE:?}", noted());
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn read(folder: &Path, name: &str) -> Vec<u8> {
    std::fs::read(folder.join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Both runs have the same numbers and the same weights, bit for bit.
fn assert_same(one: &Path, other: &Path) {
    for name in ["steps.csv", "validation.csv"] {
        let text = |folder| String::from_utf8(read(folder, name)).unwrap();
        assert_eq!(text(one), text(other), "{name}");
    }
    for name in ["model.safetensors", "best.safetensors"] {
        let (one, other) = (
            ModelFile::read(&one.join(name)),
            ModelFile::read(&other.join(name)),
        );
        let (one, other) = (one.unwrap(), other.unwrap());
        assert_eq!(one.card.scores, other.card.scores, "{name}");
        let values = |x: &candle_core::Tensor| {
            let x = x.to_dtype(candle_core::DType::F32).unwrap();
            x.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        for (weight, x) in one.weights.iter() {
            assert_eq!(
                values(x),
                values(other.weights.get(weight).unwrap()),
                "{name}: {weight}"
            );
        }
    }
}

#[test]
fn a_run_outlives_kill_interruption_and_a_full_disk() {
    let folder = tempfile::tempdir().unwrap();
    let config = configure(folder.path());
    let [whole, killed] = ["whole", "killed"].map(|name| folder.path().join(name));

    let ended = masam(&["train", path(&config), "-o", path(&whole)]);
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!(
        String::from_utf8(read(&whole, "steps.csv"))
            .unwrap()
            .lines()
            .count() as u64,
        1 + STEPS
    );
    assert!(
        String::from_utf8(read(&whole, "curves.html"))
            .unwrap()
            .contains("<svg")
    );

    // kill -9 somewhere after the second state.
    let mut run = command(&["train", path(&config), "-o", path(&killed)])
        .spawn()
        .unwrap();
    wait_for(8, &killed, &mut run);
    run.kill().unwrap();
    assert_eq!(
        run.wait().unwrap().signal(),
        Some(9),
        "it ended before it was killed"
    );
    assert!(!killed.join("model.safetensors").exists());
    // Without --resume nothing is overwritten.
    let refused = masam(&["train", path(&config), "-o", path(&killed)]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(1) && said.contains("--resume"),
        "{said}"
    );

    // What a kill within a save leaves goes with the next run; what only looks like it stays.
    let half = killed.join("state.safetensors.4294.part");
    let own = killed.join("notes.part");
    std::fs::write(&half, "half").unwrap();
    std::fs::write(&own, "mine").unwrap();

    // Ctrl-C, or a supervisor's wish: the state is saved, and the exit is a good one, also where nobody reads.
    for (signal, read_on) in [("-INT", true), ("-TERM", false)] {
        let mut run = command(&["train", path(&config), "-o", path(&killed), "--resume"])
            .spawn()
            .unwrap();
        if !read_on {
            drop(run.stderr.take());
        }
        // Lines the run before left may still be there: only later ones are this run's.
        let left = String::from_utf8(read(&killed, "steps.csv"))
            .unwrap()
            .lines()
            .count();
        wait_for(left + 2, &killed, &mut run);
        let sent = Command::new("kill")
            .args([signal, &run.id().to_string()])
            .status()
            .unwrap();
        assert!(sent.success());
        let ended = run.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&ended.stdout).into_owned();
        assert!(
            ended.status.success() && said.contains("go on with --resume"),
            "{signal}: {:?} {said}",
            ended.status
        );
    }
    ModelFile::read(&killed.join("model.safetensors")).unwrap();
    assert!(!half.exists() && own.exists());
    std::fs::remove_file(&own).unwrap();

    // Files of at most 64 KiB are room for the log, but for no state.
    let state = read(&killed, "state.safetensors");
    let script = "trap '' XFSZ; ulimit -f 128; exec \"$@\"";
    let program = env!("CARGO_BIN_EXE_masam");
    let starved = Command::new("sh")
        .args([
            "-c",
            script,
            "sh",
            program,
            "train",
            path(&config),
            "-o",
            path(&killed),
            "--resume",
        ])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&starved.stderr).into_owned();
    assert_eq!(starved.status.code(), Some(1), "{said}");
    assert!(
        said.contains("state.safetensors") && said.contains("too large"),
        "{said}"
    );
    assert_eq!(
        read(&killed, "state.safetensors"),
        state,
        "the last good state stays as it was"
    );
    assert!(
        said.contains("state is not saved"),
        "a periodic save that fails does not end the run: {said}"
    );
    let names = std::fs::read_dir(&killed)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap());
    let parts: Vec<String> = names.filter(|name| name.ends_with(".part")).collect();
    assert_eq!(parts, Vec::<String>::new(), "nothing half written is left");

    let ended = masam(&["train", path(&config), "-o", path(&killed), "--resume"]);
    assert!(ended.status.success(), "{ended:?}");
    assert_same(&whole, &killed);
    let shown = masam(&["inspect", path(&killed.join("best.safetensors"))]);
    assert!(shown.status.success(), "{shown:?}");
}

#[test]
fn configurations_that_make_no_sense_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = configure(folder.path());
    let text = std::fs::read_to_string(&config).unwrap();
    for (from, to, wanted) in [
        (
            "validation_split = 'fold:1/2'",
            "validation_split = 'all'",
            "is in both",
        ),
        (
            "global_blocks = [1]",
            "global_blocks = [1]\nclasses = 3",
            "the data have 12",
        ),
        ("folder = 'scenes'", "folder = 'nowhere'", "nowhere"),
        ("split = 'fold:1/2:train'", "split = 'some'", "some"),
    ] {
        assert!(text.contains(from), "{from}");
        std::fs::write(&config, text.replacen(from, to, 1)).unwrap();
        let refused = masam(&["train", path(&config), "-o", path(&folder.path().join("run"))]);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(1), "{to}: {said}");
        assert!(
            said.contains(wanted) && !said.contains("panicked"),
            "{to}: {said}"
        );
    }
}
