//! FacT: the low-rank change of every block's query and value projections (paper, section 2.2).
//!
//! ```text
//! W_q + s V Q_i U        W_v + s V V_i U
//! ```
//! `U` and `V` are shared by all blocks, `Q_i` and `V_i` are the block's own. The sum is linear, so for inference it
//! is folded into the weights once; for training the parts stay apart and the products are run one after another,
//! unless the projections are trained too: then they are folded anew for each step.

use super::layers::Linear;
use crate::kernels::linear::linear;
use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;

/// The factors shared by all blocks.
#[derive(Debug, Clone)]
pub struct SharedFactors {
    /// `[rank, width]`
    u: Tensor,
    /// `[width, rank]`
    v: Tensor,
    scale: f64,
}

impl SharedFactors {
    /// `fact_u.weight` and `fact_v.weight` below the image encoder's path.
    pub fn new(width: usize, rank: usize, scale: f64, weights: VarBuilder) -> Result<Self> {
        let u = weights.pp("fact_u").get((rank, width), "weight")?;
        Ok(Self {
            u,
            v: weights.pp("fact_v").get((width, rank), "weight")?,
            scale,
        })
    }
}

/// FacT of one block.
#[derive(Debug, Clone)]
pub struct Fact {
    shared: SharedFactors,
    /// `[rank, rank]` each.
    q: Tensor,
    v: Tensor,
}

impl Fact {
    /// `q_fact.weight` and `v_fact.weight` below the attention's path.
    pub fn new(rank: usize, shared: &SharedFactors, weights: VarBuilder) -> Result<Self> {
        let q = weights.pp("q_fact").get((rank, rank), "weight")?;
        let v = weights.pp("v_fact").get((rank, rank), "weight")?;
        Ok(Self {
            shared: shared.clone(),
            q,
            v,
        })
    }

    /// What is added to the qkv projection of `x`, `[.., width]`: `[.., 3 * width]`, zero for the keys.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let SharedFactors { u, v, scale } = &self.shared;
        let none = |w: &Tensor| Tensor::zeros(w.dim(0)?, w.dtype(), w.device());
        let low = linear(x, u, &none(u)?)?;
        let change = |factor: &Tensor| -> Result<Tensor> {
            linear(&linear(&low, factor, &none(factor)?)?, v, &none(v)?)? * *scale
        };
        let (q, v) = (change(&self.q)?, change(&self.v)?);
        Tensor::cat(&[&q, &q.zeros_like()?, &v], candle_core::D::Minus1)
    }

    /// The qkv projection with the change folded in.
    pub fn fold(&self, qkv: &Linear) -> Result<Linear> {
        let SharedFactors { u, v, scale } = &self.shared;
        let change = |factor: &Tensor| -> Result<Tensor> { v.matmul(factor)?.matmul(u)? * *scale };
        let width = v.dim(0)?;
        let part = |i: usize| qkv.weight.narrow(0, i * width, width);
        let weight = Tensor::cat(
            &[
                (part(0)? + change(&self.q)?)?,
                part(1)?,
                (part(2)? + change(&self.v)?)?,
            ],
            0,
        )?;
        Ok(Linear {
            weight,
            bias: qkv.bias.clone(),
        })
    }
}
