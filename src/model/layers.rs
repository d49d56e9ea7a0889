//! The small layers everything else is made of: struct of tensors, `new(.., weights)`, fallible `forward`.
//!
//! All tensors are channels last. Paths in `weights` are the canonical names.

use crate::kernels::fused::{MlpStage, UpscaleStage, fused, pack};
use crate::kernels::linear::{linear, linear_gelu, linear_onto, unbiased};
use crate::kernels::{
    gelu::gelu, is_on_card, is_tracked, is_trained_on_cpu, layer_norm::layer_norm, upscale,
};
use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;

/// Epsilon of every norm in the image encoder and of SAM's channel norms.
pub const ENCODER_EPS: f64 = 1e-6;
/// Epsilon of the two-way transformer's norms.
pub const DECODER_EPS: f64 = 1e-5;

/// What follows from weights alone, made once; `None` where a weight is trained, so that it has to be made anew.
pub(super) fn made_once(
    weights: &[&Tensor],
    make: impl FnOnce(&[&Tensor]) -> Result<Tensor>,
) -> Result<Option<Tensor>> {
    match is_tracked(weights) {
        true => Ok(None),
        false => make(weights).map(Some),
    }
}

/// `x W^T + b`.
#[derive(Debug, Clone)]
pub struct Linear {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
}

impl Linear {
    /// `weight`: `[outputs, inputs]`, `bias`: `[outputs]`.
    pub fn new(inputs: usize, outputs: usize, weights: VarBuilder) -> Result<Self> {
        Ok(Self {
            weight: weights.get((outputs, inputs), "weight")?,
            bias: weights.get(outputs, "bias")?,
        })
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        linear(x, &self.weight, &self.bias)
    }
}

/// Norm over the last dimension; with channels last it serves SAM's `LayerNorm` and `LayerNorm2d` alike.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    pub(crate) eps: f64,
}

impl LayerNorm {
    /// `weight` and `bias`: `[width]`.
    pub fn new(width: usize, eps: f64, weights: VarBuilder) -> Result<Self> {
        Ok(Self {
            weight: weights.get(width, "weight")?,
            bias: weights.get(width, "bias")?,
            eps,
        })
    }

    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        layer_norm(x, &self.weight, &self.bias, self.eps)
    }
}

/// What stands between the two products of an [`Mlp`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// x/2 (1 + erf(x / sqrt 2)), in the image encoder.
    Gelu,
    /// max(x, 0), in the mask decoder.
    Relu,
}

/// Two products with an activation between: `lin1`, `lin2`.
#[derive(Debug, Clone)]
pub struct Mlp {
    pub(crate) lin1: Linear,
    pub(crate) lin2: Linear,
    pub(crate) activation: Activation,
}

impl Mlp {
    /// From `width` to `hidden` and back.
    pub fn new(width: usize, hidden: usize, activation: Activation, weights: VarBuilder) -> Result<Self> {
        let lin1 = Linear::new(width, hidden, weights.pp("lin1"))?;
        Ok(Self {
            lin1,
            lin2: Linear::new(hidden, width, weights.pp("lin2"))?,
            activation,
        })
    }

    /// `x + mlp(norm(x))`, `[images, height, width, channels]` to the same; in training as one operation.
    pub(crate) fn residual(&self, x: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
        let weights = [
            &norm.weight,
            &norm.bias,
            &self.lin1.weight,
            &self.lin1.bias,
            &self.lin2.weight,
            &self.lin2.bias,
        ];
        if self.activation != Activation::Gelu || !is_trained_on_cpu(x, &weights) {
            let hidden = self.hidden(&norm.forward(x)?)?;
            return linear_onto(&hidden, &self.lin2.weight, &self.lin2.bias, x);
        }
        let (_, height, width, channels) = x.dims4()?;
        let stage = MlpStage {
            tokens: height * width,
            width: channels,
            hidden: self.lin1.weight.dim(0)?,
            eps: norm.eps,
        };
        fused(x, &pack(&weights)?, stage)
    }

    /// `[.., width]` to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.lin2.forward(&self.hidden(x)?)
    }

    /// What stands between the two products, after its activation.
    fn hidden(&self, x: &Tensor) -> Result<Tensor> {
        match self.activation {
            Activation::Gelu => linear_gelu(x, &self.lin1.weight, &self.lin1.bias),
            Activation::Relu => self.lin1.forward(x)?.relu(),
        }
    }
}

