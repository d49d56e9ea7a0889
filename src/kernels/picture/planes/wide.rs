//! The loops of planes.rs in AVX-512: numbers turned in registers, and rows of bytes summed two at a time.

mod sum;

pub use sum::sum;

use super::ROWS;
use std::arch::x86_64::{
    __m512, _mm_loadu_ps, _mm512_castps128_ps512, _mm512_insertf32x4, _mm512_shuffle_ps, _mm512_storeu_ps,
    _mm512_unpackhi_ps, _mm512_unpacklo_ps,
};

/// Whether this machine has the instructions.
#[inline(always)]
pub fn is_here() -> bool {
    is_x86_feature_detected!("avx512f")
}

/// As [`super::turn`] for columns from the first on, a multiple of 16 of them: how many.
#[inline(always)]
pub fn turn(down: &[f32], turned: &mut [[f32; ROWS]]) -> usize {
    if down.len() < ROWS * turned.len() || !is_here() {
        return 0;
    }
    // SAFETY: the machine has the instructions, and `down` has a number for each of `turned`.
    unsafe { turn_all(down, turned) }
}

/// # Safety
/// The machine has AVX-512F, and `down` is `[ROWS, turned.len()]`.
#[target_feature(enable = "avx512f")]
unsafe fn turn_all(down: &[f32], turned: &mut [[f32; ROWS]]) -> usize {
    let width = turned.len();
    let (blocks, _) = turned.as_chunks_mut::<ROWS>();
    for (block, target) in blocks.iter_mut().enumerate() {
        let (columns, _) = target.as_chunks_mut::<4>();
        for (four, columns) in columns.iter_mut().enumerate() {
            let x = ROWS * block + 4 * four;
            // Columns x to x + 3 of rows i, i + 4, i + 8 and i + 12, each in a quarter.
            let rows = |i: usize| -> __m512 {
                // SAFETY: four numbers of a row that has `width`, x + 3 being less; rows are ROWS.
                let quarter = |row: usize| unsafe { _mm_loadu_ps(down.as_ptr().add(row * width + x)) };
                let all = _mm512_castps128_ps512(quarter(i));
                let all = _mm512_insertf32x4::<1>(all, quarter(i + 4));
                let all = _mm512_insertf32x4::<2>(all, quarter(i + 8));
                _mm512_insertf32x4::<3>(all, quarter(i + 12))
            };
            let (a, b, c, d) = (rows(0), rows(1), rows(2), rows(3));
            // In each quarter a0 b0 a1 b1, a2 b2 a3 b3, and so on.
            let (ab, ab_high) = (_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
            let (cd, cd_high) = (_mm512_unpacklo_ps(c, d), _mm512_unpackhi_ps(c, d));
            let turned = [
                _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd),
                _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd),
                _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
                _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
            ];
            for (column, numbers) in columns.iter_mut().zip(turned) {
                // SAFETY: a column has ROWS numbers, as many as are written.
                unsafe { _mm512_storeu_ps(column.as_mut_ptr(), numbers) };
            }
        }
    }
    blocks.len() * ROWS
}
