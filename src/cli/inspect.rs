//! `masam inspect`: what a model file or a checkpoint holds.

use crate::checkpoint::model_file::is_model_file;
use crate::checkpoint::{CardFile, Checkpoint, ModelFile, Selection};
// What a file says of itself is text of anyone.
use crate::error::name as shown;
use crate::model::Part;
use anyhow::Result;
use clap::Args;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

/// Show what a model file holds, or what a checkpoint of other software is and which command takes it.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The model file or checkpoint.
    model: PathBuf,
    /// Print the model card, or what the checkpoint is, as JSON instead.
    #[arg(long)]
    json: bool,
}

impl Inspect {
    pub(super) fn run(self) -> Result<ExitCode> {
        let checkpoint = Checkpoint::open(&self.model, &Selection::Usual)?;
        if !is_model_file(&checkpoint) {
            return self.checkpoint(&checkpoint);
        }
        let file = ModelFile::read(&self.model)?;
        let card = &file.card;
        if self.json {
            println!("{}", serde_json::to_string_pretty(card)?);
            return Ok(ExitCode::SUCCESS);
        }
        println!("{}: checked, complete, finite", self.model.display());
        println!("\nmodel");
        if let serde_json::Value::Object(fields) = serde_json::to_value(&card.model)? {
            for (name, value) in fields {
                println!("  {name:20} {}", shown(value.to_string().trim_matches('"')));
            }
        }
        println!("\nclasses");
        for (id, class) in card.classes.iter().enumerate() {
            let [red, green, blue] = class.color;
            println!(
                "  {id:3} {:22} #{red:02x}{green:02x}{blue:02x}",
                shown(&class.name)
            );
        }
        println!("\nparameters");
        let mut parts: BTreeMap<Part, usize> = BTreeMap::new();
        for spec in card.model.weights() {
            *parts.entry(Part::of(&spec.name)).or_default() += spec.count();
        }
        let total: usize = parts.values().sum();
        for (part, count) in &parts {
            let share = 100.0 * *count as f64 / total as f64;
            println!("  {:20} {count:>12} {share:5.1} %", part.to_string());
        }
        println!("  {:20} {total:>12}", "all");
        let stored: usize = file
            .weights
            .iter()
            .map(|(_, t)| t.elem_count() * t.dtype().size_in_bytes())
            .sum();
        println!("\nmemory");
        println!("  {:20} {:>9.1} MB", "weights in the file", stored as f64 / 1e6);
        println!("  {:20} {:>9.1} MB", "weights in f32", total as f64 * 4.0 / 1e6);
        let operations = card.model.operations(5, 5).total() / 1e9;
        println!("  {:20} {operations:>9.1} GFLOP", "a clip of 5 frames");
        println!(
            "\npreprocessing\n  {}",
            serde_json::to_string(&card.preprocessing)?
        );
        println!("\nprovenance");
        let provenance = &card.provenance;
        println!(
            "  {:20} {}",
            "trained",
            if provenance.trained {
                "yes"
            } else {
                "NO: its masks mean nothing"
            }
        );
        for source in &provenance.sources {
            println!(
                "  {:20} {} {}",
                "source",
                shown(&source.file),
                shown(&source.sha256)
            );
        }
        let optional = [
            ("data", provenance.data.clone()),
            ("seed", provenance.seed.map(|s| s.to_string())),
            ("date", provenance.date.clone()),
            ("commit", provenance.commit.clone()),
        ];
        for (name, value) in optional {
            println!("  {name:20} {}", shown(value.as_deref().unwrap_or("unknown")));
        }
        for (name, score) in &card.scores {
            println!("  score {:14} {score:.4}", shown(name));
        }
        Ok(ExitCode::SUCCESS)
    }
    /// Shows a checkpoint of other software.
    fn checkpoint(&self, checkpoint: &Checkpoint) -> Result<ExitCode> {
        let file = self.model.file_name().unwrap_or_default().to_string_lossy();
        let cure = checkpoint.kind().cure().replace("FILE", &file);
        let card = Some(CardFile::beside(&self.model)).filter(|path| path.exists());
        let others: Vec<String> = checkpoint.others().iter().map(ToString::to_string).collect();
        if self.json {
            let value = serde_json::json!({
                "kind": checkpoint.kind().to_string(),
                "tensors": checkpoint.len(),
                "key": checkpoint.taken(),
                "other_state_dicts": others,
                "card": card,
                "use": cure,
            });
            println!("{}", serde_json::to_string_pretty(&value)?);
            return Ok(ExitCode::SUCCESS);
        }
        println!("{}: {}", self.model.display(), checkpoint.kind());
        let line = |name: &str, text: &str| println!("  {name:20} {}", shown(text));
        line("tensors", &checkpoint.len().to_string());
        if let Some(key) = checkpoint.taken() {
            line("under", key);
        }
        for other in &others {
            line("beside", other);
        }
        for name in checkpoint.names().take(3) {
            let shape = checkpoint.shape(name).unwrap_or_default();
            line("holds", &format!("{name} {shape:?}"));
        }
        if let Some(card) = card {
            line("card", &card.display().to_string());
        }
        line("use", &cure);
        Ok(ExitCode::SUCCESS)
    }
}
