//! The learning rate: linear warm-up, then polynomial decay (the authors' software, paper section 3.1).
//!
//! ```text
//! rate(t) = rate (t + 1) / warm_up                              t < warm_up
//! rate(t) = rate (1 - (t - warm_up) / steps)^power              afterwards
//! ```

use crate::error::{Error, Result, all_of};
use serde::{Deserialize, Serialize};

/// Learning rate over a run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Schedule {
    /// Steps in all.
    pub steps: u64,
    /// Largest rate.
    pub rate: f64,
    /// Steps until it is reached.
    pub warm_up: u64,
    /// Exponent of the decay.
    pub power: f64,
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            steps: 20_000,
            rate: 8e-4,
            warm_up: 250,
            power: 7.0,
        }
    }
}

impl Schedule {
    /// Rate of step `step`, counted from 0.
    pub fn at(&self, step: u64) -> f64 {
        if step < self.warm_up {
            return self.rate * (step + 1) as f64 / self.warm_up as f64;
        }
        let share = 1.0 - (step - self.warm_up) as f64 / self.steps as f64;
        self.rate * share.max(0.0).powf(self.power)
    }

    /// Checks every field.
    ///
    /// # Errors
    /// Each field out of bounds.
    pub fn validate(&self) -> Result<()> {
        let mut errors = Vec::new();
        if self.steps == 0 {
            errors.push(Error::config("schedule.steps", 0, "it has to be 1 or more"));
        }
        for (field, value, least) in [
            ("schedule.rate", self.rate, f64::MIN_POSITIVE),
            ("schedule.power", self.power, 0.0),
        ] {
            if !(least..=1e3).contains(&value) {
                errors.push(Error::config(
                    field,
                    value,
                    "it has to be above 0 and at most 1000",
                ));
            }
        }
        all_of(errors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_rises_and_falls() {
        let schedule = Schedule {
            steps: 1000,
            rate: 1.0,
            warm_up: 10,
            power: 2.0,
        };
        assert!((schedule.at(0) - 0.1).abs() < 1e-12);
        assert!((schedule.at(9) - 1.0).abs() < 1e-12);
        assert!((schedule.at(10) - 1.0).abs() < 1e-12);
        assert!((schedule.at(510) - 0.25).abs() < 1e-12);
        assert_eq!(schedule.at(5000), 0.0);
    }
}
