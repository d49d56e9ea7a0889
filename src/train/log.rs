//! A run's numbers on disk: tables, curves and an event file, as the run goes on.
//!
//! | file | holds |
//! |---|---|
//! | `steps.csv` | a line for each step |
//! | `validation.csv` | a line for each validation: mean IoU, then each class's; empty where a class does not occur |
//! | `curves.html` | both as pictures |
//! | `events.out.tfevents.*` | both for TensorBoard |
//!
//! A run that goes on from step k drops the lines of step k and later, and any line that was cut short.

use super::curves::{Chart, Curve, page};
use super::events::EventFile;
use super::trainer::Step;
use crate::error::{Error, Result};
use crate::labels::ClassSet;
use crate::metrics::Confusion;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

const STEPS_HEAD: &str = "step,loss,cross_entropy,dice,gradient_norm,rate,skipped";

/// The log of a run.
#[derive(Debug)]
pub struct RunLog {
    folder: PathBuf,
    title: String,
    classes: ClassSet,
    steps: Table,
    validations: Table,
    events: EventFile,
}

impl RunLog {
    /// Begins or goes on with the log in `folder`, which has to exist; `first` is the step that comes next.
    ///
    /// # Errors
    /// A file that cannot be read or written.
    pub fn open(folder: &Path, title: &str, classes: &ClassSet, first: u64) -> Result<Self> {
        let names: Vec<String> = classes.iter().map(|class| field(&class.name)).collect();
        let validation_head = format!("step,miou,{}", names.join(","));
        // Steps are counted from 0, validations stand after the steps they count.
        let steps = Table::open(folder.join("steps.csv"), STEPS_HEAD.into(), |step| step < first)?;
        let validations = Table::open(folder.join("validation.csv"), validation_head, |step| {
            step <= first
        })?;
        Ok(Self {
            folder: folder.to_owned(),
            title: title.into(),
            classes: classes.clone(),
            steps,
            validations,
            events: EventFile::create(folder, first, unix_seconds())?,
        })
    }

    /// Notes a step.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn step(&mut self, s: &Step) -> Result<()> {
        let skipped = f64::from(u8::from(s.skipped));
        let values = [s.loss, s.cross_entropy, s.dice, s.gradient_norm, s.rate, skipped];
        self.steps.add(s.step, values.map(Some).to_vec())?;
        let names = [
            "loss/total",
            "loss/cross_entropy",
            "loss/dice",
            "gradient_norm",
            "rate",
            "skipped",
        ];
        self.events
            .scalars(s.step, unix_seconds(), names.into_iter().zip(values))
    }

    /// Notes the scores after `step` steps.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn validation(&mut self, step: u64, confusion: &Confusion) -> Result<()> {
        let each: Vec<Option<f64>> = (0..self.classes.len())
            .map(|class| confusion.iou(class))
            .collect();
        let mean = confusion.mean_iou();
        let names = self.classes.iter().map(|class| format!("iou/{}", class.name));
        let mut scalars: Vec<(String, f64)> = names
            .zip(&each)
            .filter_map(|(name, iou)| Some((name, (*iou)?)))
            .collect();
        scalars.extend(mean.map(|mean| ("validation/miou".into(), mean)));
        let scalars = scalars.iter().map(|(name, value)| (name.as_str(), *value));
        self.events.scalars(step, unix_seconds(), scalars)?;
        self.validations
            .add(step, std::iter::once(mean).chain(each).collect())
    }

    /// Draws `curves.html`.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub fn draw(&self) -> Result<()> {
        let path = self.folder.join("curves.html");
        let html = page(&self.title, &self.charts());
        crate::checkpoint::model_file::replace(&path, html.as_bytes()).map_err(|e| Error::file(&path, e))
    }

    fn charts(&self) -> Vec<Chart> {
        let curve = |table: &Table, column: usize, name: &str, color: [u8; 3]| Curve {
            name: name.into(),
            color,
            points: table.column(column),
        };
        let chart = |title: &str, range, curves| Chart {
            title: title.into(),
            range,
            curves,
        };
        let losses = [
            ("total", [0x33, 0x66, 0xcc]),
            ("cross-entropy", [0xdd, 0x77, 0x22]),
            ("Dice", [0x22, 0x99, 0x55]),
        ];
        let losses = losses.iter().enumerate();
        let each = self.classes.iter().enumerate();
        vec![
            chart(
                "Loss",
                None,
                losses
                    .map(|(i, (name, color))| curve(&self.steps, i, name, *color))
                    .collect(),
            ),
            chart(
                "Mean IoU on the validation data",
                Some([0.0, 1.0]),
                vec![curve(&self.validations, 0, "mean", [0x33, 0x66, 0xcc])],
            ),
            chart(
                "IoU of each class on the validation data",
                Some([0.0, 1.0]),
                each.map(|(i, class)| curve(&self.validations, i + 1, &class.name, class.color))
                    .collect(),
            ),
            chart(
                "Length of the gradient",
                None,
                vec![curve(&self.steps, 3, "before it is shortened", [0x77; 3])],
            ),
            chart(
                "Learning rate",
                None,
                vec![curve(&self.steps, 4, "rate", [0x77; 3])],
            ),
        ]
    }
}

