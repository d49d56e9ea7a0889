//! Where on the screen a solid may be seen: a few capsules in pixels that surely hold it.

use super::camera::View;
use super::solid::Solid;
use super::vector::Vec3;

/// Capsules at most: perspective makes the near end of a shaft far thicker than the other.
const PARTS: usize = 5;

/// The outline of a solid, an upper bound.
#[derive(Debug, Clone)]
pub struct Outline {
    parts: [Part; PARTS],
    count: usize,
}

/// One capsule.
#[derive(Debug, Clone, Copy, Default)]
struct Part {
    from: (f32, f32),
    to: (f32, f32),
    radius_px: f32,
}

impl Outline {
    /// The outline of `solid`, which lies before the camera.
    pub fn new(solid: &Solid, view: &View) -> Self {
        let size = |p: Vec3, r: f32| {
            // A sphere seen off the axis is an ellipse, longer outward by 1 / cos of the angle.
            let off = (p.x * p.x + p.y * p.y) / (p.z * p.z);
            view.focal_px * r / (p.z - r).max(1.0) * (1.0 + 0.6 * off) + 1.5
        };
        let point = |t: f32| solid.a.lerp(solid.b, t);
        let radius = |t: f32| size(point(t), solid.radius_a + (solid.radius_b - solid.radius_a) * t);
        let (first, last) = (radius(0.0), radius(1.0));
        let count = if (first - last).abs() > 0.12 * first.min(last) {
            PARTS
        } else {
            1
        };
        let mut parts = [Part::default(); PARTS];
        // Cuts even in 1 / z are even on the screen.
        let cut = |i: usize| {
            let s = i as f32 / count as f32;
            (s * solid.a.z / (s * solid.a.z + (1.0 - s) * solid.b.z)).clamp(0.0, 1.0)
        };
        for (i, part) in parts.iter_mut().take(count).enumerate() {
            let (t0, t1) = (cut(i), cut(i + 1));
            *part = Part {
                from: view.project(point(t0)),
                to: view.project(point(t1)),
                radius_px: radius(t0).max(radius(t1)),
            };
        }
        Self { parts, count }
    }

    /// Columns of row `y_px` that the solid may cover, clamped to `0..width`; empty for none.
    pub fn span(&self, y_px: f32, width: usize) -> std::ops::Range<usize> {
        let (mut left, mut right) = (f32::MAX, f32::MIN);
        for part in &self.parts[..self.count] {
            if let Some((low, high)) = part.columns(y_px) {
                left = left.min(low);
                right = right.max(high);
            }
        }
        if left > right {
            return 0..0;
        }
        let bound = width as f32;
        let (left, right) = (
            left.clamp(0.0, bound) as usize,
            (right + 1.0).clamp(0.0, bound) as usize,
        );
        left..right.max(left)
    }

    /// The ends of the solid's axis on the screen, px.
    pub fn ends_px(&self) -> [(f32, f32); 2] {
        [self.parts[0].from, self.parts[self.count - 1].to]
    }
}

impl Part {
    /// First and last column of row `y_px`.
    fn columns(&self, y_px: f32) -> Option<(f32, f32)> {
        let Part {
            from,
            to,
            radius_px: r,
        } = *self;
        if y_px < from.1.min(to.1) - r || y_px > from.1.max(to.1) + r {
            return None;
        }
        let (mut left, mut right) = (from.0.min(to.0) - r, from.0.max(to.0) + r);
        let (dx, dy) = (to.0 - from.0, to.1 - from.1);
        if dy.abs() > 1.0 {
            let centre = from.0 + dx * (y_px - from.1) / dy;
            let half = r * (dx * dx + dy * dy).sqrt() / dy.abs();
            left = left.max(centre - half);
            right = right.min(centre + half);
        }
        (left <= right).then_some((left, right))
    }
}
