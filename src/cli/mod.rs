//! The `masam` program: one file per subcommand.

/// Prints a line on standard error. That its reader has gone ends nothing: a recording least of all.
macro_rules! say {
    ($($line:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), $($line)*);
    }};
}

mod against;
mod bench;
mod card;
mod convert;
mod data;
mod demo_model;
mod doctor;
pub mod eval;
mod fit;
mod host_time;
mod inspect;
mod latency;
mod log;
mod manual;
mod memory;
mod phantom;
mod recording;
mod run;
mod selftest;
mod train;
mod video;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;

/// MA-SAM for endoscope video. Research software, not a medical device.
#[derive(Debug, Parser)]
#[command(name = "masam", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Log from this level on; warn by default, info with --log-json. MASAM_LOG sets it for single parts of the program,
    /// for example MASAM_LOG=warn,masam::train=debug.
    #[arg(long, global = true, value_enum, value_name = "LEVEL")]
    log_level: Option<log::Level>,
    /// Print everything on standard error as JSON, one object a line.
    #[arg(long, global = true)]
    log_json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Lay masks over a video.
    Run(run::Run),
    /// Make a model file from SAM and MA-SAM checkpoints, or checkpoints from a model file.
    Convert(convert::Convert),
    /// Show what a model file holds.
    Inspect(inspect::Inspect),
    /// Compare this build with reference tensors.
    Selftest(selftest::Selftest),
    /// Score a model on labelled sequences.
    Eval(eval::Eval),
    /// Time the model.
    Bench(bench::Bench),
    /// Measure what our elements cost a live video, and the true age of the masks shown.
    Latency(latency::Latency),
    /// Train a model.
    Train(train::Train),
    /// Make endoscopic scenes with exact labels.
    Phantom(phantom::Args),
    /// Look at data sets: what they hold and what is odd about them.
    Data(data::Data),
    /// Say what this machine has, what is missing, and the cure.
    Doctor(doctor::Doctor),
    /// Print completions for a shell.
    Completions(manual::Completions),
    /// Write manual pages.
    Man(manual::Man),
}

/// Parses the command line, runs it and turns an error into a message and exit code 1.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let (json, begun) = (arguments.log_json, std::time::Instant::now());
    let log = log::Log::begin(json, arguments.log_level);
    let words: Vec<_> = std::env::args_os()
        .skip(1)
        .map(|word| word.to_string_lossy().into_owned())
        .collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        build = crate::BUILD,
        command = words.join(" "),
        process = std::process::id(),
        "start"
    );
    if !matches!(arguments.command, Command::Run(_) | Command::Train(_)) {
        // `masam inspect … | head` ends quietly, like other programs; a run goes on until its file is finished.
        sigpipe::reset();
    }
    let executes = match &arguments.command {
        Command::Run(_) => true,
        Command::Bench(command) => command.executes(),
        _ => false,
    };
    if executes {
        memory::give_back_what_is_freed();
    }
    let result = match arguments.command {
        Command::Run(command) => command.run(),
        Command::Convert(command) => command.run(),
        Command::Inspect(command) => command.run(),
        Command::Selftest(command) => command.run(),
        Command::Eval(command) => command.run(),
        Command::Bench(command) => command.run(),
        Command::Latency(command) => command.run(),
        Command::Train(command) => command.run(),
        Command::Phantom(command) => run_phantom(&command),
        Command::Data(command) => command.run(),
        Command::Doctor(command) => command.run(),
        Command::Completions(command) => command.run(Arguments::command()),
        Command::Man(command) => command.run(Arguments::command()),
    };
    let seconds = begun.elapsed().as_secs_f64();
    let code = match result {
        Ok(code) => {
            tracing::info!(seconds, success = code == ExitCode::SUCCESS, "end");
            code
        }
        Err(error) => {
            let reason = format!("{error:#}");
            if json {
                tracing::error!(seconds, success = false, reason, "end");
            } else {
                tracing::info!(seconds, success = false, reason, "end");
                eprintln!("masam: {reason}");
            }
            ExitCode::FAILURE
        }
    };
    log.end();
    code
}

/// `masam phantom`, with the video encoder that its `--video` needs.
fn run_phantom(arguments: &phantom::Args) -> anyhow::Result<ExitCode> {
    let video = |path: &std::path::Path, sequence: &crate::data::phantom::Sequence| {
        let frames = (0..sequence.frames()).map(|index| sequence.render(index).rgb);
        video::write(path, arguments.size, arguments.fps, frames)
    };
    phantom::run(arguments, Some(&video))?;
    Ok(ExitCode::SUCCESS)
}
