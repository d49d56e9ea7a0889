//! A card's memory in the machine's: margins of NaN on both sides, so that a stray read spoils the result and a stray
//! write is seen.

use super::super::Element;
use super::super::arguments::Address;
use candle_core::Tensor;

const MARGIN_BYTES: usize = 512;
const STRAY: u8 = 0xff;

pub(super) struct Memory {
    words: Vec<u128>,
    start: usize,
    length: usize,
}

impl Memory {
    /// Bytes that begin `shift` behind an address that 16 divides.
    pub(super) fn of_bytes(bytes: &[u8], shift: usize) -> Self {
        let words = vec![u128::MAX; (bytes.len() + 2 * MARGIN_BYTES + shift).div_ceil(16)];
        let start = MARGIN_BYTES + shift;
        let mut memory = Self {
            words,
            start,
            length: bytes.len(),
        };
        memory.all_mut()[start..start + bytes.len()].copy_from_slice(bytes);
        memory
    }

    /// A tensor's values, rounded, that begin `shift` elements behind such an address.
    pub(super) fn of(element: Element, tensor: &Tensor, shift: usize) -> Self {
        let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        let bytes: Vec<u8> = match element {
            Element::F32 => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
            Element::Bf16 => values
                .iter()
                .flat_map(|v| half::bf16::from_f32(*v).to_le_bytes())
                .collect(),
            Element::F16 => values
                .iter()
                .flat_map(|v| half::f16::from_f32(*v).to_le_bytes())
                .collect(),
        };
        Self::of_bytes(&bytes, shift * element.bytes())
    }

    /// NaN for `count` elements.
    pub(super) fn room(element: Element, count: usize, shift: usize) -> Self {
        Self::of_bytes(&vec![STRAY; count * element.bytes()], shift * element.bytes())
    }

    fn all_mut(&mut self) -> &mut [u8] {
        // SAFETY: any bytes make integers, and the length is that of the vector.
        unsafe { std::slice::from_raw_parts_mut(self.words.as_mut_ptr().cast(), self.words.len() * 16) }
    }

    pub(super) fn address(&mut self) -> Address {
        let start = self.start;
        self.all_mut()[start..].as_mut_ptr() as Address
    }

    /// The bytes, after a look at the margins.
    pub(super) fn bytes(&mut self) -> Vec<u8> {
        let (start, end) = (self.start, self.start + self.length);
        let all = self.all_mut();
        let clean = |margin: &[u8]| margin.iter().all(|byte| *byte == STRAY);
        assert!(
            clean(&all[..start]) && clean(&all[end..]),
            "written beside the output"
        );
        all[start..end].to_vec()
    }

    pub(super) fn floats(&mut self, element: Element) -> Vec<f32> {
        let bytes = self.bytes();
        let pairs = bytes.as_chunks::<2>().0.iter();
        match element {
            Element::F32 => bytes
                .as_chunks::<4>()
                .0
                .iter()
                .map(|b| f32::from_le_bytes(*b))
                .collect(),
            Element::Bf16 => pairs.map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect(),
            Element::F16 => pairs.map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
        }
    }
}
