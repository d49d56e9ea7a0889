//! Draws solids into a row of pixels: first what is hit where, then, once, the light of what remains visible.

use super::finish::{Finish, Lighting, Run};
use super::lanes::dispatch;
use super::scene::{Instant, Scene};
use super::solid::{BLOCK, Prepared, Sides};
use super::vector::{Vec3, vec3};
use pulp::{Simd, WithSimd};

/// What the rays of one row have hit so far.
#[derive(Debug)]
pub struct HitRow {
    /// One more than the index of the solid; 0 for tissue.
    owner: Vec<u16>,
    normal: [Vec<f32>; 3],
    along: Vec<f32>,
}

/// The pixels of the row that hits are drawn into.
#[derive(Debug)]
pub struct Pixels<'a> {
    /// Linear light per channel.
    pub rgb: [&'a mut [f32]; 3],
    /// Class ids.
    pub labels: &'a mut [u8],
    /// See [`super::render::Canvas::owner`].
    pub owner: &'a mut [u8],
    /// Depth, mm: of the tissue before, of what is visible after.
    pub depth: &'a mut [f32],
}

impl HitRow {
    /// Buffers for rows of `width` pixels.
    pub fn new(width: usize) -> Self {
        Self {
            owner: vec![0; width],
            normal: [vec![0.0; width], vec![0.0; width], vec![0.0; width]],
            along: vec![0.0; width],
        }
    }

    /// Draws the solids of `instant` into row `y`.
    pub fn draw(&mut self, scene: &Scene, instant: &Instant, y: usize, pixels: &mut Pixels) {
        self.owner.fill(0);
        let y_px = y as f32 + 0.5;
        let step = 1.0 / instant.view.focal_px;
        let (mut first, mut last) = (usize::MAX, 0);
        for (index, prepared) in instant.solids.iter().enumerate() {
            let span = prepared.outline().span(y_px, pixels.depth.len());
            if span.is_empty() {
                continue;
            }
            first = first.min(span.start);
            last = last.max(span.end);
            let finish = &scene.finishes[usize::from(prepared.solid.finish)];
            let id = (index + 1) as u16;
            for start in span.clone().step_by(BLOCK) {
                let ray = instant.view.ray(start as f32 + 0.5, y_px);
                let mut sides = Sides::default();
                dispatch(MeetSides {
                    prepared,
                    ray,
                    step,
                    out: &mut sides,
                });
                for i in 0..BLOCK.min(span.end - start) {
                    let x = start + i;
                    let (depth, along) = (sides.depth[i], sides.along[i]);
                    // Where the side is met it is met first; elsewhere an end may still lie in front.
                    if depth > pixels.depth[x] && (0.0..=1.0).contains(&along) {
                        continue;
                    }
                    let d = vec3(ray.x + step * i as f32, ray.y, ray.z);
                    let Some(hit) = prepared.resolve(d, &sides, i) else {
                        continue;
                    };
                    if hit.z < pixels.depth[x] && !finish.open(&prepared.solid, &hit, d) {
                        pixels.depth[x] = hit.z;
                        self.owner[x] = id;
                        self.normal[0][x] = hit.normal.x;
                        self.normal[1][x] = hit.normal.y;
                        self.normal[2][x] = hit.normal.z;
                        self.along[x] = hit.along;
                    }
                }
            }
        }
        let last = last.min(pixels.depth.len());
        let mut x = first.min(last);
        while x < last {
            let id = self.owner[x];
            let end = self.owner[x..last]
                .iter()
                .position(|&o| o != id)
                .map_or(last, |n| x + n);
            if id > 0 {
                self.light(scene, instant, y_px, x..end, pixels);
            }
            x = end;
        }
    }

    /// Lights the run `range`, all of one solid.
    fn light(
        &self,
        scene: &Scene,
        instant: &Instant,
        y_px: f32,
        range: std::ops::Range<usize>,
        pixels: &mut Pixels,
    ) {
        let id = self.owner[range.start];
        let prepared = &instant.solids[usize::from(id) - 1];
        let finish = &scene.finishes[usize::from(prepared.solid.finish)];
        pixels.labels[range.clone()].fill(prepared.solid.class);
        pixels.owner[range.clone()].fill(id.min(255) as u8);
        let [red, green, blue] = &mut pixels.rgb;
        let [nx, ny, nz] = &self.normal;
        let run = Run {
            ray: instant.view.ray(range.start as f32 + 0.5, y_px),
            step: 1.0 / instant.view.focal_px,
            depth: &pixels.depth[range.clone()],
            normal: [&nx[range.clone()], &ny[range.clone()], &nz[range.clone()]],
            along: &self.along[range.clone()],
            rgb: [
                &mut red[range.clone()],
                &mut green[range.clone()],
                &mut blue[range],
            ],
        };
        let lighting = Lighting {
            lamp: scene.lamp,
            ambient: scene.palette.ground[0] * 0.9,
        };
        finish.shade(prepared, &lighting, run);
    }
}

struct MeetSides<'a> {
    prepared: &'a Prepared,
    ray: Vec3,
    step: f32,
    out: &'a mut Sides,
}

impl WithSimd for MeetSides<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.prepared.meet_sides(self.ray, self.step, self.out);
    }
}

impl Finish {
    fn shade(&self, prepared: &Prepared, lighting: &Lighting, run: Run) {
        dispatch(Shade {
            finish: self,
            prepared,
            lighting,
            run,
        });
    }
}

struct Shade<'a> {
    finish: &'a Finish,
    prepared: &'a Prepared,
    lighting: &'a Lighting,
    run: Run<'a>,
}

impl WithSimd for Shade<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.finish.light(self.prepared, self.lighting, self.run);
    }
}
