//! The `masam` program: one file per subcommand.

mod against;
mod bench;
mod card;
mod convert;
mod data;
mod demo_model;
mod doctor;
pub mod eval;
mod host_time;
mod inspect;
mod latency;
mod manual;
mod memory;
mod phantom;
mod run;
mod selftest;
mod train;
mod video;

use clap::{CommandFactory, Parser, Subcommand};
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// MA-SAM for endoscope video. Research software, not a medical device.
#[derive(Debug, Parser)]
#[command(name = "masam", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
    /// Print log lines as JSON, one object a line. What is logged is set by MASAM_LOG, for example MASAM_LOG=debug.
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
    let filter = EnvFilter::try_from_env("MASAM_LOG").unwrap_or_else(|_| EnvFilter::new("warn"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if arguments.log_json {
        log.json().init();
    } else {
        log.init();
    }
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
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("masam: {error:#}");
            ExitCode::FAILURE
        }
    }
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
