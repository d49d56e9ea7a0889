//! The numbers of an evaluation: as JSON, and as tables on a terminal.

use super::evaluation::SequenceScores;
use crate::data::LabelReport;
use crate::labels::ClassSet;
use crate::metrics::{Convention, ENDOVIS_2018_TEST, FlickerCounts, FrameCounts, Scores};
use crate::segmenter::{Resize, SegmenterSpec};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::path::PathBuf;

/// What was evaluated on what, in words and numbers.
#[derive(Debug, Clone)]
pub(super) struct Report {
    pub model: PathBuf,
    pub data: PathBuf,
    /// For example `EndoVis 2018`.
    pub kind: String,
    pub split: String,
    pub emit: String,
    pub frame_stride: usize,
    pub limit: Option<usize>,
    /// Labels that are corrected ones.
    pub repaired: usize,
    /// What the labels were read as, and how much of them was unknown.
    pub labels: LabelReport,
    pub spec: SegmenterSpec,
    /// The split is the challenge's released test set, whole: the published rows compare.
    pub is_challenge_test: bool,
    pub sequences: Vec<SequenceScores>,
}

impl Report {
    pub fn classes(&self) -> &ClassSet {
        &self.spec.classes
    }

    /// The scores of all sequences together.
    pub fn overall(&self, convention: Convention) -> Scores {
        let all: Vec<&[FrameCounts]> = self.sequences.iter().map(|s| s.counts(convention)).collect();
        convention.score(&all, self.classes().len())
    }

    /// The scores of one sequence alone.
    pub fn of(&self, sequence: &SequenceScores, convention: Convention) -> Scores {
        convention.score(&[sequence.counts(convention)], self.classes().len())
    }

    pub fn flicker(&self) -> FlickerCounts {
        let mut all = FlickerCounts::new(self.classes().len());
        self.sequences
            .iter()
            .for_each(|sequence| all.merge(&sequence.flicker));
        all
    }

    pub fn frames(&self) -> usize {
        self.sequences.iter().map(|s| s.frames).sum()
    }

    pub fn scored(&self) -> usize {
        self.sequences.iter().map(|s| s.scored.len()).sum()
    }

    /// Where each convention is scored, in words.
    pub fn sizes(&self) -> (String, String) {
        let side = self.spec.side_px;
        let places = match self.spec.resize {
            Resize::Reference => "at the sample positions of the frames' resize (corners aligned)",
            Resize::Area => "at pixel centres",
        };
        (
            "the frames' own size; ground truth untouched, predictions enlarged by nearest".into(),
            format!("the model's {side}x{side}; ground truth brought there by nearest, {places}"),
        )
    }

    /// What the numbers rest on, a line each.
    pub fn conditions(&self) -> Vec<String> {
        let (native, side) = self.sizes();
        let mut lines = vec![
            format!(
                "model {} ({}) on {}",
                self.model.display(),
                self.spec.model_id,
                self.spec.device
            ),
            format!(
                "data {} ({}), split {}",
                self.data.display(),
                self.kind,
                self.split
            ),
            format!(
                "{} sequences, {} frames, {} of them with labels ({} corrected ones) and scored",
                self.sequences.len(),
                self.frames(),
                self.scored(),
                self.repaired
            ),
            self.labels.to_string(),
            match self.emit.as_str() {
                "step" => format!(
                    "exact mode, one new frame at a time (emit step), {} states fed in turn",
                    self.frame_stride
                ),
                emit => format!(
                    "exact mode, clips of {} frames, emit {emit}, frame stride {}",
                    self.spec.clip_frames, self.frame_stride
                ),
            },
            format!("scored at {native}"),
            format!("ma-sam alone is scored at {side}"),
        ];
        if self.spec.untrained {
            lines.push("the weights are placeholders: these numbers say nothing about the method".into());
        }
        if let Some(limit) = self.limit {
            lines.push(format!(
                "only the first {limit} frames of each sequence: not comparable with published numbers"
            ));
        }
        lines
    }

    /// Everything as JSON; scores are 0 to 1, null where there is nothing to average.
    pub fn json(&self) -> Value {
        let (native, side) = self.sizes();
        let wide = self.overall(Convention::DatasetWide);
        let flicker = self.flicker();
        let mut dataset = self.scores_json(&wide);
        if let Value::Object(fields) = &mut dataset {
            fields.insert("flicker".into(), json!(flicker.rate()));
            let by_class = |id: usize| json!(flicker.class_rate(id));
            fields.insert("flicker_by_class".into(), self.by_class(by_class));
        }
        let mut conventions = Map::new();
        for convention in Convention::ALL {
            let mut object = self.scores_json(&self.overall(convention));
            let sequences: Map<String, Value> = self
                .sequences
                .iter()
                .map(|s| (s.name.clone(), self.scores_json(&self.of(s, convention))))
                .collect();
            if let Value::Object(fields) = &mut object {
                fields.insert("means".into(), json!(convention.describe()));
                let at = if convention == Convention::MaSam {
                    &side
                } else {
                    &native
                };
                fields.insert("scored_at".into(), json!(at));
                fields.insert("sequences".into(), Value::Object(sequences));
            }
            conventions.insert(convention.name().into(), object);
        }
        let sequences: Vec<Value> = self.sequences.iter().map(|s| self.sequence_json(s)).collect();
        json!({
            "what": "masam eval",
            "version": env!("CARGO_PKG_VERSION"),
            "model": {
                "file": self.model,
                "id": self.spec.model_id,
                "trained": !self.spec.untrained,
                "side_px": self.spec.side_px,
                "device": self.spec.device,
            },
            "data": {
                "folder": self.data,
                "kind": self.kind,
                "split": self.split,
                "frames": self.frames(),
                "scored": self.scored(),
                "repaired": self.repaired,
                "labels": self.labels,
                "limit": self.limit,
            },
            "window": {
                "clip_frames": self.spec.clip_frames,
                "emit": self.emit,
                "frame_stride": self.frame_stride,
            },
            "classes": self.classes().iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
            "dataset": dataset,
            "conventions": conventions,
            "sequences": sequences,
            "published_percent": if self.is_challenge_test { json!(ENDOVIS_2018_TEST) } else { Value::Null },
        })
    }