/// A file of lines, a step and numbers each, and the same in memory.
#[derive(Debug)]
struct Table {
    path: PathBuf,
    file: File,
    rows: Vec<(u64, Vec<Option<f64>>)>,
}

impl Table {
    /// Goes on with the lines at `path` whose step `stays`.
    fn open(path: PathBuf, head: String, stays: impl Fn(u64) -> bool) -> Result<Self> {
        let failed = |e: std::io::Error| Error::file(&path, e);
        let before = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
            read => read.map_err(failed)?,
        };
        let (columns, mut kept, mut rows) = (head.split(',').count(), head, Vec::new());
        kept.push('\n');
        // What follows the last end of line was being written when the run was killed.
        for line in before
            .split_inclusive('\n')
            .skip(1)
            .filter_map(|line| line.strip_suffix('\n'))
        {
            if let Some(row) = row_of(line, columns).filter(|row| stays(row.0)) {
                rows.push(row);
                kept += line;
                kept.push('\n');
            }
        }
        crate::checkpoint::model_file::replace(&path, kept.as_bytes()).map_err(failed)?;
        let file = OpenOptions::new().append(true).open(&path).map_err(failed)?;
        Ok(Self { path, file, rows })
    }

    fn add(&mut self, step: u64, values: Vec<Option<f64>>) -> Result<()> {
        let mut line = step.to_string();
        for value in &values {
            line.push(',');
            if let Some(value) = value {
                line += &value.to_string();
            }
        }
        line.push('\n');
        self.rows.push((step, values));
        self.file
            .write_all(line.as_bytes())
            .map_err(|e| Error::file(&self.path, e))
    }

    fn column(&self, column: usize) -> Vec<(f64, f64)> {
        let value = |row: &Vec<Option<f64>>| row.get(column).copied().flatten().unwrap_or(f64::NAN);
        self.rows
            .iter()
            .map(|(step, row)| (*step as f64, value(row)))
            .collect()
    }
}

/// The numbers of a line, if it is whole.
fn row_of(line: &str, columns: usize) -> Option<(u64, Vec<Option<f64>>)> {
    let (step, rest) = line.split_once(',')?;
    let values = rest
        .split(',')
        .map(|text| {
            if text.is_empty() {
                Some(None)
            } else {
                text.parse().ok().map(Some)
            }
        })
        .collect::<Option<Vec<_>>>()?;
    (values.len() + 1 == columns).then_some((step.parse().ok()?, values))
}

/// A name as a field of a table: without what would end it.
fn field(name: &str) -> String {
    name.replace([',', '"', '\n', '\r'], " ")
}

fn unix_seconds() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn step(step: u64) -> Step {
        Step {
            step,
            loss: if step == 2 {
                f64::NAN
            } else {
                1.0 / (step + 1) as f64
            },
            cross_entropy: 0.5,
            dice: 0.25,
            gradient_norm: 1.0,
            rate: 8e-4,
            skipped: step == 2,
        }
    }

    fn confusion() -> Confusion {
        let mut confusion = Confusion::new(12).unwrap();
        confusion.add(&[0, 0, 1, 1], &[0, 1, 1, 1]).unwrap();
        confusion
    }

    #[test]
    fn a_run_that_goes_on_has_every_line_once() {
        let folder = tempfile::tempdir().unwrap();
        let classes = ClassSet::endovis_2018();
        let open = |first| RunLog::open(folder.path(), "run", &classes, first).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let mut log = open(0);
        for i in 0..6 {
            log.step(&step(i)).unwrap();
            if i % 2 == 1 {
                log.validation(i + 1, &confusion()).unwrap();
            }
        }
        drop(log);
        let whole = (read("steps.csv"), read("validation.csv"));
        // Killed while it wrote, after more steps than its state knows of.
        for (name, text) in [("steps.csv", "6,0.1,0.1"), ("validation.csv", "6")] {
            let path = folder.path().join(name);
            OpenOptions::new()
                .append(true)
                .open(path)
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        }
        let mut log = open(4);
        assert_eq!(read("steps.csv").lines().count(), 1 + 4);
        assert_eq!(read("validation.csv").lines().count(), 1 + 2);
        for i in 4..6 {
            log.step(&step(i)).unwrap();
        }
        log.validation(6, &confusion()).unwrap();
        assert_eq!((read("steps.csv"), read("validation.csv")), whole);
        assert!(
            whole
                .1
                .contains("\n2,0.5833333333333333,0.5,0.6666666666666666,,"),
            "{}",
            whole.1
        );
        log.draw().unwrap();
        let html = read("curves.html");
        assert!(
            html.contains("mean: 0.5833") && html.matches("<svg").count() == 5,
            "{html}"
        );
    }

    #[test]
    fn lines_cut_short_are_no_rows() {
        assert_eq!(row_of("3,0.5,,NaN", 4).unwrap().1[..2], [Some(0.5), None]);
        for line in ["", "3", "3,0.5", "3,0.5,1,2,3", "x,1,2,3", "3,0.5,-,1"] {
            assert!(row_of(line, 4).is_none(), "{line}");
        }
        assert_eq!(field("a,b"), "a b");
    }
}
