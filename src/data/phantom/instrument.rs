//! Robotic instruments: a shaft through a port, a wrist with two hinges, two claspers that open.
//!
//! ```text
//! port ======== shaft ========[collar]( hinge 1 )--link--( hinge 2 )< two jaws
//! ```
//! The shaft turns about the port, as a trocar holds it; hinge 1 bends the link against the shaft, hinge 2 turns the
//! jaws against the link and opens them.

use super::accessory::PROBE_HOLD_MM;
use super::anatomy::class;
use super::camera::View;
use super::finish::{Finish, Pattern};
use super::motion::{Stops, Wander};
use super::random::Random;
use super::solid::{Solid, plain};
use super::vector::{Vec3, smoothstep, vec3};

/// Kinds of instrument that differ in their jaws and wrist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Short blunt jaws with teeth.
    NeedleDriver,
    /// Long slotted jaws.
    Fenestrated,
    /// Broad jaws.
    Grasper,
    /// Thin blades, wrist in a coloured sleeve.
    Scissors,
    /// Rigid, without wrist: the jaws sit on the shaft.
    Sealer,
}

/// Every kind.
pub const KINDS: [Kind; 5] = [
    Kind::NeedleDriver,
    Kind::Fenestrated,
    Kind::Grasper,
    Kind::Scissors,
    Kind::Sealer,
];

/// Indices of an instrument's finishes in the scene's list.
#[derive(Debug, Clone, Copy)]
struct Finishes {
    shaft: u16,
    collar: u16,
    wrist: u16,
    pin: u16,
    jaw: u16,
    jaw_tip: u16,
}

/// What an instrument's jaws are on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// Nothing, or tissue now and then.
    Free,
    /// A needle or a thread.
    Suture,
    /// The ultrasound probe.
    Probe,
}

/// One instrument of a sequence.
#[derive(Debug, Clone)]
pub struct Instrument {
    port: Vec3,
    /// Where the tip goes: plane coordinates and height over the tissue, mm.
    tip: Stops,
    tremor: [Wander; 3],
    roll: Stops,
    bend: Stops,
    open: Stops,
    away: Stops,
    /// Whether it is ever withdrawn.
    leaves: bool,
    /// What it holds on to all the time.
    load: Load,
    radius_mm: f32,
    jaw_mm: f32,
    jaw_radius_mm: (f32, f32),
    jaw_flat: f32,
    jaw_curve: f32,
    link_mm: (f32, f32),
    /// Whether it has hinges before the jaws.
    hinged: bool,
    finishes: Finishes,
}

/// How an instrument comes into the picture and what it does there.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Direction of the picture that it comes from, radians: 0 right, a quarter turn down.
    pub angle: f32,
    /// Point of the plane that it works around, mm.
    pub work: (f32, f32),
    /// What it holds.
    pub load: Load,
    /// Whether it is withdrawn now and then.
    pub leaves: bool,
}

/// An instrument's joints at one instant, world space.
#[derive(Debug, Clone, Copy)]
pub struct Pose {
    /// Far end of the visible shaft.
    pub port: Vec3,
    /// End of the shaft.
    pub shaft_end: Vec3,
    /// Hinge 1.
    pub hinge1: Vec3,
    /// Hinge 2, where the jaws begin.
    pub hinge2: Vec3,
    /// Axis of hinge 1 and of hinge 2.
    pub axes: (Vec3, Vec3),
    /// Directions of the two jaws.
    pub jaws: (Vec3, Vec3),
    /// Midway between the jaw tips.
    pub tip: Vec3,
    /// Angle between the jaws, radians.
    pub open: f32,
}

