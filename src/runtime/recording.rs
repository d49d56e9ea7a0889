//! A pass over a card recorded once as a CUDA graph and played again: one launch instead of a thousand.
//!
//! A recording holds addresses. Its inputs and its output are tensors of its own, written before and read after each
//! play; everything in between is allocated and freed inside the graph.

use crate::error::{Error, Result};
use candle_core::Tensor;

/// What is recorded: it may do nothing but put work on the inputs' stream, and has to do the same each time.
type Pass = Box<dyn Fn(&[Tensor]) -> Result<Tensor> + Send>;

/// A recorded pass.
pub struct Recording {
    #[cfg(feature = "cuda")]
    graph: Option<on_card::Graph>,
    inputs: Vec<Tensor>,
    output: Tensor,
    /// Owns what the graph's addresses belong to.
    #[cfg_attr(not(test), expect(dead_code, reason = "kept alive, not run again"))]
    pass: Pass,
}

impl Recording {
    /// Records `pass` over `inputs`, which have to be on a card and from now on belong to the recording. `pass` is run three
    /// times: twice so that all kernels are loaded and all small uploads known, then for the record. It must not wait for
    /// the card and has to do the same each time.
    ///
    /// The thread that records keeps those small uploads: a recording is of no use once that thread has ended.
    ///
    /// # Errors
    /// Inputs that are not on a card, those of `pass`, or the driver's.
    pub fn new(
        inputs: Vec<Tensor>,
        pass: impl Fn(&[Tensor]) -> Result<Tensor> + Send + 'static,
    ) -> Result<Self> {
        #[cfg(test)]
        if inputs.iter().all(crate::kernels::passes_for_card) {
            return Ok(Self {
                #[cfg(feature = "cuda")]
                graph: None,
                output: pass(&inputs)?.force_contiguous()?,
                inputs,
                pass: Box::new(pass),
            });
        }
        #[cfg(feature = "cuda")]
        return on_card::record(inputs, Box::new(pass));
        #[cfg(not(feature = "cuda"))]
        {
            drop((inputs, pass));
            Err(unavailable("this program was built without CUDA"))
        }
    }

    /// The inputs: what is written to them is what the next [`Recording::play`] sees.
    pub fn inputs(&self) -> &[Tensor] {
        &self.inputs
    }

    /// Copies `values` to the inputs, in their order.
    ///
    /// # Errors
    /// Another number of them, of another shape or type, or Candle's own.
    pub fn write(&self, values: &[&Tensor]) -> Result<()> {
        if values.len() != self.inputs.len() {
            let (given, own) = (values.len(), self.inputs.len());
            return Err(unavailable(&format!("it takes {own} inputs, not {given}")));
        }
        for (input, value) in self.inputs.iter().zip(values) {
            input.slice_set(value, 0, 0)?;
        }
        Ok(())
    }

    /// Puts a run on the stream; the output is there once the stream comes to it, until the next run.
    ///
    /// # Errors
    /// The driver's.
    pub fn play(&self) -> Result<&Tensor> {
        #[cfg(feature = "cuda")]
        if let Some(graph) = &self.graph {
            graph.launch()?;
            return Ok(&self.output);
        }
        #[cfg(test)]
        self.output
            .slice_set(&(self.pass)(&self.inputs)?.contiguous()?, 0, 0)?;
        Ok(&self.output)
    }
}

fn unavailable(why: &str) -> Error {
    Error::Unavailable {
        what: "a recorded pass".into(),
        why: why.into(),
    }
}

#[cfg(feature = "cuda")]
mod on_card {
    use super::{Pass, Recording, Result, Tensor, unavailable};
    use crate::runtime::card;
    use candle_core::Device;
    use candle_core::cuda_backend::cudarc::driver::sys::{
        CUgraphInstantiate_flags, CUstreamCaptureMode, cuMemPoolTrimTo,
    };
    use candle_core::cuda_backend::cudarc::driver::{
        CudaContext, CudaGraph, CudaStream, DriverError, result,
    };
    use std::sync::Arc;

    pub(super) struct Graph(CudaGraph);

    // SAFETY: the driver takes a graph from any thread as long as only one uses it at a time, which is what a type that
    // is not Sync is for.
    unsafe impl Send for Graph {}

