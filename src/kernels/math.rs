//! Elementary functions in straight-line arithmetic, so that loops over them vectorise at any width.
//!
//! Each is `#[inline(always)]` and made to be called from a [`Body`](super::simd::Body). Errors are stated against
//! the exact value and held by the tests below.

/// `a * b + c`, fused where that is one instruction.
#[inline(always)]
pub fn mul_add<const FMA: bool>(a: f32, b: f32, c: f32) -> f32 {
    if FMA { a.mul_add(b, c) } else { a * b + c }
}

/// Below this `exp` is zero in f32, subnormals left out.
const EXP_LOWEST: f32 = -87.3;
const EXP_HIGHEST: f32 = 88.0;
/// Adding and taking away 1.5 * 2^23 rounds to the nearest integer without an instruction of its own.
const ROUNDER: f32 = 12_582_912.0;
const LN2_HIGH: f32 = 0.693_359_4;
const LN2_LOW: f32 = -2.121_944_4e-4;

/// e^x for x <= 88, relative error below 3e-7; zero below -87.3. NaN gives NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2; e^r by its series to the sixth power; 2^n through the exponent bits.
#[inline(always)]
pub fn exp<const FMA: bool>(x: f32) -> f32 {
    let clamped = if x > EXP_HIGHEST { EXP_HIGHEST } else { x };
    let n = mul_add::<FMA>(clamped, std::f32::consts::LOG2_E, ROUNDER) - ROUNDER;
    let r = mul_add::<FMA>(n, -LN2_LOW, mul_add::<FMA>(n, -LN2_HIGH, clamped));
    let mut p = 1.0 / 720.0;
    for coefficient in [1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = mul_add::<FMA>(p, r, coefficient);
    }
    // n is a whole number in -126..=127 here, or the result is replaced below.
    // SAFETY: the clamps on both sides keep n far inside i32; below the lower one the value is discarded, and
    // NaN or -inf are replaced before they could be converted.
    let whole: i32 = unsafe { if x >= EXP_LOWEST { n } else { 0.0 }.to_int_unchecked() };
    let power = f32::from_bits(((whole + 127) as u32) << 23);
    if x < EXP_LOWEST { 0.0 } else { p * power }
}

/// Beyond this erf differs from 1 by less than half a unit of the last place.
const ERF_LARGEST: f32 = 3.93;

/// erf(x), absolute error below 5e-7.
///
/// x P(x²) / Q(x²) on |x| <= 3.93, coefficients fitted to erf(x) / x by reweighted least squares, which leaves a
/// relative error of 2e-8; the rest is rounding. No exponential, so a quarter of its arithmetic.
#[inline(always)]
pub fn erf<const FMA: bool>(x: f32) -> f32 {
    let below = if x > ERF_LARGEST { ERF_LARGEST } else { x };
    let x = if below < -ERF_LARGEST { -ERF_LARGEST } else { below };
    let t = x * x;
    let mut p = 2.041_981_6e-6;
    for coefficient in [
        2.848_068e-4,
        3.779_537_3e-3,
        5.279_006_4e-2,
        1.907_821_7e-1,
        std::f32::consts::FRAC_2_SQRT_PI,
    ] {
        p = mul_add::<FMA>(p, t, coefficient);
    }
    let mut q = 3.800_409e-5;
    for coefficient in [
        1.165_194_9e-3,
        1.499_729_4e-2,
        1.142_568_4e-1,
        5.024_090_4e-1,
        1.0,
    ] {
        q = mul_add::<FMA>(q, t, coefficient);
    }
    x * p / q
}

/// GELU in its exact form, x/2 (1 + erf(x / sqrt 2)).
#[inline(always)]
pub fn gelu<const FMA: bool>(x: f32) -> f32 {
    let half = 0.5 * x;
    mul_add::<FMA>(half, erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2), half)
}

/// Slope of [`gelu`], (1 + erf(x / sqrt 2)) / 2 + x e^(-x²/2) / sqrt(2 pi).
#[inline(always)]
pub fn gelu_slope<const FMA: bool>(x: f32) -> f32 {
    const DENSITY: f32 = 0.5 * std::f32::consts::FRAC_2_SQRT_PI * std::f32::consts::FRAC_1_SQRT_2;
    let cumulative = mul_add::<FMA>(0.5, erf::<FMA>(x * std::f32::consts::FRAC_1_SQRT_2), 0.5);
    mul_add::<FMA>(x * DENSITY, exp::<FMA>(-0.5 * x * x), cumulative)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep() -> impl Iterator<Item = f32> {
        (-200_000..=200_000).map(|i| i as f32 * 5e-4)
    }

    #[test]
    fn exp_is_exact_to_three_in_ten_million() {
        for x in sweep().filter(|x| *x <= 88.0 && *x >= -87.3) {
            let exact = f64::from(x).exp();
            for got in [exp::<true>(x), exp::<false>(x)] {
                assert!(
                    (f64::from(got) - exact).abs() <= 3e-7 * exact,
                    "exp({x}) = {got}, exact {exact}"
                );
            }
        }
        assert_eq!(exp::<false>(0.0), 1.0);
        assert_eq!(exp::<false>(f32::NEG_INFINITY), 0.0);
        assert_eq!(exp::<true>(-100.0), 0.0);
        assert!(exp::<true>(f32::NAN).is_nan());
    }

    #[test]
    fn erf_and_gelu_are_exact_to_five_in_ten_million() {
        for x in sweep().filter(|x| x.abs() < 12.0) {
            let exact = libm::erf(f64::from(x));
            assert!((f64::from(erf::<true>(x)) - exact).abs() < 5e-7, "erf({x})");
            let exact = 0.5 * f64::from(x) * (1.0 + libm::erf(f64::from(x) / std::f64::consts::SQRT_2));
            let bound = 5e-7 * f64::from(x.abs().max(1.0));
            assert!((f64::from(gelu::<false>(x)) - exact).abs() < bound, "gelu({x})");
            let x64 = f64::from(x);
            let density = (-0.5 * x64 * x64).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let exact = 0.5 * (1.0 + libm::erf(x64 / std::f64::consts::SQRT_2)) + x64 * density;
            assert!(
                (f64::from(gelu_slope::<true>(x)) - exact).abs() < 1e-6,
                "gelu'({x})"
            );
        }
        assert!(gelu::<true>(f32::NAN).is_nan());
    }
}
