//! Clamps, suction tube and ultrasound probe.

use super::anatomy::class;
use super::camera::View;
use super::finish::{Finish, Pattern};
use super::instrument::Pose;
use super::motion::{Stops, Wander};
use super::random::Random;
use super::solid::{Solid, plain};
use super::vector::{Vec3, smoothstep, vec3};

/// A bulldog clamp that sits on the tissue: two jaws, a spring hinge, two crossed handles.
#[derive(Debug, Clone)]
pub struct Clamp {
    at: (f32, f32),
    direction: (f32, f32),
    scale: f32,
    gape: f32,
    jaw: u16,
    hinge: u16,
    handle: u16,
}

impl Clamp {
    /// Draws a clamp near `centre`.
    pub fn new(random: &mut Random, centre: (f32, f32), finishes: &mut Vec<Finish>) -> Self {
        let (sin, cos) = libm::sincosf(random.range(0.0, std::f32::consts::TAU));
        let plastic = [
            vec3(0.05, 0.12, 0.42),
            vec3(0.42, 0.30, 0.08),
            vec3(0.06, 0.06, 0.07),
            vec3(0.5, 0.48, 0.42),
        ];
        let jaw = if random.chance(0.6) {
            Finish::metal(random, vec3(1.0, 0.98, 0.94), Pattern::Teeth { count: 9.0 })
        } else {
            let color = plastic[random.below(plastic.len())];
            Finish {
                pattern: Pattern::Teeth { count: 9.0 },
                ..Finish::coat(random, color)
            }
        };
        finishes.push(jaw);
        finishes.push(Finish {
            pattern: Pattern::Hub,
            ..jaw
        });
        finishes.push(Finish {
            pattern: Pattern::Plain,
            ..jaw
        });
        Self {
            at: (
                centre.0 + random.range(-9.0, 9.0),
                centre.1 + random.range(-9.0, 9.0),
            ),
            direction: (cos, sin),
            scale: random.range(1.0, 1.3),
            gape: random.range(0.03, 0.16),
            jaw: (finishes.len() - 3) as u16,
            hinge: (finishes.len() - 2) as u16,
            handle: (finishes.len() - 1) as u16,
        }
    }

    /// Its solids, in camera space, over tissue of height `height_mm`.
    pub fn solids(&self, height_mm: impl Fn(f32, f32) -> f32, view: &View, out: &mut Vec<Solid>) {
        let (dx, dy) = self.direction;
        let forward = vec3(dx, dy, 0.0);
        let side = vec3(-dy, dx, 0.0);
        let up = vec3(0.0, 0.0, 1.0);
        let s = self.scale;
        let middle = vec3(self.at.0, self.at.1, 0.0);
        // It rests on the highest points under it: hinge and tip give a line, and the rest lifts that line.
        let ground = |along: f32| height_mm(self.at.0 + dx * along * s, self.at.1 + dy * along * s);
        let (hinge_ground, tip_ground) = (ground(-6.0), ground(10.0));
        let bulge = |along: f32| {
            let t = (along + 6.0) / 16.0;
            ground(along) - (hinge_ground + (tip_ground - hinge_ground) * t)
        };
        let lift = bulge(-14.0)
            .max(bulge(-2.0))
            .max(bulge(2.0))
            .max(bulge(6.0))
            .clamp(0.0, 9.0);
        let hinge = middle - forward * (6.0 * s) + up * (hinge_ground + lift + 2.6 * s);
        let reach = (middle + forward * (11.0 * s) + up * (tip_ground + lift + 1.2 * s)) - hinge;
        let along = reach.normalized();
        let seen_up = view.turn(up);
        let mut push =
            |a: Vec3, b: Vec3, ra: f32, rb: f32, flat: Option<(Vec3, f32)>, round: bool, finish: u16| {
                let piece = plain(view.camera_from_world(a), view.camera_from_world(b), ra, rb);
                out.push(Solid {
                    class: class::CLAMPS,
                    finish,
                    flat,
                    round,
                    ..piece
                });
            };
        for turn in [1.0f32, -1.0] {
            let jaw = along.rotated(up, turn * self.gape);
            let base = hinge + side * (turn * 1.25 * s);
            let length = reach.length();
            let knee = base + jaw * (length * 0.55) + side * (turn * 0.4 * s);
            let tip = base + jaw * length - side * (turn * 0.5 * s);
            let flat = Some((view.turn(side * turn), 0.62));
            push(base, knee, 1.75 * s, 1.5 * s, flat, true, self.jaw);
            push(knee, tip, 1.5 * s, 1.0 * s, flat, true, self.jaw);
            // Handles cross behind the hinge and end in finger pads.
            let handle = (-along).rotated(up, turn * 0.42) + up * 0.12;
            let end = hinge + handle * (8.5 * s);
            push(hinge, end, 1.2 * s, 1.1 * s, None, true, self.handle);
            push(
                end - handle * (2.5 * s),
                end + handle * (2.0 * s),
                1.9 * s,
                1.7 * s,
                Some((seen_up, 0.45)),
                true,
                self.handle,
            );
        }
        push(
            hinge - up * (1.9 * s),
            hinge + up * (2.2 * s),
            2.5 * s,
            2.3 * s,
            None,
            false,
            self.hinge,
        );
    }
}

