//! What a check measured and whether that is within bounds.

use crate::model::ModelConfig;
use candle_core::DType;
use std::fmt;

/// Bounds for one precision, relative to the largest magnitude of the reference tensor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    /// Largest difference.
    pub max: f64,
    /// Root of the mean square difference.
    pub rms: f64,
    /// Labels have to agree wherever the two best logits differ by more than this.
    pub margin: f64,
    /// Share of all labels that has to agree, in [0, 1].
    pub agreement: f64,
}

impl Tolerance {
    /// The bounds that hold for `precision`: PyTorch's own results meet them with room.
    pub fn of(precision: DType) -> Self {
        match precision {
            DType::BF16 => Self {
                max: 5e-2,
                rms: 6e-3,
                margin: 4e-2,
                agreement: 0.0,
            },
            DType::F16 => Self {
                max: 1e-2,
                rms: 1.5e-3,
                margin: 8e-3,
                agreement: 0.0,
            },
            _ => Self {
                max: 5e-5,
                rms: 5e-5,
                margin: 5e-5,
                agreement: 0.0,
            },
        }
    }
}

impl Tolerance {
    /// The same for what the decoder of a model of this configuration gives. In the test models its last norm is over four
    /// channels: where those lie close together it makes much of the rounding of 16 bits, and single pixels jump, with
    /// any software: PyTorch 2.9 on these models is off by up to 0.78 (root mean square 1.9e-2) in bfloat16 and 2.4e-2
    /// (1.5e-3) in float16, with 97.3 % and 99.7 % of labels as they should be. There the mean alone says something.
    pub fn for_decoder(self, config: &ModelConfig, precision: DType) -> Self {
        /// Channels below which that happens; SAM's sizes have sixteen.
        const FEW: usize = 8;
        let widths = config.upscaling_widths();
        let normed = widths[..widths.len() - 1].iter().min();
        if precision == DType::F32 || normed.is_none_or(|width| *width >= FEW) {
            return self;
        }
        let (max, rms, agreement) = match precision {
            DType::BF16 => (0.8, 2e-2, 0.97),
            _ => (0.1, 3e-3, 0.995),
        };
        Self {
            max,
            rms,
            margin: max,
            agreement,
        }
    }
}

/// One tensor compared.
#[derive(Debug, Clone, PartialEq)]
pub struct Measure {
    /// Name of the reference tensor.
    pub name: String,
    /// Largest difference over the largest magnitude of the reference.
    pub max_rel_err: f64,
    /// Root mean square difference over the same.
    pub rms: f64,
    /// How many were compared.
    pub elements: usize,
    /// Bound of `max_rel_err` that holds for this tensor instead of the run's [`Tolerance`].
    pub bound: Option<f64>,
    /// What holds for this tensor instead of the run's.
    pub tolerance: Option<Tolerance>,
}

impl Measure {
    /// Compares `got` with `wanted`, element by element. A NaN on either side or a wrong length is an infinite error.
    pub fn of(name: &str, got: &[f32], wanted: &[f32]) -> Self {
        let infinite = Self {
            name: name.into(),
            max_rel_err: f64::INFINITY,
            rms: f64::INFINITY,
            elements: got.len(),
            bound: None,
            tolerance: None,
        };
        if got.len() != wanted.len() || got.is_empty() {
            return infinite;
        }
        let largest = wanted.iter().fold(0f64, |m, w| m.max(f64::from(w.abs())));
        let (mut max, mut squares) = (0f64, 0f64);
        for (got, wanted) in got.iter().zip(wanted) {
            let difference = (f64::from(*got) - f64::from(*wanted)).abs();
            if !difference.is_finite() {
                return infinite;
            }
            max = max.max(difference);
            squares += difference * difference;
        }
        let scale = if largest > 0.0 { largest } else { 1.0 };
        Self {
            name: name.into(),
            max_rel_err: max / scale,
            rms: (squares / got.len() as f64).sqrt() / scale,
            elements: got.len(),
            bound: None,
            tolerance: None,
        }
    }

    /// The error as a share of what it may be: above 1 is a failure, and so is NaN. A mean of a handful of numbers is
    /// hardly one: of those only the largest difference counts, which may be eight times the mean's bound.
    pub fn share(&self, tolerance: &Tolerance) -> f64 {
        /// From so many on it is.
        const MANY: usize = 64;
        let share = |error: f64, bound: f64| if error == 0.0 { 0.0 } else { error / bound };
        let tolerance = self.tolerance.as_ref().unwrap_or(tolerance);
        match self.bound {
            Some(bound) => share(self.max_rel_err, bound),
            None if self.elements < MANY => share(self.max_rel_err, tolerance.max.min(8.0 * tolerance.rms)),
            None => share(self.max_rel_err, tolerance.max).max(share(self.rms, tolerance.rms)),
        }
    }

    fn within(&self, tolerance: &Tolerance) -> bool {
        self.share(tolerance) <= 1.0
    }
}

/// The outcome for one file: the logits' measure in front, the others behind it.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// The file's name.
    pub name: String,
    /// Every tensor compared, the principal one first.
    pub measures: Vec<Measure>,
    /// Share of labels that agree, in [0, 1].
    pub label_agreement: f64,
    /// Labels that differ where the reference's two best logits are farther apart than the margin.
    pub clear_disagreements: usize,
    /// Bounds of this run.
    pub tolerance: Tolerance,
}

impl Check {
    /// Tensors outside their bounds.
    pub fn failures(&self) -> impl Iterator<Item = &Measure> {
        self.measures.iter().filter(|m| !m.within(&self.tolerance))
    }

    /// Whether every tensor is within bounds and no label differs where it matters.
    pub fn passed(&self) -> bool {
        !self.measures.is_empty()
            && self.failures().next().is_none()
            && self.clear_disagreements == 0
            && self.label_agreement >= self.tolerance.agreement
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (max, rms) = self
            .measures
            .first()
            .map_or((f64::NAN, f64::NAN), |m| (m.max_rel_err, m.rms));
        let verdict = if self.passed() { "PASS" } else { "FAIL" };
        let agreement = self.label_agreement;
        write!(
            f,
            "{} max_rel_err={max:.2e} rms={rms:.2e} label_agreement={agreement:.6} {verdict}",
            self.name
        )?;
        if let Some((first, bound)) = self.measures.first().and_then(|m| Some((m, m.bound?))) {
            write!(f, " (nearest to its bound: {}, {bound:.1e})", first.name)?;
        }
        for failure in self.failures().filter(|m| Some(*m) != self.measures.first()) {
            write!(
                f,
                " [{} max_rel_err={:.2e} rms={:.2e}]",
                failure.name, failure.max_rel_err, failure.rms
            )?;
        }
        if self.clear_disagreements > 0 {
            write!(
                f,
                " [{} labels differ beyond the margin]",
                self.clear_disagreements
            )?;
        }
        Ok(())
    }
}
