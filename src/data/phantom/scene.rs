//! A sequence: everything drawn once, and its state at any instant.

use super::accessory::{Clamp, Probe, Suction};
use super::anatomy::Anatomy;
use super::camera::{CameraPath, Eye, View};
use super::finish::Finish;
use super::focus::Focus;
use super::instrument::{Entry, Instrument, KINDS, Kind, Load, Pose};
use super::motion::{Beat, Stops, Wander};
use super::random::Random;
use super::relief::{Contact, Relief};
use super::scenario::{Cast, Palette};
use super::sheet::Sheet;
use super::shutter::Trail;
use super::solid::{Prepared, Solid};
use super::surface::Surface;
use super::suture::{Needle, Thread};
use super::tissue::Wetness;
use super::vector::{Vec3, smoothstep, vec3};
use super::veil::Smoke;
use crate::geometry::Size;

/// What stays the same during a sequence.
#[derive(Debug)]
pub struct Scene {
    /// Colours.
    pub palette: Palette,
    /// Painted tissue.
    pub sheet: Sheet,
    /// Materials of all instruments.
    pub finishes: Vec<Finish>,
    /// Where the lamp is, camera space, mm.
    pub lamp: Vec3,
    relief: Relief,
    camera: CameraPath,
    things: Things,
    air: Air,
    size: Size,
}

/// Everything that is not tissue.
#[derive(Debug, Default)]
struct Things {
    instruments: Vec<Instrument>,
    needle: Option<Needle>,
    thread: Option<Thread>,
    clamps: Vec<Clamp>,
    suction: Option<Suction>,
    probe: Option<Probe>,
}

/// Slow changes of light, air and lens.
#[derive(Debug)]
struct Air {
    smoke_seed: u32,
    smoke: Stops,
    smoke_most: f32,
    smoke_source: (f32, f32),
    smoke_color: Vec3,
    exposure: Wander,
    warmth: Wander,
    focus: Wander,
    hunting: Stops,
    blood_level: f32,
    blood_per_s: f32,
    gloss: f32,
}

/// The scene at one instant.
#[derive(Debug)]
pub struct Instant {
    /// The camera.
    pub view: View,
    /// The tissue.
    pub surface: Surface,
    /// Everything else, ready for rays.
    pub solids: Vec<Prepared>,
    /// How far each solid travels on the screen while the shutter is open.
    pub trails: Vec<Trail>,
    /// Blood and gloss.
    pub wetness: Wetness,
    /// Smoke.
    pub smoke: Smoke,
    /// Focus.
    pub focus: Focus,
    /// Exposure times white balance.
    pub gain: Vec3,
}

/// How long the shutter is open, seconds.
const SHUTTER_S: f64 = 1.0 / 80.0;

/// Over how many seconds motion is measured.
const BLINK_S: f64 = 1.0 / 240.0;

impl Scene {
    /// Draws the scene of one sequence.
    pub fn new(seed: u64, cast: Cast, size: Size) -> Self {
        let palette = Palette::new(seed);
        let anatomy = Anatomy::new(seed, cast.kidney, cast.intestine);
        let mut random = Random::stream(seed, "relief");
        let breath = Beat {
            period_s: f64::from(random.range(3.2, 5.0)),
            phase: f64::from(random.unit()),
        };
        let pulse = Beat {
            period_s: f64::from(random.range(0.75, 1.1)),
            phase: f64::from(random.unit()),
        };
        let relief = Relief::new(&anatomy, breath, pulse, random.range(6.0, 14.0));
        // A texel is about as wide as a pixel in the middle of the picture.
        let side = (size.width_px as usize * 8 / 5).div_ceil(64) * 64;
        let camera = CameraPath::new(&mut Random::stream(seed, "camera"));
        let rest = camera.at(0.0, size);
        let right = vec3(rest.right.x, rest.right.y, 0.0).normalized();
        let side = side.clamp(128, 2560);
        let sheet = Sheet::new(seed, side, (right.x, right.y), &anatomy, &relief, &palette);
        let mut finishes = Vec::new();
        let things = Things::new(seed, cast, &rest, &mut finishes);
        let mut random = Random::stream(seed, "lamp");
        let lamp = vec3(
            random.range(5.0, 11.0) * random.sign(),
            random.range(-9.0, -2.0),
            0.0,
        );
        Self {
            palette,
            sheet,
            finishes,
            lamp,
            relief,
            camera,
            things,
            air: Air::new(seed),
            size,
        }
    }

    /// Focal length, px.
    pub fn focal_px(&self) -> f32 {
        self.camera.at(0.0, self.size).focal_px
    }

