//! Bytes of frames to the model's planes, on a card: what crosses to it is one byte a colour of a pixel, or half of that.

use super::picture::convert::{ColorSpace, Range, shares};
use candle_core::{CpuStorage, CustomOp2, DType, Layout, Result, Shape, Tensor, bail};

/// Every byte through its clip's table.
///
/// * `bytes`: `[images, side, side, 3]`, RGB, on a card; on the CPU for planes in float32 alone
/// * `tables`: `[clips, 256]`, float32, the value of each byte; the images of a clip follow one another
/// * `dtype`: of the planes: float32, bfloat16 or float16
///
/// Gives `[images, 3, side, side]`.
///
/// # Errors
/// A device that does not give this type, shapes that do not fit, or Candle's own.
pub fn planes(bytes: &Tensor, tables: &Tensor, dtype: DType) -> Result<Tensor> {
    let planes = Planes {
        dtype,
        coded: Coded::Rgb,
    };
    bytes
        .contiguous()?
        .apply_op2_no_bwd(&tables.contiguous()?, &planes)
}

/// The same of frames in NV12. Chroma has half the resolution: frames that are scaled down to the model's side keep more of
/// their colours as RGB, so this is for those that come in that size.
///
/// * `bytes`: `[images, 3 * side / 2, side]`, `side` even: the rows of luma, then half as many of U and V in turn
/// * `colors`: what the bytes mean
/// * `tables`, `dtype`: as for [`planes`]; the tables' bytes are those of RGB, rounded and clipped to 0 to 255
///
/// Gives `[images, 3, side, side]`.
///
/// # Errors
/// As [`planes`], or a matrix that makes more than 64 of 1 of its chroma, as those of hardly any green do.
pub fn planes_of_nv12(bytes: &Tensor, tables: &Tensor, colors: ColorSpace, dtype: DType) -> Result<Tensor> {
    let Some(coded) = Coded::nv12(colors) else {
        bail!("prepare: {:?} has factors that are too large", colors.matrix)
    };
    let planes = Planes { dtype, coded };
    bytes
        .contiguous()?
        .apply_op2_no_bwd(&tables.contiguous()?, &planes)
}

/// How the bytes of frames mean colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coded {
    Rgb,
    /// With its matrix in 16 bits of fraction: luma offset and scale, red from V, green from U and V, blue from U.
    Nv12([i32; 6]),
}

impl Coded {
    /// `None` where a product of a factor and a byte might leave 32 bits.
    fn nv12(colors: ColorSpace) -> Option<Self> {
        const MOST: f64 = 64.0;
        let offset = match colors.range {
            Range::Full => 0,
            Range::Limited => 16,
        };
        let factors = shares(colors).map(|share| share * 255.0);
        // What is not a number is not small either.
        let is_small = factors.iter().all(|factor| factor.abs() <= MOST);
        let [luma, red_v, green_u, green_v, blue_u] = factors.map(|factor| (factor * 65536.0).round() as i32);
        is_small.then_some(Self::Nv12([offset, luma, red_v, green_u, green_v, blue_u]))
    }

    /// Images and side of bytes of this shape.
    pub(super) fn sizes(self, bytes: &Layout) -> Option<(usize, usize)> {
        let (images, side) = match (self, bytes.dims()) {
            (Self::Rgb, &[images, side, across, 3]) if across == side => (images, side),
            (Self::Nv12(_), &[images, rows, side]) if side % 2 == 0 && rows == side / 2 * 3 => (images, side),
            _ => return None,
        };
        (images > 0 && side > 0).then_some((images, side))
    }

    /// Bytes of a frame.
    fn bytes(self, side: usize) -> usize {
        match self {
            Self::Rgb => 3 * side * side,
            Self::Nv12(_) => side * side / 2 * 3,
        }
    }

    /// The colours of a pixel.
    fn color(self, frame: &[u8], side: usize, pixel: usize) -> [u8; 3] {
        match self {
            Self::Rgb => [0, 1, 2].map(|channel| frame[3 * pixel + channel]),
            Self::Nv12([offset, scale, red_v, green_u, green_v, blue_u]) => {
                let at = side * side + pixel / side / 2 * side + pixel % side / 2 * 2;
                let luma = scale * (i32::from(frame[pixel]) - offset);
                let [u, v] = [0, 1].map(|i| i32::from(frame[at + i]) - 128);
                [red_v * v, green_u * u + green_v * v, blue_u * u]
                    .map(|chroma| ((luma + chroma + (1 << 15)) >> 16).clamp(0, 255) as u8)
            }
        }
    }
}

struct Planes {
    dtype: DType,
    coded: Coded,
}

