//! Preparation of frames against its reference: cubic-spline resizing, turning and the clip's own range.

use super::{Check, GoldenFile, Measure, Tolerance};
use crate::error::{Error, Result};
use crate::geometry::{Orientation, Size};
use crate::kernels::picture::convert::{ColorSpace, Picture, PixelFormat, PlaneRef};
use crate::kernels::picture::resize_reference::{resize_reference, zoom_labels};
use crate::runtime::tensor_of;
use crate::segmenter::{ModelFrame, Normalisation};

/// One grey level over the largest value, 255 or 1: what rounding a spline's result may cost.
const GREY_LEVEL: f64 = 1.0 / 255.0;

pub(super) fn run(file: &GoldenFile) -> Result<Check> {
    let side: u32 = file.number("side")?;
    let (shape, frames) = file.bytes("frames")?;
    let [count, height, width, 3] = shape[..] else {
        return Err(Error::tensor(
            "frames",
            format!("its shape is {shape:?}, not [frames, height, width, 3]"),
        ));
    };
    let size = Size::checked(width as u32, height as u32)?;
    if count == 0 || side == 0 || side > 2048 {
        return Err(Error::tensor(
            "frames",
            format!("{count} frames to a side of {side}"),
        ));
    }
    let mut resized = Vec::new();
    let mut clip = Vec::new();
    for frame in frames.chunks_exact(size.area() * 3) {
        let plane = PlaneRef {
            data: frame,
            stride_bytes: width * 3,
        };
        let picture = Picture::new(PixelFormat::Rgb, size, &[plane], ColorSpace::RGB)?;
        let square = |orientation: Orientation| -> Result<Vec<u8>> {
            let mut square = vec![0; (side * side * 3) as usize];
            resize_reference(&picture, size.rect(), side, orientation, &mut square)?;
            Ok(square)
        };
        resized.extend(square(Orientation::Upright)?);
        clip.push(ModelFrame {
            rgb: square(Orientation::Transposed)?.into(),
        });
    }
    let turned: Vec<u8> = clip.iter().flat_map(|f| f.rgb.iter().copied()).collect();
    let values = tensor_of(&[&clip], side as usize, Normalisation::ClipMinMax)?;
    let values = values.flatten_all()?.to_vec1::<f32>()?;

    let float = |bytes: &[u8]| bytes.iter().map(|b| f32::from(*b)).collect::<Vec<f32>>();
    let bytes = |name: &str, got: &[u8]| -> Result<Measure> {
        Ok(Measure::of(name, &float(got), &float(&file.bytes(name)?.1)))
    };
    let measures = vec![
        Measure::of("clip", &values, &file.floats("clip")?.1),
        bytes("resized", &resized)?,
        bytes("turned", &turned)?,
    ];
    let (agree, all) = labels(file, size, side)?;
    let tolerance = Tolerance {
        max: 1.001 * GREY_LEVEL,
        rms: GREY_LEVEL,
        margin: 0.0,
        agreement: 0.0,
    };
    let label_agreement = agree as f64 / all.max(1) as f64;
    Ok(Check {
        name: file.name.clone(),
        measures,
        label_agreement,
        clear_disagreements: all - agree,
        tolerance,
    })
}

/// Labels that agree after resizing, and after turning as well, and how many there are.
fn labels(file: &GoldenFile, size: Size, side: u32) -> Result<(usize, usize)> {
    let (_, ids) = file.bytes("ids")?;
    let resized: Vec<u8> = ids
        .chunks_exact(size.area())
        .flat_map(|ids| zoom_labels(ids, size, side))
        .collect();
    let turned: Vec<u8> = resized
        .chunks_exact((side * side) as usize)
        .flat_map(|ids| {
            (0..side * side).map(move |at| {
                let (x, y) = Orientation::Transposed.upright_from_model(at % side, at / side, side);
                ids[(y * side + x) as usize]
            })
        })
        .collect();
    let mut agree = 0;
    let mut all = 0;
    for (name, got) in [("labels", &resized), ("labels_turned", &turned)] {
        let (_, wanted) = file.bytes(name)?;
        if wanted.len() != got.len() {
            return Err(Error::tensor(
                name,
                format!("{} labels, {} were expected", got.len(), wanted.len()),
            ));
        }
        all += wanted.len();
        agree += got.iter().zip(&wanted).filter(|(a, b)| a == b).count();
    }
    Ok((agree, all))
}