impl Instrument {
    /// Draws an instrument for pictures that begin with `view`; its finishes are added to `finishes`.
    pub fn new(
        random: &mut Random,
        kind: Kind,
        view: &View,
        entry: Entry,
        finishes: &mut Vec<Finish>,
    ) -> Self {
        let Entry {
            angle,
            work,
            load,
            leaves,
        } = entry;
        let hinged = kind != Kind::Sealer;
        let (sin, cos) = libm::sincosf(angle);
        let depth = random.range(2.0, 26.0);
        let port = view.world_from_camera(vec3(cos * 120.0, sin * 100.0, depth));
        let reach = random.range(9.0, 15.0);
        let (cx, cy) = work;
        let hover = match load {
            Load::Free => (0.5, random.range(6.0, 14.0)),
            Load::Suture => (3.0, random.range(10.0, 16.0)),
            Load::Probe => PROBE_HOLD_MM,
        };
        let low = vec3(cx - reach, cy - reach, hover.0);
        let high = vec3(cx + reach, cy + reach, hover.1);
        let tint = [
            vec3(1.0, 0.98, 0.95),
            vec3(0.92, 0.97, 1.05),
            vec3(1.05, 0.95, 0.85),
        ][random.below(3)];
        let shade = random.range(0.02, 0.10);
        let dark = [
            vec3(1.0, 1.0, 1.0),
            vec3(0.8, 1.0, 1.4),
            vec3(1.25, 1.0, 0.85),
            vec3(4.5, 4.6, 5.0),
            vec3(3.0, 3.6, 5.0),
        ][random.below(5)]
            * shade;
        let sleeve = [vec3(0.5, 0.2, 0.05), vec3(0.08, 0.09, 0.1), vec3(0.55, 0.5, 0.42)][random.below(3)];
        let mut add = |finish: Finish| {
            finishes.push(finish);
            (finishes.len() - 1) as u16
        };
        let shaft = Finish {
            pattern: Pattern::Brushed,
            ..Finish::coat(random, dark)
        };
        let collar = Finish::metal(random, tint, Pattern::Rings { count: 2.0 });
        let wrist = match kind {
            Kind::Scissors => Finish::coat(random, sleeve),
            _ => Finish::metal(random, tint * 0.85, Pattern::Brushed),
        };
        let pin = Finish::metal(random, tint * 0.8, Pattern::Hub);
        let slot = Pattern::Slot { from: 0.25, to: 0.95 };
        let (jaw_pattern, tip_pattern) = match kind {
            Kind::NeedleDriver => (Pattern::Plain, Pattern::Teeth { count: 5.0 }),
            Kind::Fenestrated => (slot, Pattern::Teeth { count: 6.0 }),
            Kind::Grasper => (slot, Pattern::Teeth { count: 5.0 }),
            Kind::Scissors => (Pattern::Brushed, Pattern::Plain),
            Kind::Sealer => (Pattern::Plain, Pattern::Teeth { count: 7.0 }),
        };
        let jaw = Finish::metal(random, tint, jaw_pattern);
        let jaw_tip = Finish {
            pattern: tip_pattern,
            ..jaw
        };
        let finishes = Finishes {
            shaft: add(shaft),
            collar: add(collar),
            wrist: add(wrist),
            pin: add(pin),
            jaw: add(jaw),
            jaw_tip: add(jaw_tip),
        };
        let (jaw_mm, jaw_radius_mm, jaw_flat, jaw_curve) = match kind {
            Kind::NeedleDriver => (10.5, (2.5, 1.7), 0.55, 0.05),
            Kind::Fenestrated => (19.0, (2.8, 1.2), 0.5, 0.22),
            Kind::Grasper => (15.0, (3.0, 2.0), 0.5, 0.10),
            Kind::Scissors => (13.0, (2.4, 0.5), 0.38, 0.28),
            Kind::Sealer => (18.0, (2.7, 1.5), 0.55, 0.08),
        };
        Self {
            port,
            tip: Stops::new(random, f64::from(random.clone().range(1.7, 3.0)), 0.35, low, high),
            tremor: [
                Wander::new(random, 0.35, 0.25),
                Wander::new(random, 0.35, 0.25),
                Wander::new(random, 0.4, 0.2),
            ],
            roll: Stops::new(random, 2.3, 0.4, vec3(-1.6, 0.0, 0.0), vec3(1.6, 0.0, 0.0)),
            bend: Stops::new(random, 1.7, 0.3, vec3(-0.75, -0.7, 0.0), vec3(0.75, 0.7, 0.0)),
            open: Stops::new(random, 1.1, 0.4, vec3(-0.25, 0.0, 0.0), vec3(0.95, 0.0, 0.0)),
            away: Stops::new(random, 4.5, 0.3, vec3(0.0, 0.0, 0.0), vec3(1.0, 0.0, 0.0)),
            leaves,
            load,
            radius_mm: random.range(3.8, 4.5),
            jaw_mm: jaw_mm * random.range(0.92, 1.12),
            jaw_radius_mm,
            jaw_flat,
            jaw_curve,
            link_mm: if hinged {
                (random.range(4.5, 6.0), random.range(5.5, 8.0))
            } else {
                (0.0, 0.0)
            },
            hinged,
            finishes,
        }
    }

