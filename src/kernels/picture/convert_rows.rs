//! One row of pixels to three planes of bytes: the loops under [`super::convert`], compiled for every instruction set.
//!
//! Samples that two pixels share are first written twice, so that what follows is the same for every pixel:
//! ```text
//! wide(s) = 257 (s - 128), in 16 bits       high(a b) = a b / 65536, rounded down
//! r = 128 + high(wide(y) ky) + high(wide(v) kr)   and so on, clamped
//! ```
//! The reference in the tests computes pixel by pixel from the definition in `convert`.

use crate::kernels::simd::{Body, dispatch};

/// Factors of [`matrix`], with 8 fractional bits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Factors {
    pub luma: i16,
    pub red_from_v: i16,
    pub green_from_u: i16,
    pub green_from_v: i16,
    pub blue_from_u: i16,
}

/// Three planes of bytes, each as long as the row.
pub(super) type Planes<'a> = [&'a mut [u8]; 3];

/// Takes pixels of `BYTES` bytes apart: channel `i` is byte `order[i]`.
pub(super) fn take_apart<const BYTES: usize>(pixels: &[u8], order: [usize; 3], planes: Planes<'_>) {
    struct TakeApart<'a, const BYTES: usize> {
        pixels: &'a [u8],
        order: [usize; 3],
        planes: Planes<'a>,
    }
    impl<const BYTES: usize> Body for TakeApart<'_, BYTES> {
        type Output = ();

        #[inline(always)]
        fn run<const FMA: bool>(self) {
            let [first, second, third] = self.planes;
            let (pixels, _) = self.pixels.as_chunks::<BYTES>();
            let planes = first.iter_mut().zip(second).zip(third);
            // With the order a constant the compiler can use shuffles.
            match self.order {
                [0, 1, 2] => {
                    for (((a, b), c), pixel) in planes.zip(pixels) {
                        (*a, *b, *c) = (pixel[0], pixel[1], pixel[2]);
                    }
                }
                [2, 1, 0] => {
                    for (((a, b), c), pixel) in planes.zip(pixels) {
                        (*a, *b, *c) = (pixel[2], pixel[1], pixel[0]);
                    }
                }
                [i, j, k] => {
                    for (((a, b), c), pixel) in planes.zip(pixels) {
                        (*a, *b, *c) = (pixel[i], pixel[j], pixel[k]);
                    }
                }
            }
        }
    }
    dispatch(TakeApart::<BYTES> {
        pixels,
        order,
        planes,
    });
}

/// Chroma pairs (U, V) to a U and a V for each of the two pixels they serve. Lengths are even.
pub(super) fn spread_pairs(pairs: &[u8], u: &mut [u8], v: &mut [u8]) {
    struct Spread<'a>(&'a [u8], &'a mut [u8], &'a mut [u8]);
    impl Body for Spread<'_> {
        type Output = ();

        #[inline(always)]
        fn run<const FMA: bool>(self) {
            let (pairs, _) = self.0.as_chunks::<2>();
            let ((u, _), (v, _)) = (self.1.as_chunks_mut::<2>(), self.2.as_chunks_mut::<2>());
            for ((u, v), pair) in u.iter_mut().zip(v).zip(pairs) {
                let both = u16::from_le_bytes(*pair);
                *u = ((both & 0xff) * 0x101).to_le_bytes();
                *v = ((both >> 8) * 0x101).to_le_bytes();
            }
        }
    }
    dispatch(Spread(pairs, u, v));
}

/// Each sample twice.
pub(super) fn spread(samples: &[u8], twice: &mut [u8]) {
    struct Spread<'a>(&'a [u8], &'a mut [u8]);
    impl Body for Spread<'_> {
        type Output = ();

        #[inline(always)]
        fn run<const FMA: bool>(self) {
            let (twice, _) = self.1.as_chunks_mut::<2>();
            for (twice, &sample) in twice.iter_mut().zip(self.0) {
                *twice = (u16::from(sample) * 0x101).to_le_bytes();
            }
        }
    }
    dispatch(Spread(samples, twice));
}

