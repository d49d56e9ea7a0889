//! Every fast kernel against its plain reference, values and gradients, over odd sizes.

use candle_core::{DType, Device, Tensor, Var};
use masam::kernels::attention::Span;
use masam::kernels::{attention, gelu, layer_norm, linear, softmax};
use masam::model::weights::uniform;

type R<T = ()> = candle_core::Result<T>;

/// Values in [-scale, scale) that depend on the seed alone.
fn tensor(seed: &str, shape: &[usize], scale: f64) -> R<Tensor> {
    let values: Vec<f32> = uniform(seed, shape.iter().product())
        .map(|u| (u * scale) as f32)
        .collect();
    Tensor::from_vec(values, shape, &Device::Cpu)
}

/// Largest difference over the largest magnitude.
fn difference(a: &Tensor, b: &Tensor) -> R<f64> {
    assert_eq!(a.dims(), b.dims());
    let largest = b.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?.max(1e-20);
    let difference = (a - b)?.abs()?.flatten_all()?.max(0)?.to_scalar::<f32>()?;
    assert!(difference.is_finite());
    Ok(f64::from(difference / largest))
}

/// Compares two functions of the same inputs: output, then the gradient of a weighted sum of it by every input.
fn compare(
    what: &str,
    inputs: &[Tensor],
    fast: impl Fn(&[Tensor]) -> R<Tensor>,
    plain: impl Fn(&[Tensor]) -> R<Tensor>,
) -> R {
    let run = |f: &dyn Fn(&[Tensor]) -> R<Tensor>| -> R<(Tensor, Vec<Tensor>)> {
        let leaves = inputs.iter().map(Var::from_tensor).collect::<R<Vec<_>>>()?;
        let tensors: Vec<Tensor> = leaves.iter().map(|v| v.as_tensor().clone()).collect();
        let output = f(&tensors)?;
        let weights = tensor("weights of the sum", output.dims(), 1.0)?;
        let gradients = (&output * weights)?.sum_all()?.backward()?;
        let zero = |t: &Tensor| t.zeros_like();
        let gradients = tensors
            .iter()
            .map(|t| gradients.get(t).cloned().map_or_else(|| zero(t), Ok));
        Ok((output, gradients.collect::<R<_>>()?))
    };
    let (got, got_gradients) = run(&fast)?;
    let (wanted, wanted_gradients) = run(&plain)?;
    let error = difference(&got, &wanted)?;
    assert!(error < 1e-5, "{what}: the output differs by {error}");
    for (i, (got, wanted)) in got_gradients.iter().zip(&wanted_gradients).enumerate() {
        let error = difference(got, wanted)?;
        assert!(
            error < 1e-4,
            "{what}: the gradient of input {i} differs by {error}"
        );
    }
    Ok(())
}

#[test]
fn linear_equals_its_reference() -> R {
    for (rows, inputs, outputs) in [(1, 1, 1), (3, 5, 7), (33, 17, 65), (2, 300, 1), (129, 64, 31)] {
        let what = format!("linear {rows}x{inputs}->{outputs}");
        let x = tensor("x", &[rows, 1, inputs], 1.0)?;
        let weight = tensor("weight", &[outputs, inputs], 1.0)?;
        let fast = |i: &[Tensor]| linear::linear(&i[0], &i[1], &i[2]);
        let plain = |i: &[Tensor]| linear::reference(&i[0], &i[1], &i[2]);
        compare(
            &what,
            &[x.clone(), weight.clone(), tensor("bias", &[outputs], 1.0)?],
            fast,
            plain,
        )?;
        let residual = tensor("residual", &[rows, 1, outputs], 1.0)?;
        compare(&what, &[x.clone(), weight, residual.clone()], fast, plain)?;
        // A weight that is a view: every second column, transposed.
        let wide = tensor("wide", &[inputs, 2 * outputs], 1.0)?;
        let view = |t: &Tensor| t.reshape((inputs, outputs, 2))?.narrow(2, 1, 1)?.squeeze(2)?.t();
        let fast = |i: &[Tensor]| linear::linear(&i[0], &view(&i[1])?, &i[2]);
        let plain = |i: &[Tensor]| linear::reference(&i[0], &view(&i[1])?.contiguous()?, &i[2]);
        compare(&what, &[x, wide, residual], fast, plain)?;
    }
    Ok(())
}

