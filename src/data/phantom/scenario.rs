//! Which things a sequence shows, and in which colours.
//!
//! Sequences come in blocks of eight. Each block plays the eight casts of [`CASTS`] in an order of its own, so that
//! any eight sequences that begin at a multiple of eight show every class, about as often as EndoVis 2018 does.

use super::anatomy::Cover;
use super::random::Random;
use super::vector::{Vec3, vec3};

/// What a sequence shows besides background and the usual instruments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cast {
    /// A kidney, and how much fat is on it.
    pub kidney: Option<Cover>,
    /// Loops of small intestine.
    pub intestine: bool,
    /// A suture.
    pub thread: bool,
    /// A needle on it.
    pub needle: bool,
    /// Vessel clamps.
    pub clamps: bool,
    /// A suction tube.
    pub suction: bool,
    /// A drop-in ultrasound probe.
    pub probe: bool,
}

const NOTHING: Cast = Cast {
    kidney: None,
    intestine: false,
    thread: false,
    needle: false,
    clamps: false,
    suction: false,
    probe: false,
};

/// The eight casts of a block.
pub const CASTS: [Cast; 8] = [
    Cast {
        kidney: Some(Cover::Part),
        thread: true,
        needle: true,
        ..NOTHING
    },
    Cast {
        kidney: Some(Cover::Part),
        clamps: true,
        ..NOTHING
    },
    Cast {
        kidney: Some(Cover::None),
        intestine: true,
        suction: true,
        ..NOTHING
    },
    Cast {
        kidney: Some(Cover::Part),
        probe: true,
        ..NOTHING
    },
    Cast {
        kidney: Some(Cover::All),
        intestine: true,
        ..NOTHING
    },
    Cast {
        intestine: true,
        thread: true,
        ..NOTHING
    },
    Cast {
        kidney: Some(Cover::Part),
        intestine: true,
        clamps: true,
        ..NOTHING
    },
    Cast {
        thread: true,
        ..NOTHING
    },
];

/// The cast of sequence `index` under `seed`.
pub fn cast_of(seed: u64, index: u64) -> Cast {
    let block = index / CASTS.len() as u64;
    let mut order: Vec<usize> = (0..CASTS.len()).collect();
    Random::stream(seed ^ block.wrapping_mul(0xA24B_AED4_963E_E407), "casts").shuffle(&mut order);
    CASTS[order[(index % CASTS.len() as u64) as usize]]
}

/// Reflectances (linear RGB) of one sequence. Every organ draws from the same families, so that a colour seen in
/// one sequence says little about the class in another.
#[derive(Debug, Clone)]
pub struct Palette {
    /// Connective tissue: main, second and third tone.
    pub ground: [Vec3; 3],
    /// Bare kidney: main and second tone.
    pub kidney: [Vec3; 2],
    /// Fat on the kidney: main and second tone.
    pub fat: [Vec3; 2],
    /// Small intestine: main and second tone.
    pub bowel: [Vec3; 2],
    /// Vessels.
    pub vessel: Vec3,
    /// Strands of connective tissue.
    pub strand: Vec3,
    /// Blood.
    pub blood: Vec3,
    /// White balance gains.
    pub balance: Vec3,
    /// Factor on all light.
    pub exposure: f32,
}

/// Families of tissue colour, linear RGB.
const TISSUE: [Vec3; 7] = [
    vec3(0.52, 0.17, 0.14), // red
    vec3(0.60, 0.26, 0.23), // pink
    vec3(0.62, 0.34, 0.24), // pale
    vec3(0.58, 0.25, 0.12), // orange
    vec3(0.60, 0.36, 0.13), // yellow
    vec3(0.36, 0.11, 0.08), // dark red
    vec3(0.48, 0.24, 0.26), // livid
];

fn vary(random: &mut Random, color: Vec3, by: f32) -> Vec3 {
    let bright = random.range(1.0 - by, 1.0 + by);
    vec3(
        color.x * bright * random.range(1.0 - by * 0.4, 1.0 + by * 0.4),
        color.y * bright * random.range(1.0 - by, 1.0 + by),
        color.z * bright * random.range(1.0 - by, 1.0 + by),
    )
}

impl Palette {
    /// Draws the colours of a sequence.
    pub fn new(seed: u64) -> Self {
        let mut random = Random::stream(seed, "palette");
        let r = &mut random;
        let mut pick = |among: &[usize]| {
            let color = TISSUE[among[r.below(among.len())]];
            vary(r, color, 0.2)
        };
        // Leaning towards what is usual (yellow fat, dark kidney, pale bowel), never bound to it.
        let ground = [
            pick(&[0, 1, 1, 2, 3, 6]),
            pick(&[1, 2, 3, 4]),
            pick(&[0, 3, 4, 5, 6]),
        ];
        let kidney = [pick(&[0, 0, 1, 3, 5, 5, 5, 6]), pick(&[0, 5, 6, 1])];
        let fat = [pick(&[1, 2, 3, 4, 4, 4, 4]), pick(&[2, 3, 4])];
        let bowel = [pick(&[0, 1, 1, 1, 2, 2, 3, 4]), pick(&[1, 2, 3])];
        let strand = vary(r, vec3(0.78, 0.55, 0.46), 0.12);
        let vessel = vary(r, vec3(0.34, 0.05, 0.05), 0.25);
        let blood = vary(r, vec3(0.26, 0.018, 0.014), 0.3);
        Self {
            ground,
            kidney,
            fat,
            bowel,
            vessel,
            strand,
            blood,
            balance: vec3(r.range(0.88, 1.1), r.range(0.92, 1.08), r.range(0.85, 1.25)),
            exposure: r.range(0.8, 1.25),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_block_plays_every_cast() {
        for block in 0..5 {
            let mut seen: Vec<Cast> = (0..8).map(|i| cast_of(42, block * 8 + i)).collect();
            for cast in CASTS {
                let at = seen.iter().position(|c| *c == cast).unwrap();
                seen.remove(at);
            }
            assert!(seen.is_empty());
        }
    }

    #[test]
    fn casts_are_about_as_frequent_as_in_endovis() {
        let share = |of: fn(&Cast) -> bool| CASTS.iter().filter(|c| of(c)).count() as f32 / 8.0;
        let close = |share: f32, frames: f32| (share - frames / 2235.0).abs() < 0.13;
        assert!(close(
            share(|c| matches!(c.kidney, Some(Cover::Part | Cover::None))),
            1396.0
        ));
        assert!(close(
            share(|c| matches!(c.kidney, Some(Cover::Part | Cover::All))),
            1391.0
        ));
        assert!(close(share(|c| c.intestine), 1015.0));
        assert!(close(share(|c| c.thread), 649.0));
        assert!(close(share(|c| c.clamps), 372.0));
        assert!(close(share(|c| c.suction), 269.0));
        assert!(close(share(|c| c.probe), 156.0));
        assert!(close(share(|c| c.needle), 12.0));
    }
}
