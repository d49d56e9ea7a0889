//! Where and in which type a model runs.

use super::card::{self, Card};
use crate::error::{Error, Result};
use crate::kernels::{packed::Number, simd};
use candle_core::{DType, Device};
use half::bf16;
use std::fmt;
use std::str::FromStr;

/// The `device` property: `auto`, `cpu`, `cuda` or `cuda:N`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// CUDA where there is a card, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The card of that number.
    Cuda(usize),
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || Error::config("device", text, "it has to be auto, cpu, cuda or cuda:N");
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => {
                let number = text.strip_prefix("cuda:").ok_or_else(wrong)?;
                number.parse().map(Self::Cuda).map_err(|_| wrong())
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

/// The `precision` property: `auto`, `f32`, `bf16` or `f16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PrecisionChoice {
    /// What suits the device: f32 on the CPU, bf16 on CUDA.
    #[default]
    Auto,
    /// Single precision.
    F32,
    /// Brain float, 8 significant bits.
    Bf16,
    /// Half precision, 11 significant bits.
    F16,
}

impl FromStr for PrecisionChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "auto" => Ok(Self::Auto),
            "f32" => Ok(Self::F32),
            "bf16" => Ok(Self::Bf16),
            "f16" => Ok(Self::F16),
            _ => Err(Error::config(
                "precision",
                text,
                "it has to be auto, f32, bf16 or f16",
            )),
        }
    }
}

impl fmt::Display for PrecisionChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::F16 => "f16",
        })
    }
}

/// A device and a type that exist here.
#[derive(Debug, Clone)]
pub struct Place {
    /// Where tensors live.
    pub device: Device,
    /// Their type.
    pub dtype: DType,
    /// For reports, for example `cpu f32 avx512`.
    pub description: String,
}

impl Place {
    /// Resolves the user's wishes against this machine and build.
    ///
    /// # Errors
    /// [`Error::Unavailable`] for a card that is not there, a build without CUDA, or a precision the device lacks.
    pub fn choose(device: &DeviceChoice, precision: PrecisionChoice) -> Result<Self> {
        match device {
            DeviceChoice::Auto => match card::open(0) {
                Ok(opened) => Ok(Self::on_cuda(opened, 0, precision)),
                Err(_) => Self::on_cpu(precision),
            },
            DeviceChoice::Cpu => Self::on_cpu(precision),
            DeviceChoice::Cuda(number) => Ok(Self::on_cuda(card::open(*number)?, *number, precision)),
        }
    }

    fn on_cpu(precision: PrecisionChoice) -> Result<Self> {
        match precision {
            PrecisionChoice::Auto | PrecisionChoice::F32 => Ok(Self {
                device: Device::Cpu,
                dtype: DType::F32,
                description: format!("cpu f32 {}", simd::instruction_set()),
            }),
            PrecisionChoice::Bf16 => match bf16::lanes() {
                Ok(_) => Ok(Self {
                    device: Device::Cpu,
                    dtype: DType::BF16,
                    description: "cpu bf16 avx512bf16".into(),
                }),
                Err(error) => Err(Error::Unavailable {
                    what: "precision bf16 on the CPU".into(),
                    why: format!("{error}; set precision to f32 or auto"),
                }),
            },
            PrecisionChoice::F16 => Err(Error::Unavailable {
                what: "precision f16 on the CPU".into(),
                why: "it computes in f32 or bf16; set precision to one of them or to auto".into(),
            }),
        }
    }

    /// The same for training, which keeps its tensors in float32 on the CPU.
    ///
    /// # Errors
    /// As [`Place::choose`].
    pub fn for_training(device: &DeviceChoice, precision: PrecisionChoice) -> Result<Self> {
        let on_cpu = match device {
            DeviceChoice::Auto => card::open(0).is_err(),
            DeviceChoice::Cpu => true,
            DeviceChoice::Cuda(_) => false,
        };
        if on_cpu && matches!(precision, PrecisionChoice::Bf16 | PrecisionChoice::F16) {
            return Err(Error::Unavailable {
                what: format!("precision {precision} on the CPU"),
                why: "training computes in f32 there; set precision to f32 or auto".into(),
            });
        }
        Self::choose(device, precision)
    }

    fn on_cuda((device, card): (Device, Card), number: usize, precision: PrecisionChoice) -> Self {
        let (dtype, name) = match precision {
            PrecisionChoice::Auto | PrecisionChoice::Bf16 => (DType::BF16, "bf16"),
            PrecisionChoice::F32 => (DType::F32, "f32"),
            PrecisionChoice::F16 => (DType::F16, "f16"),
        };
        Self {
            device,
            dtype,
            description: format!("cuda:{number} {name} {}", card.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_strictly() {
        assert_eq!("cuda:3".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(3));
        for bad in ["", "gpu", "cuda:", "cuda:-1", "cuda:x", "CPU"] {
            assert!(bad.parse::<DeviceChoice>().is_err(), "{bad}");
        }
        for word in ["auto", "f32", "bf16", "f16"] {
            assert_eq!(word.parse::<PrecisionChoice>().unwrap().to_string(), word);
        }
        assert!("fp32".parse::<PrecisionChoice>().is_err());
    }

    #[test]
    fn nothing_falls_back_silently() {
        let error = |precision| {
            Place::choose(&DeviceChoice::Cpu, precision)
                .unwrap_err()
                .to_string()
        };
        assert!(error(PrecisionChoice::F16).contains("f16 on the CPU"));
        match bf16::lanes() {
            Ok(_) => {
                let place = Place::choose(&DeviceChoice::Cpu, PrecisionChoice::Bf16).unwrap();
                assert!(place.description.starts_with("cpu bf16"), "{}", place.description);
                assert!(Place::for_training(&DeviceChoice::Cpu, PrecisionChoice::Bf16).is_err());
            }
            Err(_) => assert!(error(PrecisionChoice::Bf16).contains("AVX512-BF16")),
        }
        assert!(
            Place::choose(&DeviceChoice::Cpu, PrecisionChoice::Auto)
                .unwrap()
                .description
                .starts_with("cpu f32")
        );
    }
}