/// Groups of four bytes for two pixels: luma at `LUMA` and `LUMA + 2`, U and V at the other two places, in this order.
pub(super) fn spread_groups<const LUMA: u32>(groups: &[u8], luma: &mut [u8], u: &mut [u8], v: &mut [u8]) {
    struct Spread<'a, const LUMA: u32>(&'a [u8], &'a mut [u8], &'a mut [u8], &'a mut [u8]);
    impl<const LUMA: u32> Body for Spread<'_, LUMA> {
        type Output = ();

        #[inline(always)]
        fn run<const FMA: bool>(self) {
            let (groups, _) = self.0.as_chunks::<4>();
            let (luma, _) = self.1.as_chunks_mut::<2>();
            let ((u, _), (v, _)) = (self.2.as_chunks_mut::<2>(), self.3.as_chunks_mut::<2>());
            for (((luma, u), v), group) in luma.iter_mut().zip(u).zip(v).zip(groups) {
                let all = u32::from_le_bytes(*group);
                let (lumas, chromas) = (all >> (8 * LUMA), all >> (8 * (1 - LUMA)));
                *luma = ((lumas & 0xff | (lumas >> 8) & 0xff00) as u16).to_le_bytes();
                *u = (((chromas & 0xff) * 0x101) as u16).to_le_bytes();
                *v = ((((chromas >> 16) & 0xff) * 0x101) as u16).to_le_bytes();
            }
        }
    }
    dispatch(Spread::<LUMA>(groups, luma, u, v));
}

/// Luma and chroma of each pixel to red, green and blue.
pub(super) fn matrix(factors: Factors, luma: &[u8], u: &[u8], v: &[u8], rgb: Planes<'_>) {
    struct Matrix<'a> {
        factors: Factors,
        luma: &'a [u8],
        u: &'a [u8],
        v: &'a [u8],
        rgb: Planes<'a>,
    }
    impl Body for Matrix<'_> {
        type Output = ();

        #[inline(always)]
        fn run<const FMA: bool>(self) {
            let Factors {
                luma: ky,
                red_from_v,
                green_from_u,
                green_from_v,
                blue_from_u,
            } = self.factors;
            let [red, green, blue] = self.rgb;
            let samples = self.luma.iter().zip(self.u).zip(self.v);
            for (((red, green), blue), ((&luma, &u), &v)) in red.iter_mut().zip(green).zip(blue).zip(samples)
            {
                let (luma, u, v) = (high(wide(luma), ky), wide(u), wide(v));
                *red = centred(luma + high(v, red_from_v));
                *green = centred(luma + high(u, green_from_u) + high(v, green_from_v));
                *blue = centred(luma + high(u, blue_from_u));
            }
        }
    }
    dispatch(Matrix {
        factors,
        luma,
        u,
        v,
        rgb,
    });
}

/// Luma alone, in place.
pub(super) fn stretch(factor: i16, luma: &mut [u8]) {
    struct Stretch<'a>(i16, &'a mut [u8]);
    impl Body for Stretch<'_> {
        type Output = ();

        #[inline(always)]
        fn run<const FMA: bool>(self) {
            for sample in self.1 {
                *sample = centred(high(wide(*sample), self.0));
            }
        }
    }
    dispatch(Stretch(factor, luma));
}

/// A sample about 128, its byte repeated in the low byte: -128..=127 as -32768..=32767.
#[inline(always)]
pub(super) fn wide(sample: u8) -> i16 {
    (u16::from(sample ^ 0x80) * 0x101) as i16
}

/// The upper half of a product. With factors of at most 4 (1024) the sum of three fits with room.
#[inline(always)]
pub(super) fn high(sample: i16, factor: i16) -> i16 {
    ((i32::from(sample) * i32::from(factor)) >> 16) as i16
}