/// Three products with ReLU between, `layers.0` to `layers.2`: hypernetworks and the IoU head.
#[derive(Debug, Clone)]
pub struct Mlp3(pub(crate) [Linear; 3]);

impl Mlp3 {
    /// From `inputs` over `hidden` twice to `outputs`.
    pub fn new(inputs: usize, hidden: usize, outputs: usize, weights: VarBuilder) -> Result<Self> {
        let layers = weights.pp("layers");
        Ok(Self([
            Linear::new(inputs, hidden, layers.pp(0))?,
            Linear::new(hidden, hidden, layers.pp(1))?,
            Linear::new(hidden, outputs, layers.pp(2))?,
        ]))
    }

    /// `[.., inputs]` to `[.., outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let Self([first, second, third]) = self;
        third.forward(&second.forward(&first.forward(x)?.relu()?)?.relu()?)
    }
}

/// A convolution whose stride is its side: each square of pixels becomes one token.
#[derive(Debug, Clone)]
pub struct PatchConv {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
}

impl PatchConv {
    /// `weight`: `[outputs, inputs, side, side]`, `bias`: `[outputs]`.
    pub fn new(inputs: usize, outputs: usize, side: usize, weights: VarBuilder) -> Result<Self> {
        let weight = weights.get((outputs, inputs, side, side), "weight")?;
        Ok(Self {
            weight,
            bias: weights.get(outputs, "bias")?,
        })
    }

    /// Pictures as they come, `[images, inputs, height, width]`, to `[images, rows, columns, outputs]`.
    pub fn forward_channels_first(&self, x: &Tensor) -> Result<Tensor> {
        let (images, inputs, height, width) = x.dims4()?;
        let (outputs, _, side, _) = self.weight.dims4()?;
        let (rows, columns) = (height / side, width / side);
        let patches = x
            .reshape(&[images, inputs, rows, side, columns, side])?
            .permute([0, 2, 4, 1, 3, 5])? // [images, rows, columns, inputs, side, side]
            .reshape((images, rows, columns, inputs * side * side))?;
        linear(&patches, &self.weight.reshape((outputs, ()))?, &self.bias)
    }

    /// `[images, height, width, inputs]` to `[images, rows, columns, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (images, height, width, inputs) = x.dims4()?;
        let (outputs, _, side, _) = self.weight.dims4()?;
        let (rows, columns) = (height / side, width / side);
        let patches = x
            .reshape(&[images, rows, side, columns, side, inputs])?
            .permute([0, 1, 3, 2, 4, 5])? // [images, rows, columns, side, side, inputs]
            .reshape((images, rows, columns, side * side * inputs))?;
        let weight = self.weight.permute((0, 2, 3, 1))?.reshape((outputs, ()))?;
        linear(&patches, &weight, &self.bias)
    }
}

/// A 3x3 convolution without bias, padded by one: nine neighbours side by side, then one product.
#[derive(Debug, Clone)]
pub struct Conv3x3 {
    pub(crate) weight: Tensor,
    /// `[outputs, 3 * 3 * inputs]`, unless it is trained.
    matrix: Option<Tensor>,
}

impl Conv3x3 {
    /// `weight`: `[outputs, inputs, 3, 3]`.
    pub fn new(inputs: usize, outputs: usize, weights: VarBuilder) -> Result<Self> {
        let weight = weights.get((outputs, inputs, 3, 3), "weight")?;
        Ok(Self {
            matrix: made_once(&[&weight], |_| Self::matrix(&weight))?,
            weight,
        })
    }

    /// Neighbours before channels, as they lie side by side.
    fn matrix(weight: &Tensor) -> Result<Tensor> {
        weight.permute((0, 2, 3, 1))?.contiguous()?.flatten_from(1)
    }

    /// `[images, height, width, inputs]` to `[images, height, width, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (_, height, width, _) = x.dims4()?;
        let padded = x.pad_with_zeros(1, 1, 1)?.pad_with_zeros(2, 1, 1)?;
        let neighbours = (0..9)
            .map(|i| padded.narrow(1, i / 3, height)?.narrow(2, i % 3, width))
            .collect::<Result<Vec<_>>>()?;
        let neighbours = Tensor::cat(&neighbours, D::Minus1)?; // [images, height, width, 3 * 3 * inputs]
        match &self.matrix {
            Some(matrix) => unbiased(&neighbours, matrix),
            None => unbiased(&neighbours, &Self::matrix(&self.weight)?),
        }
    }
}