    /// The scene at `seconds` as `eye` sees it.
    pub fn at(&self, seconds: f64, eye: Eye) -> Instant {
        let view = self.camera.at(seconds, self.size).of(eye);
        let surface = self.relief.at(seconds, &self.contacts(seconds));
        let solids = self.solids(seconds, &view, &surface);
        let later_view = self.camera.at(seconds + BLINK_S, self.size).of(eye);
        let later = self.solids(seconds + BLINK_S, &later_view, &surface);
        let mut trails = Vec::with_capacity(solids.len());
        let mut prepared = Vec::with_capacity(solids.len());
        for (now, then) in solids.iter().zip(&later) {
            let Some(ready) = Prepared::new(*now, &view) else {
                continue;
            };
            let travel = |from: Vec3, to: Vec3| {
                if from.z < 1.0 || to.z < 1.0 {
                    return (0.0, 0.0);
                }
                let (from, to) = (view.project(from), view.project(to));
                let scale = (SHUTTER_S / BLINK_S) as f32;
                ((to.0 - from.0) * scale, (to.1 - from.1) * scale)
            };
            trails.push(Trail {
                ends: ready.outline().ends_px(),
                travel: [travel(now.a, then.a), travel(now.b, then.b)],
            });
            prepared.push(ready);
        }
        let air = &self.air;
        let palette = &self.palette;
        let warmth = air.warmth.at(seconds);
        let warm = vec3(1.0 + warmth, 1.0, 1.0 - warmth);
        let exposure = palette.exposure * (1.0 + air.exposure.at(seconds));
        let balance = palette.balance;
        let scale = self.size.width_px as f32 / 1280.0;
        let hunting = air.hunting.at(seconds).x;
        Instant {
            view,
            surface,
            solids: prepared,
            trails,
            wetness: Wetness {
                blood_level: air.blood_level + (air.blood_per_s * seconds as f32).min(0.08),
                gloss: air.gloss,
            },
            smoke: Smoke {
                seed: air.smoke_seed,
                density: air.smoke_most * smoothstep(0.35, 1.0, air.smoke.at(seconds).x),
                source: air.smoke_source,
                drift: (seconds * 0.22) as f32,
                color: air.smoke_color,
            },
            focus: Focus {
                depth_mm: 76.0 + air.focus.at(seconds),
                slope_px: 4.5 * scale,
                all_px: 2.6 * scale * hunting * hunting * hunting * hunting,
            },
            gain: vec3(balance.x * warm.x, balance.y * warm.y, balance.z * warm.z) * exposure,
        }
    }

    /// Where instruments press the tissue or hold it up.
    fn contacts(&self, seconds: f64) -> Vec<Contact> {
        let height = |x: f32, y: f32| self.relief.resting_mm(x, y, seconds);
        let mut contacts = Vec::new();
        let mut touch = |tip: Vec3, grip: f32| {
            let over = tip.z - height(tip.x, tip.y);
            let press = ((3.0 - over) * 0.7).clamp(0.0, 3.5);
            // Closed jaws close to the tissue hold some of it and lift it into a tent.
            let hold = grip * smoothstep(10.0, 6.0, over) * (over - 0.5).clamp(0.0, 8.0);
            let lift_mm = hold - press * (1.0 - grip);
            if lift_mm.abs() > 0.05 {
                let radius_mm = if lift_mm > 0.0 { 16.0 } else { 12.0 };
                contacts.push(Contact {
                    at: (tip.x, tip.y),
                    lift_mm,
                    drag_mm: (0.0, 0.0),
                    radius_mm,
                });
            }
        };
        for (instrument, pose) in self.things.instruments.iter().zip(self.poses(seconds)) {
            let grip = if instrument.load() == Load::Free {
                smoothstep(0.22, 0.04, pose.open)
            } else {
                0.0
            };
            touch(pose.tip, grip);
        }
        if let Some(suction) = &self.things.suction {
            touch(suction.tip(seconds, height), 0.0);
        }
        if let (Some(_), Some(first)) = (&self.things.probe, self.poses(seconds).first()) {
            let at = (first.tip.x, first.tip.y);
            contacts.push(Contact {
                at,
                lift_mm: -2.5,
                drag_mm: (0.0, 0.0),
                radius_mm: 24.0,
            });
        }
        contacts
    }

    fn poses(&self, seconds: f64) -> Vec<Pose> {
        let height = |x: f32, y: f32| self.relief.resting_mm(x, y, seconds);
        self.things
            .instruments
            .iter()
            .map(|instrument| instrument.pose(seconds, height))
            .collect()
    }