    /// What its jaws are on.
    pub fn load(&self) -> Load {
        self.load
    }

    /// The joints at `seconds` over tissue whose height is `height_mm`.
    pub fn pose(&self, seconds: f64, height_mm: impl Fn(f32, f32) -> f32) -> Pose {
        let goal = self.tip.at(seconds);
        let tremble = vec3(
            self.tremor[0].at(seconds),
            self.tremor[1].at(seconds),
            self.tremor[2].at(seconds),
        );
        let goal = vec3(goal.x, goal.y, height_mm(goal.x, goal.y) + goal.z) + tremble;
        let pose = self.pose_at(seconds, goal);
        // The tip may dip into the tissue and press it; what follows the tip stays above.
        let depth = |p: Vec3, radius_mm: f32| height_mm(p.x, p.y) + radius_mm - p.z;
        let shaft = (pose.port - pose.shaft_end).normalized();
        let behind = pose.shaft_end + shaft * 14.0;
        let lift = depth(pose.tip, 0.2)
            .max(depth(pose.hinge2.lerp(pose.tip, 0.5), 1.6))
            .max(depth(pose.hinge2, 2.6))
            .max(depth(pose.hinge1, 3.2))
            .max(depth(pose.shaft_end, self.radius_mm))
            .max(depth(behind, self.radius_mm));
        if lift > 0.0 {
            self.pose_at(seconds, goal + vec3(0.0, 0.0, lift))
        } else {
            pose
        }
    }

    /// The joints at `seconds` with the tip at `goal`.
    fn pose_at(&self, seconds: f64, goal: Vec3) -> Pose {
        let toward = (goal - self.port).normalized();
        let away = if self.leaves {
            smoothstep(0.78, 0.92, self.away.at(seconds).x) * 75.0
        } else {
            0.0
        };
        let (roll, bend) = if self.hinged {
            (self.roll.at(seconds).x, self.bend.at(seconds))
        } else {
            (self.roll.at(seconds).x * 0.4, vec3(0.0, 0.0, 0.0))
        };
        let open = match self.load {
            Load::Free => self.open.at(seconds).x.max(0.0),
            Load::Suture => 0.10,
            Load::Probe => 0.30,
        };
        // A shaft is never upright, so this axis turns smoothly with it.
        let u = toward
            .cross(vec3(0.0, 0.0, 1.0))
            .normalized()
            .rotated(toward, roll);
        let v = toward.cross(u);
        let link = toward.rotated(u, bend.x);
        let axis2 = v.rotated(u, bend.x);
        let middle = link.rotated(axis2, bend.y);
        // The shaft ends where the jaws, as they are bent, put their tips on the goal; the shaft's own direction
        // is taken from the port to the goal, which is off by a few degrees at most.
        let back = toward * self.link_mm.0 + link * self.link_mm.1 + middle * self.jaw_mm;
        let shaft_end = goal - back - toward * away;
        let shaft = (shaft_end - self.port).normalized();
        let hinge1 = shaft_end + shaft * self.link_mm.0;
        let hinge2 = hinge1 + link * self.link_mm.1;
        let jaws = (
            middle.rotated(axis2, open * 0.5),
            middle.rotated(axis2, -open * 0.5),
        );
        Pose {
            port: self.port,
            shaft_end,
            hinge1,
            hinge2,
            axes: (u, axis2),
            jaws,
            tip: hinge2 + middle * self.jaw_mm,
            open,
        }
    }