#[test]
fn layer_norm_equals_its_reference() -> R {
    for (rows, width) in [(1, 1), (3, 3), (5, 17), (64, 33), (7, 768), (1000, 15)] {
        let inputs = [
            tensor("x", &[rows, width], 3.0)?,
            tensor("w", &[width], 1.0)?,
            tensor("b", &[width], 1.0)?,
        ];
        // An offset that a one-pass variance would drown in.
        let inputs = [(&inputs[0] + 50.0)?, inputs[1].clone(), inputs[2].clone()];
        compare(
            &format!("layer norm {rows}x{width}"),
            &inputs,
            |i| layer_norm::layer_norm(&i[0], &i[1], &i[2], 1e-6),
            |i| layer_norm::reference(&i[0], &i[1], &i[2], 1e-6),
        )?;
    }
    Ok(())
}

#[test]
fn gelu_equals_its_reference() -> R {
    for count in [15, 16, 17, 31, 40_001] {
        compare(
            &format!("gelu {count}"),
            &[tensor("x", &[count], 6.0)?],
            |i| gelu::gelu(&i[0]),
            |i| gelu::reference(&i[0]),
        )?;
    }
    Ok(())
}

#[test]
fn softmax_equals_its_reference() -> R {
    for (rows, width) in [(1, 1), (3, 5), (17, 16), (9, 33), (2, 4097)] {
        let what = format!("softmax {rows}x{width}");
        let x = tensor("x", &[rows, width], 80.0)?;
        compare(
            &what,
            &[x],
            |i| softmax::softmax(&i[0]),
            |i| softmax::reference(&i[0]),
        )?;
    }
    Ok(())
}

#[test]
fn attention_equals_its_reference() -> R {
    // (images, height, width, side): whole grids, exact partitions, padded ones, a partition larger than the grid,
    // single tokens, and grids long enough for several tiles.
    let sizes = [
        (1, 1, 1, 1),
        (2, 3, 3, 3),
        (1, 6, 6, 3),
        (2, 7, 7, 3),
        (1, 5, 5, 14),
        (1, 4, 9, 4),
        (1, 27, 27, 27),
    ];
    for (images, height, width, side) in sizes {
        for (heads, head_width) in [(1, 4), (3, 5)] {
            let what =
                format!("attention {images}x{height}x{width}, side {side}, {heads} heads of {head_width}");
            let channels = 3 * heads * head_width;
            let span = Span { heads, side };
            let inputs = [
                tensor("qkv", &[images, height, width, channels], 2.0)?,
                tensor("bias", &[channels], 2.0)?,
                tensor("relative", &[2 * (2 * side - 1), head_width], 1.0)?,
            ];
            compare(
                &what,
                &inputs,
                |i| attention::attention(&i[0], &i[1], &i[2], span),
                |i| attention::reference(&i[0], &i[1], &i[2], span),
            )?;
        }
    }
    Ok(())
}

#[test]
fn global_attention_is_cut_into_tiles_without_a_seam() -> R {
    // 37 x 37 tokens: more scores than one tile holds, and a last band that is shorter than the others.
    let (side, heads, head_width) = (37, 2, 8);
    let span = Span { heads, side };
    let qkv = tensor("qkv", &[1, side, side, 3 * heads * head_width], 2.0)?;
    let bias = tensor("bias", &[3 * heads * head_width], 2.0)?;
    let relative = tensor("relative", &[2 * (2 * side - 1), head_width], 1.0)?;
    let got = attention::attention(&qkv, &bias, &relative, span)?;
    let error = difference(&got, &attention::reference(&qkv, &bias, &relative, span)?)?;
    assert!(error < 1e-5, "{error}");
    Ok(())
}

#[test]
fn shapes_that_do_not_fit_are_refused() -> R {
    let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu);
    let (x, weight, bias) = (zeros(&[2, 3])?, zeros(&[5, 4])?, zeros(&[5])?);
    assert!(linear::linear(&x, &weight, &bias).is_err());
    assert!(layer_norm::layer_norm(&x, &bias, &bias, 1e-6).is_err());
    let span = Span { heads: 2, side: 2 };
    let (qkv, bias) = (zeros(&[1, 2, 2, 12])?, zeros(&[12])?);
    assert!(attention::attention(&qkv, &bias, &zeros(&[6, 2])?, span).is_ok());
    assert!(attention::attention(&qkv, &bias, &zeros(&[5, 2])?, span).is_err());
    assert!(attention::attention(&qkv, &bias, &zeros(&[6, 2])?, Span { heads: 0, side: 2 }).is_err());
    assert!(attention::attention(&qkv, &bias, &zeros(&[6, 2])?, Span { heads: 5, side: 2 }).is_err());
    Ok(())
}