/// A suction tube: long, thin, without wrist, with holes near its rounded end.
#[derive(Debug, Clone)]
pub struct Suction {
    port: Vec3,
    tip: Stops,
    tremor: [Wander; 3],
    away: Stops,
    radius_mm: f32,
    tube: u16,
    end: u16,
    ring: u16,
}

impl Suction {
    /// Draws a tube that comes in from the direction `angle` of the picture and works around `work`.
    pub fn new(
        random: &mut Random,
        view: &View,
        angle: f32,
        work: (f32, f32),
        finishes: &mut Vec<Finish>,
    ) -> Self {
        let (sin, cos) = libm::sincosf(angle);
        let port = view.world_from_camera(vec3(cos * 115.0, sin * 95.0, random.range(4.0, 24.0)));
        let finish = match random.below(3) {
            0 => Finish::metal(random, vec3(1.0, 0.99, 0.97), Pattern::Brushed),
            1 => Finish::coat(random, vec3(0.55, 0.56, 0.58)),
            _ => Finish::coat(random, vec3(0.06, 0.065, 0.08)),
        };
        for pattern in [finish.pattern, Pattern::Holes, Pattern::Rings { count: 3.0 }] {
            finishes.push(Finish { pattern, ..finish });
        }
        let first = (finishes.len() - 3) as u16;
        let reach = 13.0;
        Self {
            port,
            tip: Stops::new(
                random,
                1.8,
                0.35,
                vec3(work.0 - reach, work.1 - reach, -0.6),
                vec3(work.0 + reach, work.1 + reach, 5.0),
            ),
            tremor: [
                Wander::new(random, 0.35, 0.3),
                Wander::new(random, 0.35, 0.3),
                Wander::new(random, 0.4, 0.25),
            ],
            away: Stops::new(random, 4.0, 0.3, vec3(0.0, 0.0, 0.0), vec3(1.0, 0.0, 0.0)),
            radius_mm: random.range(2.4, 2.9),
            tube: first,
            end: first + 1,
            ring: first + 2,
        }
    }

    /// Where its end is, over tissue of height `height_mm`.
    pub fn tip(&self, seconds: f64, height_mm: impl Fn(f32, f32) -> f32) -> Vec3 {
        let goal = self.tip.at(seconds);
        let tremble = vec3(
            self.tremor[0].at(seconds),
            self.tremor[1].at(seconds),
            self.tremor[2].at(seconds),
        );
        let goal = vec3(goal.x, goal.y, height_mm(goal.x, goal.y) + goal.z) + tremble;
        let away = smoothstep(0.9, 0.97, self.away.at(seconds).x) * 60.0;
        goal + (self.port - goal).normalized() * away
    }

    /// Its solids, in camera space.
    pub fn solids(&self, tip: Vec3, view: &View, out: &mut Vec<Solid>) {
        let axis = (self.port - tip).normalized();
        let r = self.radius_mm;
        let mut push = |a: Vec3, b: Vec3, ra: f32, rb: f32, round: bool, finish: u16| {
            let piece = plain(view.camera_from_world(a), view.camera_from_world(b), ra, rb);
            out.push(Solid {
                class: class::SUCTION,
                finish,
                round,
                ..piece
            });
        };
        push(self.port, tip + axis * 17.0, r, r, false, self.tube);
        push(
            tip + axis * 20.0,
            tip + axis * 15.5,
            r * 1.12,
            r * 1.12,
            false,
            self.ring,
        );
        push(tip + axis * 16.0, tip, r * 0.98, r * 0.86, true, self.end);
    }
}