    fn sequence_json(&self, sequence: &SequenceScores) -> Value {
        let frames = sequence.scored.iter().zip(&sequence.native);
        let frames: Vec<Value> = frames
            .map(|(index, counts)| json!({"frame": index, "iou": counts.mean_iou()}))
            .collect();
        json!({
            "name": sequence.name,
            "frames": sequence.frames,
            "scored": sequence.scored.len(),
            "flicker": sequence.flicker.rate(),
            "challenge-2018_by_frame": frames,
        })
    }

    fn scores_json(&self, scores: &Scores) -> Value {
        let of = |values: &[Option<f64>]| self.by_class(|id| json!(values.get(id).copied().flatten()));
        json!({
            "miou": scores.mean_iou,
            "mdice": scores.mean_dice,
            "iou": of(&scores.class_iou),
            "dice": of(&scores.class_dice),
        })
    }

    fn by_class(&self, value: impl Fn(usize) -> Value) -> Value {
        let names = self.classes().iter().enumerate();
        Value::Object(names.map(|(id, class)| (class.name.clone(), value(id))).collect())
    }

    /// The tables, ready to be printed.
    pub fn tables(&self) -> Vec<Table> {
        let columns: Vec<String> = std::iter::once("all".to_owned())
            .chain(self.sequences.iter().map(|s| s.name.clone()))
            .collect();
        let mut tables = Vec::new();
        for (title, of) in [
            (
                "mean IoU, %",
                (|s: &Scores| s.mean_iou) as fn(&Scores) -> Option<f64>,
            ),
            ("mean Dice, %", |s: &Scores| s.mean_dice),
        ] {
            let rows = Convention::ALL.map(|convention| {
                let sequences = self.sequences.iter().map(|s| of(&self.of(s, convention)));
                let values = std::iter::once(of(&self.overall(convention))).chain(sequences);
                (convention.name().to_owned(), values.collect())
            });
            tables.push(Table::new(title, &columns, rows.to_vec()));
        }
        let steadiness = self.sequences.iter().map(|s| s.flicker.rate());
        let values = std::iter::once(self.flicker().rate()).chain(steadiness).collect();
        let title = "flicker: steady pixels whose class changes between frames, %";
        tables.push(Table::new(title, &columns, vec![("flicker".into(), values)]));
        for (title, of) in [
            (
                "IoU by class, frames summed up (dataset-wide), %",
                (|s: &Scores| &s.class_iou) as fn(&Scores) -> &Vec<Option<f64>>,
            ),
            (
                "Dice by class, frames summed up (dataset-wide), %",
                |s: &Scores| &s.class_dice,
            ),
        ] {
            let all = std::iter::once(self.overall(Convention::DatasetWide));
            let each = self.sequences.iter().map(|s| self.of(s, Convention::DatasetWide));
            let scores: Vec<Scores> = all.chain(each).collect();
            let row = |(id, name): (usize, &str)| {
                let values = scores.iter().map(|s| of(s).get(id).copied().flatten());
                (name.to_owned(), values.collect())
            };
            let names = self.classes().iter().map(|class| class.name.as_str());
            tables.push(Table::new(title, &columns, names.enumerate().map(row).collect()));
        }
        tables.extend(self.is_challenge_test.then(published));
        tables
    }
}

/// The rows that others have published, as a table.
fn published() -> Table {
    let columns = ["all", "1", "2", "3", "4", "Dice"].map(str::to_owned);
    let rows = ENDOVIS_2018_TEST.map(|row| {
        let sequences = row.sequence_iou.into_iter().map(|v| Some(v / 100.0));
        let values = std::iter::once(Some(row.mean_iou / 100.0)).chain(sequences);
        let values = values.chain([row.dice.map(|v| v / 100.0)]);
        (row.method.to_owned(), values.collect())
    });
    let title = "published on this test set, mean IoU, %; how each averaged is for its paper to say";
    Table::new(title, &columns, rows.to_vec())
}

/// Named rows of shares.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub title: String,
    pub columns: Vec<String>,
    pub rows: Vec<(String, Vec<Option<f64>>)>,
}

impl Table {
    fn new(title: &str, columns: &[String], rows: Vec<(String, Vec<Option<f64>>)>) -> Self {
        Self {
            title: title.into(),
            columns: columns.to_vec(),
            rows,
        }
    }

    /// Aligned for a terminal.
    pub fn text(&self) -> String {
        let names = self.rows.iter().map(|(name, _)| name.chars().count()).max();
        let first = names.unwrap_or(0);
        let mut text = format!("{}\n{:first$}", self.title, "");
        let width = |column: &String| column.chars().count().max(5) + 2;
        for column in &self.columns {
            // Writing to a string cannot fail.
            let _ = write!(text, "{column:>0$}", width(column));
        }
        for (name, values) in &self.rows {
            let _ = write!(text, "\n{name:first$}");
            for (value, column) in values.iter().zip(&self.columns) {
                let _ = write!(text, "{:>1$}", percent(*value), width(column));
            }
        }
        text
    }
}

/// A share as percent with one decimal; a dash where there is none.
pub(super) fn percent(share: Option<f64>) -> String {
    share.map_or("-".into(), |share| format!("{:.1}", share * 100.0))
}
