//! `masam completions` and `masam man`: what a package installs beside the program.

use anyhow::Result;
use clap::{Args, Command};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Print completions for a shell.
#[derive(Debug, Args)]
pub struct Completions {
    /// bash, zsh, fish, elvish or powershell.
    shell: clap_complete::Shell,
}

impl Completions {
    pub(super) fn run(self, mut program: Command) -> Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut program, "masam", &mut script);
        std::io::stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// Write manual pages, masam.1 and one for each subcommand.
#[derive(Debug, Args)]
pub struct Man {
    /// Folder to write to.
    #[arg(default_value = ".")]
    folder: PathBuf,
}

impl Man {
    pub(super) fn run(self, program: Command) -> Result<ExitCode> {
        std::fs::create_dir_all(&self.folder)?;
        clap_mangen::generate_to(program, &self.folder)?;
        Ok(ExitCode::SUCCESS)
    }
}
