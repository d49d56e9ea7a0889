//! Signals over time: what moves a camera, a hand or a bowel, each a pure function of the second asked for.
//!
//! Any instant can be asked for in any order, so frames need no history. Signals have continuous velocity and
//! acceleration (weights `6t^5 - 15t^4 + 10t^3`), as smooth hand movements do (minimum jerk, Flash and Hogan 1985).

use super::random::{Random, lattice, unit_of};
use super::vector::{Vec3, vec3};

/// The minimum-jerk way from 0 to 1 over `t` in `[0, 1]`.
#[inline]
pub fn minimum_jerk(t: f32) -> f32 {
    let t = t.clamp(0.0, 1.0);
    t * t * t * (t * (t * 6.0 - 15.0) + 10.0)
}

/// Whole part and fraction of `t`; seconds stay in double precision until here.
fn split(t: f64) -> (i32, f32) {
    let whole = libm::floor(t);
    (whole as i32, (t - whole) as f32)
}

/// A signal without goal: random values one `period_s` apart, joined smoothly.
#[derive(Debug, Clone, Copy)]
pub struct Wander {
    seed: u32,
    period_s: f64,
    amplitude: f32,
}

impl Wander {
    /// A new signal within `[-amplitude, amplitude]`.
    pub fn new(random: &mut Random, period_s: f64, amplitude: f32) -> Self {
        Self {
            seed: random.bits() as u32,
            period_s,
            amplitude,
        }
    }

    /// Its value at `seconds`.
    pub fn at(&self, seconds: f64) -> f32 {
        let offset = f64::from(self.seed & 0xFFFF) / 65_536.0;
        let (index, fraction) = split(seconds / self.period_s + offset);
        let value = |i: i32| unit_of(lattice(self.seed, i, 0)) * 2.0 - 1.0;
        let (from, to) = (value(index), value(index.wrapping_add(1)));
        self.amplitude * (from + (to - from) * minimum_jerk(fraction))
    }
}

/// A point that travels from stop to stop and rests at each.
#[derive(Debug, Clone, Copy)]
pub struct Stops {
    seed: u32,
    period_s: f64,
    rest: f32,
    low: Vec3,
    high: Vec3,
}

impl Stops {
    /// Stops in the box from `low` to `high`, one every `period_s`, resting for the fraction `rest` of the time.
    pub fn new(random: &mut Random, period_s: f64, rest: f32, low: Vec3, high: Vec3) -> Self {
        Self {
            seed: random.bits() as u32,
            period_s,
            rest,
            low,
            high,
        }
    }

    fn stop(&self, index: i32) -> Vec3 {
        let value =
            |axis: i32, low: f32, high: f32| low + (high - low) * unit_of(lattice(self.seed, index, axis));
        vec3(
            value(1, self.low.x, self.high.x),
            value(2, self.low.y, self.high.y),
            value(3, self.low.z, self.high.z),
        )
    }

    /// The point at `seconds`.
    pub fn at(&self, seconds: f64) -> Vec3 {
        let offset = f64::from(self.seed & 0xFFFF) / 65_536.0;
        let (index, fraction) = split(seconds / self.period_s + offset);
        let way = minimum_jerk((fraction - self.rest) / (1.0 - self.rest));
        self.stop(index).lerp(self.stop(index.wrapping_add(1)), way)
    }
}

/// A periodic beat: breathing or pulse.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// Seconds from one beat to the next.
    pub period_s: f64,
    /// Where in the period time 0 lies, in `[0, 1)`.
    pub phase: f64,
}

impl Beat {
    /// `sin` of the beat's angle at `seconds`.
    pub fn wave(&self, seconds: f64) -> f32 {
        libm::sinf(self.angle(seconds))
    }

    /// The beat's angle in radians, in `[0, 2 pi)`.
    pub fn angle(&self, seconds: f64) -> f32 {
        let (_, fraction) = split(seconds / self.period_s + self.phase);
        fraction * std::f32::consts::TAU
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_smooth_and_bounded() {
        let mut random = Random::new(9);
        let wander = Wander::new(&mut random, 2.0, 3.0);
        let stops = Stops::new(&mut random, 1.5, 0.3, vec3(-1.0, 0.0, 5.0), vec3(1.0, 2.0, 6.0));
        let (mut step, mut travel) = (0.0f32, 0.0f32);
        for i in 0..5000 {
            let t = f64::from(i) * 0.01 - 20.0;
            let (now, next) = (stops.at(t), stops.at(t + 0.01));
            assert!(wander.at(t).abs() <= 3.0);
            assert!((-1.0..=1.0).contains(&now.x) && (0.0..=2.0).contains(&now.y) && now.z >= 5.0);
            step = step
                .max((next - now).length())
                .max((wander.at(t + 0.01) - wander.at(t)).abs());
            travel += (next - now).length();
        }
        assert!(step < 0.12 && travel > 10.0, "{step} {travel}");
    }

    #[test]
    fn a_beat_repeats() {
        let beat = Beat {
            period_s: 4.0,
            phase: 0.25,
        };
        assert!((beat.wave(0.3) - beat.wave(4.3)).abs() < 1e-4);
        assert!((beat.wave(0.0) - 1.0).abs() < 1e-5);
    }
}