impl CustomOp2 for Planes {
    fn name(&self) -> &'static str {
        "prepare"
    }

    /// The same for what passes for a card: float32 alone.
    fn cpu_fwd(
        &self,
        bytes: &CpuStorage,
        bytes_layout: &Layout,
        tables: &CpuStorage,
        tables_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (clips, entries) = tables_layout.shape().dims2()?;
        let refused = || {
            let shapes = (bytes_layout.shape(), tables_layout.shape());
            candle_core::Error::msg(format!("prepare: bytes and tables {shapes:?}, {:?}", self.dtype))
        };
        let (images, side) = self.coded.sizes(bytes_layout).ok_or_else(refused)?;
        if clips == 0 || images % clips != 0 || entries != 256 || self.dtype != DType::F32 {
            return Err(refused());
        }
        let (Some((start, end)), CpuStorage::U8(bytes)) = (bytes_layout.contiguous_offsets(), bytes) else {
            bail!("prepare: bytes have to be contiguous");
        };
        let tables = super::contiguous_f32(tables, tables_layout)?;
        let pixels = side * side;
        let mut planes = vec![0.0; images * 3 * pixels];
        let frames = bytes[start..end].chunks_exact(self.coded.bytes(side));
        for (image, (frame, planes)) in frames.zip(planes.chunks_exact_mut(3 * pixels)).enumerate() {
            let table = &tables[image / (images / clips) * 256..][..256];
            for pixel in 0..pixels {
                for (channel, color) in self.coded.color(frame, side, pixel).into_iter().enumerate() {
                    planes[channel * pixels + pixel] = table[usize::from(color)];
                }
            }
        }
        Ok((CpuStorage::F32(planes), Shape::from((images, 3, side, side))))
    }

    #[cfg(feature = "cuda")]
    fn cuda_fwd(
        &self,
        bytes: &candle_core::CudaStorage,
        bytes_layout: &Layout,
        tables: &candle_core::CudaStorage,
        tables_layout: &Layout,
    ) -> Result<(candle_core::CudaStorage, Shape)> {
        let (bytes, tables) = ((bytes, bytes_layout), (tables, tables_layout));
        super::cuda::forward::prepare(bytes, tables, self.coded, self.dtype)
    }
}

#[cfg(test)]
mod tests {
    use super::super::picture::convert::Matrix;
    use super::*;
    use candle_core::Device;

    #[test]
    fn every_matrix_and_range_gives_its_colours() {
        let tables = Tensor::arange(0u32, 256, &Device::Cpu).unwrap();
        let tables = tables.to_dtype(DType::F32).unwrap().unsqueeze(0).unwrap();
        for matrix in [
            Matrix::BT601,
            Matrix::BT709,
            Matrix::BT2020,
            Matrix::SMPTE240M,
            Matrix::FCC,
        ] {
            for (range, black, [luma_span, chroma_span]) in [
                (Range::Full, 0.0, [255.0, 255.0]),
                (Range::Limited, 16.0, [219.0, 224.0]),
            ] {
                // Colours on a grid, as the definition turns them to bytes: a square of 2 x 2 pixels each.
                for code in 0..125 {
                    let rgb = [code % 5, code / 5 % 5, code / 25].map(|step| f64::from(step) * 63.75);
                    let luma =
                        matrix.kr * rgb[0] + (1.0 - matrix.kr - matrix.kb) * rgb[1] + matrix.kb * rgb[2];
                    let u = (rgb[2] - luma) / (2.0 * (1.0 - matrix.kb));
                    let v = (rgb[0] - luma) / (2.0 * (1.0 - matrix.kr));
                    let byte = |value: f64| value.round().clamp(0.0, 255.0) as u8;
                    let y = byte(luma * luma_span / 255.0 + black);
                    let chroma = [u, v].map(|c| byte(c * chroma_span / 255.0 + 128.0));
                    let bytes = vec![y, y, y, y, chroma[0], chroma[1]];
                    let bytes = Tensor::from_vec(bytes, (1, 3, 2), &Device::Cpu).unwrap();
                    let colors = ColorSpace { matrix, range };
                    let planes = planes_of_nv12(&bytes, &tables, colors, DType::F32).unwrap();
                    let planes = planes.reshape((3, 4)).unwrap().to_vec2::<f32>().unwrap();
                    for (plane, wanted) in planes.iter().zip(rgb) {
                        // Half a step of luma, and of chroma where it is widest.
                        let apart = plane.iter().map(|&got| (f64::from(got) - wanted).abs());
                        assert!(
                            apart.fold(0.0, f64::max) <= 2.2,
                            "{matrix:?} {range:?} {rgb:?}: {planes:?}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_frame_is_refused() {
        let tables = Tensor::zeros((1, 256), DType::F32, &Device::Cpu).unwrap();
        let colors = ColorSpace {
            matrix: Matrix::BT709,
            range: Range::Limited,
        };
        for dims in [
            vec![1, 0, 0],
            vec![0, 6, 4],
            vec![1, 3, 3],
            vec![1, 4, 4],
            vec![1, 6, 6, 1],
            vec![6, 4],
        ] {
            let bytes = Tensor::zeros(dims.as_slice(), DType::U8, &Device::Cpu).unwrap();
            assert!(
                planes_of_nv12(&bytes, &tables, colors, DType::F32).is_err(),
                "{dims:?}"
            );
        }
        let bytes = Tensor::zeros((1, 6, 4), DType::U8, &Device::Cpu).unwrap();
        for (kr, kb) in [(0.5, 0.5), (0.5, 0.499), (f64::NAN, 0.1)] {
            let colors = ColorSpace {
                matrix: Matrix { kr, kb },
                ..colors
            };
            assert!(
                planes_of_nv12(&bytes, &tables, colors, DType::F32).is_err(),
                "{kr} {kb}"
            );
        }
        let narrow = Tensor::zeros((1, 255), DType::F32, &Device::Cpu).unwrap();
        assert!(planes_of_nv12(&bytes, &narrow, colors, DType::F32).is_err());
        assert!(planes_of_nv12(&bytes, &tables, colors, DType::F32).is_ok());
        assert!(planes(&bytes, &tables, DType::F32).is_err());
    }
}