/// A transposed convolution of side and stride two: each token becomes a square of four.
#[derive(Debug, Clone)]
pub struct Upscale {
    pub(crate) weight: Tensor,
    pub(crate) bias: Tensor,
    /// `[2 * 2 * outputs, inputs]`, unless it is trained.
    matrix: Option<Tensor>,
}

impl Upscale {
    /// `weight`: `[inputs, outputs, 2, 2]`, `bias`: `[outputs]`.
    pub fn new(inputs: usize, outputs: usize, weights: VarBuilder) -> Result<Self> {
        let weight = weights.get((inputs, outputs, 2, 2), "weight")?;
        Ok(Self {
            matrix: made_once(&[&weight], |_| Self::matrix(&weight))?,
            weight,
            bias: weights.get(outputs, "bias")?,
        })
    }

    /// Corners of the square before outputs.
    fn matrix(weight: &Tensor) -> Result<Tensor> {
        let (inputs, outputs, ..) = weight.dims4()?;
        weight
            .permute((2, 3, 1, 0))?
            .contiguous()?
            .reshape((4 * outputs, inputs))
    }

    /// `[images, height, width, inputs]` to `[images, height, width, 2, 2, outputs]`, without the bias.
    fn product(&self, x: &Tensor) -> Result<Tensor> {
        let (images, height, width, _) = x.dims4()?;
        let product = match &self.matrix {
            Some(matrix) => unbiased(x, matrix)?,
            None => unbiased(x, &Self::matrix(&self.weight)?)?,
        };
        product.reshape((images, height, width, 2, 2, self.bias.dim(0)?))
    }

    /// As [`Upscale::product`] where the card takes the last step and the classes in one, with the bias.
    pub(crate) fn for_labels(&self, x: &Tensor) -> Result<(Tensor, &Tensor)> {
        Ok((self.product(x)?, &self.bias))
    }

    /// This, the norm if there is one, and GELU; in training as one operation.
    pub(crate) fn activated(&self, x: &Tensor, norm: Option<&LayerNorm>) -> Result<Tensor> {
        let mut weights = vec![&self.weight, &self.bias];
        weights.extend(norm.iter().flat_map(|norm| [&norm.weight, &norm.bias]));
        if is_on_card(x) && !is_tracked(&weights) && !x.track_op() {
            let biases = match norm {
                Some(norm) => Tensor::stack(&[&self.bias, &norm.weight, &norm.bias], 0)?,
                None => self.bias.unsqueeze(0)?,
            };
            return upscale::squares(&self.product(x)?, &biases, norm.map(|norm| norm.eps));
        }
        if !is_trained_on_cpu(x, &weights) {
            let y = self.forward(x)?;
            return gelu(&match norm {
                Some(norm) => norm.forward(&y)?,
                None => y,
            });
        }
        let (_, height, width, inputs) = x.dims4()?;
        let stage = UpscaleStage {
            grid: (height, width),
            inputs,
            outputs: self.weight.dim(1)?,
            norm_eps: norm.map(|norm| norm.eps),
        };
        let squares = self.weight.permute((2, 3, 1, 0))?.contiguous()?; // [2, 2, outputs, inputs]
        weights[0] = &squares;
        fused(x, &pack(&weights)?, stage)
    }

    /// `[images, height, width, inputs]` to `[images, 2 * height, 2 * width, outputs]`.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (images, height, width, _) = x.dims4()?;
        let (inputs, outputs, ..) = self.weight.dims4()?;
        let weight = self
            .weight
            .permute((2, 3, 1, 0))?
            .reshape((4 * outputs, inputs))?;
        let bias = Tensor::cat(&[&self.bias, &self.bias, &self.bias, &self.bias], 0)?;
        linear(x, &weight, &bias)? // [images, height, width, 2 * 2 * outputs]
            .reshape(&[images, height, width, 2, 2, outputs])?
            .permute([0, 1, 3, 2, 4, 5])? // [images, height, 2, width, 2, outputs]
            .reshape((images, 2 * height, 2 * width, outputs))
    }
}