    /// Its solids, in camera space.
    pub fn solids(&self, pose: &Pose, view: &View, out: &mut Vec<Solid>) {
        let f = &self.finishes;
        let see = |p: Vec3| view.camera_from_world(p);
        let part = |a: Vec3, b: Vec3, radius_a: f32, radius_b: f32, class: u8, finish: u16| Solid {
            class,
            finish,
            ..plain(see(a), see(b), radius_a, radius_b)
        };
        let shaft = (pose.shaft_end - pose.port).normalized();
        let r = self.radius_mm;
        let (axis1, axis2) = pose.axes;
        let (axis1_seen, axis2_seen) = (view.turn(axis1), view.turn(axis2));
        let collar = pose.shaft_end - shaft * 3.5;
        let tube = part(pose.port, pose.shaft_end, r, r, class::SHAFT, f.shaft);
        out.push(Solid {
            round: false,
            mark: axis1_seen,
            ..tube
        });
        let ring = part(collar, pose.shaft_end, r * 1.05, r * 0.98, class::SHAFT, f.collar);
        out.push(Solid { round: false, ..ring });
        if self.hinged {
            // The clevis is open at the sides: flattened along its hinge.
            let clevis = part(
                pose.shaft_end,
                pose.hinge1,
                r * 0.92,
                r * 0.72,
                class::WRIST,
                f.wrist,
            );
            out.push(Solid {
                flat: Some((axis1_seen, 0.78)),
                mark: axis1_seen,
                ..clevis
            });
            let link = part(
                pose.hinge1,
                pose.hinge2,
                r * 0.74,
                r * 0.66,
                class::WRIST,
                f.wrist,
            );
            out.push(Solid {
                flat: Some((axis2_seen, 0.85)),
                mark: axis2_seen,
                ..link
            });
            for (hinge, axis, half, radius) in [
                (pose.hinge1, axis1, r * 0.8, 1.5),
                (pose.hinge2, axis2, r * 0.74, 1.8),
            ] {
                let pin = part(
                    hinge - axis * half,
                    hinge + axis * half,
                    radius,
                    radius,
                    class::WRIST,
                    f.pin,
                );
                out.push(Solid { round: false, ..pin });
            }
        }
        let (wide, narrow) = self.jaw_radius_mm;
        for (jaw, side) in [(pose.jaws.0, 1.0f32), (pose.jaws.1, -1.0)] {
            // The direction in which this jaw opens.
            let outward = axis2.cross(jaw) * side;
            let bow = jaw.rotated(axis2, side * self.jaw_curve);
            let bow_in = jaw.rotated(axis2, -side * self.jaw_curve);
            let half = self.jaw_mm * 0.5;
            let base = pose.hinge2 + outward * (wide * self.jaw_flat * 0.55);
            let middle = base + bow * half;
            let tip = middle + bow_in * half;
            let mid_radius = (wide + narrow) * 0.5;
            let flat = Some((view.turn(outward), self.jaw_flat));
            for (a, b, ra, rb, finish) in [
                (base, middle, wide, mid_radius, f.jaw),
                (middle, tip, mid_radius, narrow, f.jaw_tip),
            ] {
                let piece = part(a, b, ra, rb, class::CLASPER, finish);
                out.push(Solid {
                    flat,
                    mark: axis2_seen,
                    ..piece
                });
            }
        }
    }
}
