//! Draws an instant, row by row, in linear light: tissue first, then every solid that lies before it.

use super::net::Net;
use super::raster::{HitRow, Pixels};
use super::scene::{Instant, Scene};
use super::tissue::TissueRow;
use crate::geometry::Size;
use rayon::prelude::*;

/// A picture in linear light, its labels and what is where.
#[derive(Debug)]
pub struct Canvas {
    /// Linear red, green and blue, each `[height, width]`.
    pub rgb: [Vec<f32>; 3],
    /// Class ids.
    pub labels: Vec<u8>,
    /// 0 for tissue, one more than the index of the solid elsewhere (the last 255 share one number).
    pub owner: Vec<u8>,
    /// Depth, mm.
    pub depth: Vec<f32>,
}

impl Canvas {
    /// A black picture of `size`.
    pub fn new(size: Size) -> Self {
        let area = size.area();
        Self {
            rgb: [vec![0.0; area], vec![0.0; area], vec![0.0; area]],
            labels: vec![0; area],
            owner: vec![0; area],
            depth: vec![0.0; area],
        }
    }
}

impl Scene {
    /// Draws `instant` onto `canvas`, which is of `size`.
    pub fn draw(&self, instant: &Instant, canvas: &mut Canvas, size: Size) {
        let width = size.width_px as usize;
        let net = Net::cast(self, instant, size);
        canvas.owner.fill(0);
        let [red, green, blue] = &mut canvas.rgb;
        (
            red.par_chunks_mut(width),
            green.par_chunks_mut(width),
            blue.par_chunks_mut(width),
        )
            .into_par_iter()
            .zip((
                canvas.labels.par_chunks_mut(width),
                canvas.owner.par_chunks_mut(width),
                canvas.depth.par_chunks_mut(width),
            ))
            .enumerate()
            .for_each_init(
                || (TissueRow::new(&net, width), HitRow::new(width)),
                |(tissue, hits), (y, ((red, green, blue), (labels, owner, depth)))| {
                    let rgb = [&mut *red, &mut *green, &mut *blue];
                    tissue.shade(self, instant, &net, y, rgb, labels);
                    depth.copy_from_slice(&tissue.depths()[..width]);
                    let mut pixels = Pixels {
                        rgb: [red, green, blue],
                        labels,
                        owner,
                        depth,
                    };
                    hits.draw(self, instant, y, &mut pixels);
                },
            );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::phantom::anatomy::class;
    use crate::data::phantom::camera::Eye;
    use crate::data::phantom::random::Random;
    use crate::data::phantom::scenario::CASTS;

    /// Every pixel shows what is nearest along its ray, found here by trying every solid.
    #[test]
    fn the_nearest_thing_hides_the_others() {
        let size = Size {
            width_px: 160,
            height_px: 128,
        };
        let mut random = Random::new(6);
        let (mut tissue, mut solids) = (0, 0);
        for (seed, cast) in CASTS.into_iter().chain(CASTS).enumerate() {
            let scene = Scene::new(seed as u64, cast, size);
            let instant = scene.at(1.7, Eye::Left);
            let mut canvas = Canvas::new(size);
            scene.draw(&instant, &mut canvas, size);
            let mut bare = Canvas::new(size);
            scene.draw(
                &Instant {
                    solids: Vec::new(),
                    ..scene.at(1.7, Eye::Left)
                },
                &mut bare,
                size,
            );
            for _ in 0..2000 {
                let (x, y) = (random.below(160), random.below(128));
                let at = y * 160 + x;
                // What each of five rays through the pixel's middle shows: an outline may pass between them.
                let look = |dx: f32, dy: f32| {
                    let d = instant.view.ray(x as f32 + 0.5 + dx, y as f32 + 0.5 + dy);
                    let (mut nearest, mut label) = (bare.depth[at], bare.labels[at]);
                    for prepared in &instant.solids {
                        let Some(hit) = prepared.meet(d) else { continue };
                        let finish = &scene.finishes[usize::from(prepared.solid.finish)];
                        if hit.z < nearest && !finish.open(&prepared.solid, &hit, d) {
                            (nearest, label) = (hit.z, prepared.solid.class);
                        }
                    }
                    (label, nearest)
                };
                let seen = [(0.0, 0.0), (0.03, 0.0), (-0.03, 0.0), (0.0, 0.03), (0.0, -0.03)]
                    .map(|(x, y)| look(x, y));
                let label = canvas.labels[at];
                assert!(
                    seen.iter().any(|s| s.0 == label),
                    "cast {seed}, pixel {x}, {y}: {label} in {seen:?}"
                );
                if seen.iter().all(|s| s.0 == label && (s.1 - seen[0].1).abs() < 0.1) {
                    assert!(
                        (canvas.depth[at] - seen[0].1).abs() < 0.02,
                        "cast {seed}, pixel {x}, {y}"
                    );
                }
                let is_tissue = [
                    class::BACKGROUND,
                    class::KIDNEY,
                    class::COVERED_KIDNEY,
                    class::INTESTINE,
                ];
                assert_eq!(canvas.owner[at] == 0, is_tissue.contains(&label));
                *if canvas.owner[at] == 0 {
                    &mut tissue
                } else {
                    &mut solids
                } += 1;
            }
        }
        assert!(tissue > 10_000 && solids > 1000, "{tissue} {solids}");
    }
}
