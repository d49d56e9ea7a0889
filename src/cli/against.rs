//! `masam bench --against-pytorch`: this program and PyTorch in turn, and the ratio of each pair.

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use std::path::Path;
use std::process::Command;

/// PyTorch's statement of the model, so that the comparison needs no clone of the repository.
const ORACLE: &str = include_str!("../../tests/oracle/masam_torch.py");

/// The Python that is asked unless another is named.
pub(super) const PYTHON: &str = "python3";

/// How PyTorch runs the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Variant {
    /// Operation by operation.
    Eager,
    /// With its fused attention.
    Sdpa,
    /// Compiled.
    Compile,
    /// Compiled, with its fused attention.
    CompileSdpa,
}

impl Variant {
    fn arguments(self) -> &'static [&'static str] {
        match self {
            Variant::Eager => &[],
            Variant::Sdpa => &["--sdpa"],
            Variant::Compile => &["--compile"],
            Variant::CompileSdpa => &["--compile", "--sdpa"],
        }
    }
}

/// What is compared.
#[derive(Debug)]
pub(super) struct Comparison<'a> {
    /// Arguments that both sides understand.
    pub(super) common: Vec<String>,
    pub(super) python: &'a Path,
    pub(super) variants: &'a [Variant],
    pub(super) pairs: usize,
    pub(super) runs: usize,
}

impl Comparison<'_> {
    /// Finds PyTorch's fastest variant, then times it and this program in turn. Prints every line that either says, and
    /// the ratios at the end.
    pub(super) fn run(&self) -> Result<()> {
        if self.pairs == 0 || self.variants.is_empty() {
            bail!("--pairs has to be at least 1, and --variants to name one");
        }
        self.find_torch()?;
        let folder = std::env::temp_dir().join(format!("masam-against-{}", std::process::id()));
        std::fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
        let script = folder.join("masam_torch.py");
        std::fs::write(&script, ORACLE).with_context(|| script.display().to_string())?;
        let compared = self.compare(&script);
        std::fs::remove_dir_all(&folder).ok();
        compared
    }

    fn compare(&self, script: &Path) -> Result<()> {
        let mut best: Option<(Variant, f64)> = None;
        for &variant in self.variants {
            match self.theirs(script, variant, 1) {
                Ok(seconds) if best.is_none_or(|(_, least)| seconds < least) => {
                    best = Some((variant, seconds))
                }
                Ok(_) => {}
                // Not every variant runs everywhere: a compiler may be missing.
                Err(error) => println!("# {variant:?} does not run: {error:#}"),
            }
        }
        let Some((variant, _)) = best else {
            bail!("PyTorch ran in none of {:?}", self.variants);
        };
        println!("# PyTorch is fastest as {variant:?}; {} pairs", self.pairs);
        let mut ratios = Vec::with_capacity(self.pairs);
        for _ in 0..self.pairs {
            let (own, theirs) = (self.own()?, self.theirs(script, variant, self.runs)?);
            println!(
                "# PyTorch {theirs:.4} s, masam {own:.4} s: {:.3} times",
                theirs / own
            );
            ratios.push(theirs / own);
        }
        ratios.sort_by(f64::total_cmp);
        let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
        let median = ratios[ratios.len() / 2];
        println!(
            "# median of {} pairs: {median:.3} times ({least:.3} to {most:.3})",
            self.pairs
        );
        Ok(())
    }

    fn find_torch(&self) -> Result<()> {
        let asked = Command::new(self.python)
            .args(["-c", "import torch, numpy"])
            .output();
        let output = asked.with_context(|| format!("{} cannot be run", self.python.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let last = said.lines().last().unwrap_or_default().to_owned();
            bail!(
                "{} has no PyTorch ({last}); name another with --python, or `pip install torch numpy`",
                self.python.display()
            );
        }
        Ok(())
    }

    fn own(&self) -> Result<f64> {
        let program = std::env::current_exe().context("this program's path")?;
        let mut command = Command::new(program);
        command.arg("bench").args(&self.common);
        command.args(["--runs", &self.runs.to_string(), "--warmup", "1"]);
        seconds_of(command)
    }

    fn theirs(&self, script: &Path, variant: Variant, runs: usize) -> Result<f64> {
        let mut command = Command::new(self.python);
        command
            .arg(script)
            .arg("bench")
            .args(&self.common)
            .args(variant.arguments());
        command.args(["--runs", &runs.to_string(), "--warmup", "1"]);
        seconds_of(command)
    }
}

/// Runs a benchmark and prints what it says; its last line is JSON with a median.
fn seconds_of(mut command: Command) -> Result<f64> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().last().unwrap_or_default();
    if !output.status.success() {
        let complaint = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{}",
            complaint.lines().last().unwrap_or("it failed without a word")
        );
    }
    println!("{line}");
    let report: serde_json::Value = serde_json::from_str(line).context("its last line is no JSON")?;
    report["median_s"].as_f64().context("its report has no median_s")
}
