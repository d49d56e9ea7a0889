//! A matrix product as cuBLASLt takes it: which matrix is which, in which order its numbers lie, what follows.
//!
//! cuBLASLt counts along columns. What lies in rows, `y = x W^T` of `[count, inputs]` and `[outputs, inputs]`, is to it
//! the product `D = A B` of `[outputs, inputs]` and `[inputs, count]`, where a tensor's rows are columns.

use super::Element;
use super::arguments::Address;

/// Everything that a choice of algorithm depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Product {
    pub(super) element: Element,
    /// Rows of A and D: outputs.
    pub(super) rows: u64,
    /// Columns of B and D: the rows of `x`.
    pub(super) columns: u64,
    /// What is summed over: inputs.
    pub(super) depth: u64,
    /// Whether A lies transposed, `[inputs, outputs]` in columns, as a weight that is contiguous does.
    pub(super) is_a_turned: bool,
    /// Whether a number is added to each row of D.
    pub(super) has_bias: bool,
    /// Whether C, which lies as D, is added.
    pub(super) has_residual: bool,
    /// What the addresses of A, B, C and D (the last and that of the bias) are multiples of, in bytes, up to [`ALIGNED`].
    pub(super) alignment: [u32; 4],
}

/// The addresses that a [`Product`] is run with; bias and residual are 0 where there is none.
#[derive(Debug, Clone, Copy)]
pub(super) struct Operands {
    pub(super) weight: Address,
    pub(super) x: Address,
    pub(super) bias: Address,
    pub(super) residual: Address,
    pub(super) y: Address,
}

/// The most that an algorithm asks for.
pub(super) const ALIGNED: u32 = 256;

fn alignment(address: Address) -> u32 {
    match address.trailing_zeros() {
        zeros if zeros < ALIGNED.trailing_zeros() => 1 << zeros,
        _ => ALIGNED,
    }
}

impl Product {
    /// `y = x W^T + bias + residual`: `x` is `[count, inputs]`, `y` and the residual `[count, outputs]`, contiguous.
    ///
    /// * `strides`: of the weight `[outputs, inputs]`
    ///
    /// `None` where the weight is neither contiguous nor a transposed view of what is.
    pub(super) fn new(
        element: Element,
        [count, inputs, outputs]: [usize; 3],
        strides: [usize; 2],
        operands: &Operands,
    ) -> Option<Self> {
        let is_a_turned = match strides {
            [row, 1] if row == inputs || outputs == 1 => true,
            [1, column] if column == outputs || inputs == 1 => false,
            _ => return None,
        };
        let residual = match operands.residual {
            0 => operands.y,
            residual => residual,
        };
        Some(Self {
            element,
            rows: outputs as u64,
            columns: count as u64,
            depth: inputs as u64,
            is_a_turned,
            has_bias: operands.bias != 0,
            has_residual: operands.residual != 0,
            alignment: [operands.weight, operands.x, residual, operands.y | operands.bias].map(alignment),
        })
    }

    /// Rows, columns and the distance of columns, as each matrix lies: A, B, and C and D.
    pub(super) fn matrices(&self) -> [(u64, u64, i64); 3] {
        let lies = |rows: u64, columns: u64| (rows, columns, rows as i64);
        let a = match self.is_a_turned {
            true => lies(self.depth, self.rows),
            false => lies(self.rows, self.depth),
        };
        [a, lies(self.depth, self.columns), lies(self.rows, self.columns)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::linear;
    use crate::model::weights::uniform;
    use candle_core::{Device, Tensor};

    /// What cuBLASLt does with such matrices, number by number.
    fn run(product: &Product, a: &[f32], b: &[f32], bias: &[f32], c: &[f32]) -> Vec<f32> {
        let [a_lies, b_lies, d_lies] = product.matrices();
        let at = |matrix: &[f32], (rows, columns, lead): (u64, u64, i64), row: u64, column: u64| {
            assert!(row < rows && column < columns && lead as u64 >= rows);
            matrix[(row + column * lead as u64) as usize]
        };
        let mut d = vec![f32::NAN; product.rows as usize * product.columns as usize];
        for column in 0..product.columns {
            for row in 0..product.rows {
                let mut sum = 0.0;
                for k in 0..product.depth {
                    let (i, j) = if product.is_a_turned { (k, row) } else { (row, k) };
                    sum += at(a, a_lies, i, j) * at(b, b_lies, k, column);
                }
                if product.has_residual {
                    sum += at(c, d_lies, row, column);
                }
                if product.has_bias {
                    sum += bias[row as usize];
                }
                d[(row + column * d_lies.2 as u64) as usize] = sum;
            }
        }
        d
    }

    fn numbers(seed: &str, shape: &[usize]) -> Tensor {
        let values: Vec<f32> = uniform(seed, shape.iter().product()).map(|u| u as f32).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    }

    fn flat(x: &Tensor) -> Vec<f32> {
        x.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn rows_become_columns_and_back() {
        for [count, inputs, outputs] in [[1, 1, 1], [5, 3, 7], [7, 1, 3], [3, 8, 1], [1, 4, 6]] {
            for (has_bias, has_residual) in [(false, false), (true, false), (false, true), (true, true)] {
                for is_view in [false, true] {
                    let x = numbers("x", &[count, inputs]);
                    let weight = match is_view {
                        false => numbers("w", &[outputs, inputs]),
                        true => numbers("w", &[inputs, outputs]).t().unwrap(),
                    };
                    let lies = match is_view {
                        false => flat(&weight),
                        true => flat(&weight.t().unwrap()),
                    };
                    let (bias, residual) = (numbers("b", &[outputs]), numbers("r", &[count, outputs]));
                    let operands = Operands {
                        weight: 0x1000,
                        x: 0x2010,
                        bias: if has_bias { 0x3020 } else { 0 },
                        residual: if has_residual { 0x4002 } else { 0 },
                        y: 0x5100,
                    };
                    let strides: [usize; 2] = weight.stride().try_into().unwrap();
                    let sizes = [count, inputs, outputs];
                    let product = Product::new(Element::F32, sizes, strides, &operands).unwrap();
                    let residual_alignment = if has_residual { 2 } else { 256 };
                    let output_alignment = if has_bias { 32 } else { 256 };
                    let wanted = [256, 16, residual_alignment, output_alignment];
                    assert_eq!(product.alignment, wanted);
                    let got = run(&product, &lies, &flat(&x), &flat(&bias), &flat(&residual));
                    let mut wanted = match has_bias {
                        true => linear::reference(&x, &weight, &bias).unwrap(),
                        false => x.matmul(&weight.t().unwrap()).unwrap(),
                    };
                    if has_residual {
                        wanted = (wanted + &residual).unwrap();
                    }
                    for (got, wanted) in got.iter().zip(flat(&wanted)) {
                        assert!((got - wanted).abs() < 1e-5, "{product:?}: {got} {wanted}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_weight_that_lies_otherwise_is_refused() {
        let operands = Operands {
            weight: 256,
            x: 256,
            bias: 0,
            residual: 0,
            y: 256,
        };
        for strides in [[8, 1], [1, 8], [2, 2]] {
            assert!(Product::new(Element::Bf16, [2, 3, 4], strides, &operands).is_none());
        }
    }
}