    /// Everything that is not tissue, at `seconds`, resting on `surface`.
    fn solids(&self, seconds: f64, view: &View, surface: &Surface) -> Vec<Solid> {
        let height = |x: f32, y: f32| surface.height_mm(x, y);
        let poses = self.poses(seconds);
        let things = &self.things;
        let mut solids = Vec::new();
        for (instrument, pose) in things.instruments.iter().zip(&poses) {
            instrument.solids(pose, view, &mut solids);
        }
        if let Some(first) = poses.first() {
            if let Some(probe) = &things.probe {
                probe.solids(first, seconds, height, view, &mut solids);
            }
            if let Some(needle) = &things.needle {
                needle.solids(first, seconds, view, &mut solids);
            }
            if let Some(thread) = &things.thread {
                let held = first.hinge2 + (first.tip - first.hinge2) * 0.86;
                let from = things
                    .needle
                    .as_ref()
                    .map_or(held, |needle| needle.swage(first, seconds));
                thread.solids(from, seconds, height, view, &mut solids);
            }
        }
        for clamp in &things.clamps {
            clamp.solids(height, view, &mut solids);
        }
        if let Some(suction) = &things.suction {
            let resting = |x: f32, y: f32| self.relief.resting_mm(x, y, seconds);
            suction.solids(suction.tip(seconds, resting), view, &mut solids);
        }
        solids
    }
}

impl Things {
    fn new(seed: u64, cast: Cast, view: &View, finishes: &mut Vec<Finish>) -> Self {
        let mut random = Random::stream(seed, "things");
        let random = &mut random;
        let lean = random.range(-0.4, 0.4);
        // Right, left, top: as arms are usually placed. Which comes first is drawn.
        let mut angles = [0.45 + lean, 2.69 + lean, 4.4 + lean * 1.5];
        if random.chance(0.5) {
            angles.swap(0, 1);
        }
        let aside = |angle: f32, mm: f32| {
            let (sin, cos) = libm::sincosf(angle);
            let across = view.right * cos + view.down * sin;
            (across.x * mm, across.y * mm)
        };
        let count = match (cast.suction, cast.thread || cast.probe) {
            (true, _) => 1 + random.below(2),
            (_, true) => 2,
            _ => [1, 2, 2, 2, 3][random.below(5)],
        };
        let mut things = Things::default();
        for (i, &angle) in angles.iter().enumerate().take(count) {
            let load = match (i, cast.thread, cast.probe) {
                (0, true, _) => Load::Suture,
                (0, _, true) => Load::Probe,
                _ => Load::Free,
            };
            let kind = match load {
                Load::Suture => Kind::NeedleDriver,
                Load::Probe => Kind::Grasper,
                Load::Free => KINDS[random.below(KINDS.len())],
            };
            let work = aside(angle, random.range(4.0, 12.0));
            let entry = Entry {
                angle,
                work,
                load,
                leaves: i > 0 && load == Load::Free,
            };
            let instrument = Instrument::new(random, kind, view, entry, finishes);
            things.instruments.push(instrument);
        }
        if cast.suction {
            let angle = if count == 1 { angles[1] } else { angles[2] };
            let work = aside(angle, random.range(2.0, 9.0));
            things.suction = Some(Suction::new(random, view, angle, work, finishes));
        }
        if cast.probe {
            things.probe = Some(Probe::new(random, finishes));
        }
        if cast.needle {
            things.needle = Some(Needle::new(random, finishes));
        }
        if cast.thread {
            let centre = (random.range(-9.0, 9.0), random.range(-9.0, 9.0));
            things.thread = Some(Thread::new(random, centre, finishes));
        }
        if cast.clamps {
            let (count, first) = (1 + random.below(2), random.range(0.0, std::f32::consts::TAU));
            for i in 0..count {
                // A second one lies opposite.
                let centre = aside(first + std::f32::consts::PI * i as f32, 15.0);
                things.clamps.push(Clamp::new(random, centre, finishes));
            }
        }
        things
    }
}

impl Air {
    fn new(seed: u64) -> Self {
        let mut random = Random::stream(seed, "air");
        let r = &mut random;
        let grey = r.range(0.35, 0.6);
        Self {
            smoke_seed: r.bits() as u32,
            smoke: Stops::new(r, 3.5, 0.2, vec3(0.0, 0.0, 0.0), vec3(1.0, 0.0, 0.0)),
            smoke_most: if r.chance(0.4) { r.range(0.25, 0.7) } else { 0.0 },
            smoke_source: (r.range(-0.25, 0.25), r.range(-0.15, 0.2)),
            smoke_color: vec3(grey, grey * 0.95, grey * 0.95),
            exposure: Wander::new(r, 2.7, 0.10),
            warmth: Wander::new(r, 5.0, 0.025),
            focus: Wander::new(r, 3.1, 8.0),
            hunting: Stops::new(r, 2.2, 0.5, vec3(0.0, 0.0, 0.0), vec3(1.0, 0.0, 0.0)),
            blood_level: r.range(0.18, 0.40),
            blood_per_s: r.range(0.0, 0.006),
            gloss: r.range(0.7, 1.3),
        }
    }
}
