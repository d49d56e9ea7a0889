//! Three-dimensional vectors in single precision.
//!
//! Only additions, multiplications, divisions and square roots are used, which IEEE 754 rounds the same way on
//! every machine. World space is in millimetres with `z` up; camera space has `x` right, `y` down, `z` ahead.

use std::ops::{Add, AddAssign, Mul, Neg, Sub};

/// A point or direction.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Vec3 {
    /// First coordinate.
    pub x: f32,
    /// Second coordinate.
    pub y: f32,
    /// Third coordinate.
    pub z: f32,
}

/// Shorthand for a [`Vec3`].
#[inline(always)]
pub const fn vec3(x: f32, y: f32, z: f32) -> Vec3 {
    Vec3 { x, y, z }
}

impl Vec3 {
    /// Scalar product.
    #[inline(always)]
    pub fn dot(self, other: Self) -> f32 {
        self.x * other.x + self.y * other.y + self.z * other.z
    }

    /// Vector product.
    #[inline(always)]
    pub fn cross(self, other: Self) -> Self {
        vec3(
            self.y * other.z - self.z * other.y,
            self.z * other.x - self.x * other.z,
            self.x * other.y - self.y * other.x,
        )
    }

    /// Euclidean length.
    #[inline(always)]
    pub fn length(self) -> f32 {
        self.dot(self).sqrt()
    }

    /// The same direction with length 1; a vector too short to have one becomes the `z` axis.
    #[inline(always)]
    pub fn normalized(self) -> Self {
        let length = self.length();
        if length > 1e-12 {
            self * (1.0 / length)
        } else {
            vec3(0.0, 0.0, 1.0)
        }
    }

    /// The point a fraction `t` of the way to `other`.
    #[inline(always)]
    pub fn lerp(self, other: Self, t: f32) -> Self {
        self + (other - self) * t
    }

    /// Some unit vector at right angles to this unit vector; it turns smoothly with it nearly everywhere.
    pub fn any_perpendicular(self) -> Self {
        let first = self.cross(vec3(0.36, 0.48, 0.8));
        if first.dot(first) > 1e-4 {
            first.normalized()
        } else {
            self.cross(vec3(1.0, 0.0, 0.0)).normalized()
        }
    }

    /// Turned by `angle` radians about the unit vector `axis` (Rodrigues).
    pub fn rotated(self, axis: Self, angle: f32) -> Self {
        let (sin, cos) = libm::sincosf(angle);
        self * cos + axis.cross(self) * sin + axis * (axis.dot(self) * (1.0 - cos))
    }
}

impl Add for Vec3 {
    type Output = Self;
    #[inline(always)]
    fn add(self, o: Self) -> Self {
        vec3(self.x + o.x, self.y + o.y, self.z + o.z)
    }
}

impl AddAssign for Vec3 {
    #[inline(always)]
    fn add_assign(&mut self, o: Self) {
        *self = *self + o;
    }
}

impl Sub for Vec3 {
    type Output = Self;
    #[inline(always)]
    fn sub(self, o: Self) -> Self {
        vec3(self.x - o.x, self.y - o.y, self.z - o.z)
    }
}

impl Neg for Vec3 {
    type Output = Self;
    #[inline(always)]
    fn neg(self) -> Self {
        vec3(-self.x, -self.y, -self.z)
    }
}

impl Mul<f32> for Vec3 {
    type Output = Self;
    #[inline(always)]
    fn mul(self, s: f32) -> Self {
        vec3(self.x * s, self.y * s, self.z * s)
    }
}

/// `t` moved from `[low, high]` to `[0, 1]`, clamped, with zero slope at both ends.
#[inline(always)]
pub fn smoothstep(low: f32, high: f32, t: f32) -> f32 {
    let x = ((t - low) / (high - low)).clamp(0.0, 1.0);
    x * x * (3.0 - 2.0 * x)
}

/// `a` for `t = 0`, `b` for `t = 1`.
#[inline(always)]
pub fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turning_keeps_length_and_angle() {
        let axis = vec3(1.0, 2.0, -0.5).normalized();
        let v = vec3(0.3, -1.0, 2.0);
        let turned = v.rotated(axis, 1.1);
        assert!((turned.length() - v.length()).abs() < 1e-5);
        assert!((turned.dot(axis) - v.dot(axis)).abs() < 1e-5);
        let back = turned.rotated(axis, -1.1);
        assert!((back - v).length() < 1e-5);
    }

    #[test]
    fn perpendicular_is_perpendicular() {
        for v in [
            vec3(1.0, 0.0, 0.0),
            vec3(0.36, 0.48, 0.8),
            vec3(0.7, 0.7, 0.1).normalized(),
        ] {
            let p = v.any_perpendicular();
            assert!(p.dot(v).abs() < 1e-6 && (p.length() - 1.0).abs() < 1e-6);
        }
    }
}