/// Back from about 0, clamped.
#[inline(always)]
pub(super) fn centred(value: i16) -> u8 {
    (value + 128).clamp(0, 255) as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(count: usize, mut seed: u64) -> Vec<u8> {
        let mut next = || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (seed >> 56) as u8
        };
        (0..count).map(|_| next()).collect()
    }

    /// Floor division instead of shifts, 64 bits instead of 16.
    fn high_of(sample: u8, factor: i16) -> i64 {
        let about = i64::from(sample) - 128;
        let repeated = if about < 0 { about * 257 + 256 } else { about * 257 };
        (repeated * i64::from(factor)).div_euclid(65_536)
    }

    #[test]
    fn the_matrix_equals_its_definition_at_odd_lengths() {
        let factors = Factors {
            luma: 298,
            red_from_v: 459,
            green_from_u: -55,
            green_from_v: -136,
            blue_from_u: 541,
        };
        for count in [0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 1001] {
            let seed = count as u64 + 5;
            println!("seed {seed}");
            let [luma, u, v] = [1, 2, 3].map(|k| noise(count, seed * k));
            let (mut red, mut green, mut blue) = (vec![0; count], vec![0; count], vec![0; count]);
            matrix(factors, &luma, &u, &v, [&mut red, &mut green, &mut blue]);
            for i in 0..count {
                let y = high_of(luma[i], factors.luma) + 128;
                let want = [
                    y + high_of(v[i], factors.red_from_v),
                    y + high_of(u[i], factors.green_from_u) + high_of(v[i], factors.green_from_v),
                    y + high_of(u[i], factors.blue_from_u),
                ];
                assert_eq!(
                    [red[i], green[i], blue[i]].map(i64::from),
                    want.map(|value| value.clamp(0, 255))
                );
            }
            let mut stretched = luma.clone();
            stretch(298, &mut stretched);
            for (got, &luma) in stretched.iter().zip(&luma) {
                assert_eq!(i64::from(*got), (high_of(luma, 298) + 128).clamp(0, 255));
            }
        }
    }

    #[test]
    fn spreading_equals_indexing_at_odd_lengths() {
        for pairs in [0, 1, 2, 7, 8, 9, 31, 33, 500] {
            let bytes = noise(pairs * 4, pairs as u64);
            let (mut luma, mut u, mut v) = (vec![0; pairs * 2], vec![0; pairs * 2], vec![0; pairs * 2]);
            spread_pairs(&bytes[..pairs * 2], &mut u, &mut v);
            assert!((0..pairs * 2).all(|i| u[i] == bytes[i / 2 * 2] && v[i] == bytes[i / 2 * 2 + 1]));
            spread(&bytes[..pairs], &mut u);
            assert!((0..pairs * 2).all(|i| u[i] == bytes[i / 2]));
            spread_groups::<0>(&bytes, &mut luma, &mut u, &mut v);
            for i in 0..pairs * 2 {
                let group = i / 2 * 4;
                assert_eq!(
                    (luma[i], u[i], v[i]),
                    (bytes[i * 2], bytes[group + 1], bytes[group + 3])
                );
            }
            spread_groups::<1>(&bytes, &mut luma, &mut u, &mut v);
            for i in 0..pairs * 2 {
                let group = i / 2 * 4;
                assert_eq!(
                    (luma[i], u[i], v[i]),
                    (bytes[i * 2 + 1], bytes[group], bytes[group + 2])
                );
            }
        }
    }

    #[test]
    fn pixels_are_taken_apart_at_odd_lengths() {
        for count in [0, 1, 2, 5, 16, 33, 500] {
            let bytes = noise(count * 4, count as u64);
            let (mut a, mut b, mut c) = (vec![0; count], vec![0; count], vec![0; count]);
            for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
                take_apart::<3>(&bytes[..count * 3], order, [&mut a, &mut b, &mut c]);
                for i in 0..count {
                    assert_eq!([a[i], b[i], c[i]], order.map(|o| bytes[i * 3 + o]));
                }
                take_apart::<4>(&bytes, order, [&mut a, &mut b, &mut c]);
                for i in 0..count {
                    assert_eq!([a[i], b[i], c[i]], order.map(|o| bytes[i * 4 + o]));
                }
            }
        }
    }
}