    impl Graph {
        pub(super) fn launch(&self) -> Result<()> {
            self.0.launch().map_err(told)
        }
    }

    fn told(error: DriverError) -> crate::error::Error {
        unavailable(&error.to_string())
    }

    pub(super) fn record(inputs: Vec<Tensor>, pass: Pass) -> Result<Recording> {
        let Some(Device::Cuda(device)) = inputs.first().map(|input| input.device().clone()) else {
            return Err(unavailable("its inputs are not on a card"));
        };
        // Opening a card waits for all of its work, which a stream that is recorded does not bear.
        let _alone = card::alone();
        let stream = device.cuda_stream();
        let _known_uploads = device.enable_cuda_graph_htod_cache();
        let output = pass(&inputs)?.force_contiguous()?;
        output.slice_set(&pass(&inputs)?.contiguous()?, 0, 0)?;
        stream.synchronize().map_err(told)?;
        let capture = Capture::begin(&stream)?;
        let recorded = pass(&inputs).and_then(|y| Ok(output.slice_set(&y.contiguous()?, 0, 0)?));
        let graph = capture.end();
        recorded?;
        let Some(graph) = graph? else {
            return Err(unavailable("the driver recorded nothing"));
        };
        if let Err(error) = give_back(stream.context()) {
            tracing::debug!("the card's pool keeps what a recording does not need: {error}");
        }
        Ok(Recording {
            graph: Some(Graph(graph)),
            inputs,
            output,
            pass,
        })
    }

    /// A stream that is being recorded. It ends in any case: a stream that stays in this state takes nothing more.
    struct Capture<'a>(Option<&'a Arc<CudaStream>>);

    impl<'a> Capture<'a> {
        fn begin(stream: &'a Arc<CudaStream>) -> Result<Self> {
            stream
                .begin_capture(CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
                .map_err(told)?;
            Ok(Self(Some(stream)))
        }

        fn end(mut self) -> Result<Option<CudaGraph>> {
            self.0.take().map_or(Ok(None), finish)
        }
    }

    impl Drop for Capture<'_> {
        fn drop(&mut self) {
            if let Some(Err(error)) = self.0.take().map(finish) {
                tracing::debug!("a recording that was given up: {error}");
            }
        }
    }

    fn finish(stream: &Arc<CudaStream>) -> Result<Option<CudaGraph>> {
        // What a failed pass has left behind there would be told instead of ending anything.
        let before = stream.context().check_err();
        let graph =
            stream.end_capture(CUgraphInstantiate_flags::CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH);
        before.and(graph).map_err(told)
    }

    /// Gives back what the passes before the record have had from the card's pool: a graph has memory of its own.
    fn give_back(context: &CudaContext) -> std::result::Result<(), DriverError> {
        // SAFETY: the pool is that of a live context; only what nobody uses is given back.
        unsafe {
            let pool = result::device::get_default_mem_pool(context.cu_device())?;
            cuMemPoolTrimTo(pool, 0).result()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::pretended_card;
    use candle_core::{DType, Device};

    #[test]
    fn what_is_written_is_what_is_played() {
        let zeros = || Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap();
        let offset = Tensor::new(&[1f32, 2.0], &Device::Cpu).unwrap();
        assert!(Recording::new(vec![zeros()], |x| Ok(x[0].clone())).is_err());
        pretended_card::during(|| {
            let pass = move |x: &[Tensor]| Ok(((&x[0] + &x[1])? + &offset)?);
            let recording = Recording::new(vec![zeros(), zeros()], pass).unwrap();
            let of = |values: [f32; 2]| Tensor::new(&values, &Device::Cpu).unwrap();
            let (a, b) = (of([10.0, 20.0]), of([100.0, 200.0]));
            recording.write(&[&a, &b]).unwrap();
            assert_eq!(
                recording.play().unwrap().to_vec1::<f32>().unwrap(),
                [111.0, 222.0]
            );
            recording.inputs()[1].slice_set(&of([0.0, 1.0]), 0, 0).unwrap();
            assert_eq!(recording.play().unwrap().to_vec1::<f32>().unwrap(), [11.0, 23.0]);
            assert!(recording.write(&[&a]).is_err());
        });
    }
}