/// A drop-in ultrasound probe: a blunt body with a fin that an instrument holds, a dark face, a cable.
#[derive(Debug, Clone)]
pub struct Probe {
    half_mm: f32,
    radius_mm: f32,
    heading: Wander,
    base_heading: f32,
    cable_bend: f32,
    shell: u16,
    face: u16,
    cable: u16,
    fin: u16,
}

/// Height of the fin's top over the middle of the body, mm.
const FIN_MM: f32 = 8.0;

/// Heights over the tissue at which an instrument holds the fin, mm.
pub const PROBE_HOLD_MM: (f32, f32) = (11.5, 13.0);

impl Probe {
    /// Draws a probe.
    pub fn new(random: &mut Random, finishes: &mut Vec<Finish>) -> Self {
        let colors = [
            vec3(0.62, 0.60, 0.55),
            vec3(0.10, 0.16, 0.30),
            vec3(0.30, 0.32, 0.34),
            vec3(0.55, 0.42, 0.28),
        ];
        let (shell, cable) = (
            colors[random.below(colors.len())],
            colors[random.below(colors.len())],
        );
        let shell = Finish::coat(random, shell);
        let face = Finish::coat(random, vec3(0.05, 0.05, 0.06));
        let cable = Finish::coat(random, cable * 0.6);
        finishes.extend([
            Finish {
                pattern: Pattern::Rings { count: 2.0 },
                ..shell
            },
            face,
            cable,
            shell,
        ]);
        let first = (finishes.len() - 4) as u16;
        Self {
            half_mm: random.range(12.0, 15.0),
            radius_mm: random.range(5.6, 6.6),
            heading: Wander::new(random, 2.6, 0.5),
            base_heading: random.range(0.0, std::f32::consts::TAU),
            cable_bend: random.range(0.15, 0.35) * random.sign(),
            shell: first,
            face: first + 1,
            cable: first + 2,
            fin: first + 3,
        }
    }

    /// Its solids, in camera space, hanging from the jaws of `pose`.
    pub fn solids(
        &self,
        pose: &Pose,
        seconds: f64,
        height_mm: impl Fn(f32, f32) -> f32,
        view: &View,
        out: &mut Vec<Solid>,
    ) {
        let angle = self.base_heading + self.heading.at(seconds);
        let (sin, cos) = libm::sincosf(angle);
        let up = vec3(0.0, 0.0, 1.0);
        let forward = vec3(cos, sin, 0.0);
        let middle = pose.tip - up * FIN_MM;
        // Follows the slope of the tissue beneath.
        let slope = |d: Vec3| {
            let (a, b) = (middle + d * 8.0, middle - d * 8.0);
            ((height_mm(a.x, a.y) - height_mm(b.x, b.y)) / 16.0).clamp(-0.5, 0.5)
        };
        let forward = (forward + up * slope(forward)).normalized();
        let side = vec3(-sin, cos, 0.0);
        let normal = forward.cross(side).normalized();
        let normal = if normal.z < 0.0 { -normal } else { normal };
        let r = self.radius_mm;
        let (front, back) = (middle + forward * self.half_mm, middle - forward * self.half_mm);
        let flat = Some((view.turn(normal), 0.72));
        let mut push = |a: Vec3, b: Vec3, ra: f32, rb: f32, flat: Option<(Vec3, f32)>, finish: u16| {
            let piece = plain(view.camera_from_world(a), view.camera_from_world(b), ra, rb);
            out.push(Solid {
                class: class::PROBE,
                finish,
                flat,
                ..piece
            });
        };
        push(back, front, r * 0.86, r, flat, self.shell);
        let face = normal * (r * 0.28);
        push(
            middle - face,
            front - face + forward,
            r * 0.98,
            r * 0.98,
            flat,
            self.face,
        );
        push(
            middle + normal * (r * 0.5),
            pose.tip,
            4.2,
            2.6,
            Some((view.turn(side), 0.3)),
            self.fin,
        );
        // The cable leaves at the back, sinks to the tissue and curls off.
        let mut from = back - forward * (r * 0.5);
        let mut heading = -forward;
        for i in 0..14 {
            heading = heading.rotated(up, self.cable_bend * if i < 6 { 1.0 } else { -0.6 });
            let next = from + heading * 7.0;
            let ground = height_mm(next.x, next.y) + 1.9;
            let to = vec3(next.x, next.y, from.z + (ground - from.z) * 0.6);
            let radius = if i == 0 { 2.4 } else { 1.8 };
            push(from, to, radius, 1.8, None, self.cable);
            from = to;
        }
    }
}
