//! A pass over a card recorded once as a CUDA graph and played again: one launch instead of a thousand.
//!
//! A recording holds addresses. Its input and output are tensors of its own, into and out of which each run copies;
//! everything in between is allocated and freed inside the graph.

use crate::error::{Error, Result};
use candle_core::Tensor;

/// A recorded pass of one input and one output.
pub struct Recording {
    input: Tensor,
    output: Tensor,
    #[cfg(feature = "cuda")]
    graph: candle_core::cuda_backend::cudarc::driver::CudaGraph,
}

impl Recording {
    /// Records `pass` for inputs of the shape and type of `input`, which has to be on a card. `pass` is run three times:
    /// twice so that all kernels are loaded and all small uploads known, then for the record. It must not wait for the card
    /// and has to do the same each time.
    ///
    /// # Errors
    /// A tensor that is not on a card, those of `pass`, or the driver's.
    #[cfg(feature = "cuda")]
    pub fn new(input: &Tensor, pass: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        use candle_core::Device;
        use candle_core::cuda_backend::cudarc::driver::sys::{CUgraphInstantiate_flags, CUstreamCaptureMode};
        let Device::Cuda(card) = input.device() else {
            return Err(unavailable("the input is not on a card"));
        };
        let told = |e: candle_core::cuda_backend::cudarc::driver::DriverError| unavailable(&e.to_string());
        let stream = card.cuda_stream();
        let input = input.copy()?;
        let _known_uploads = card.enable_cuda_graph_htod_cache();
        let output = pass(&input)?.contiguous()?.copy()?;
        output.slice_set(&pass(&input)?.contiguous()?, 0, 0)?;
        input.device().synchronize()?;
        stream
            .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .map_err(told)?;
        let recorded = pass(&input).and_then(|y| Ok(output.slice_set(&y.contiguous()?, 0, 0)?));
        // Ended in any case: a stream that stays in this state takes nothing more.
        let graph =
            stream.end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        recorded?;
        match graph.map_err(told)? {
            Some(graph) => Ok(Self { input, output, graph }),
            None => Err(unavailable("the driver recorded nothing")),
        }
    }

    /// As with CUDA: there is no card here.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "cuda"))]
    pub fn new(_: &Tensor, _: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Self> {
        Err(unavailable("this program was built without CUDA"))
    }

    /// Puts a run on the stream; the output is there once the stream comes to it, until the next run.
    ///
    /// # Errors
    /// An input of another shape or type, or the driver's.
    pub fn run(&self, input: &Tensor) -> Result<&Tensor> {
        self.input.slice_set(input, 0, 0)?;
        #[cfg(feature = "cuda")]
        self.graph.launch().map_err(|e| unavailable(&e.to_string()))?;
        Ok(&self.output)
    }
}

fn unavailable(why: &str) -> Error {
    Error::Unavailable {
        what: "a recorded pass".into(),
        why: why.into(),
    }
}
