//! What a clip or a step costs the executor in memory once it has run before: nothing above four kilobytes.

use candle_core::{DType, Device};
use masam::kernels::memory::times_taken;
use masam::model::{FactMode, FormulaWeights, MaSam, ModelConfig};
use masam::runtime::executor::{Executor, Job, Masks, Picture, State};
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static COUNTING: AtomicBool = AtomicBool::new(false);
static LARGEST: AtomicUsize = AtomicUsize::new(0);
static COUNT: AtomicUsize = AtomicUsize::new(0);

struct Watching;

fn note(size: usize) {
    if COUNTING.load(Ordering::Relaxed) {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        COUNT.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes to the system's allocator unchanged; counting takes no memory.
unsafe impl GlobalAlloc for Watching {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Watching = Watching;

/// Largest allocation of any thread while `run` runs, and how many there were.
fn watched(run: impl FnOnce()) -> (usize, usize) {
    LARGEST.store(0, Ordering::SeqCst);
    COUNT.store(0, Ordering::SeqCst);
    COUNTING.store(true, Ordering::SeqCst);
    let pages = times_taken();
    run();
    COUNTING.store(false, Ordering::SeqCst);
    // What has pages of its own does not come from Rust's allocator.
    if times_taken() != pages {
        LARGEST.store(usize::MAX, Ordering::SeqCst);
    }
    (LARGEST.load(Ordering::SeqCst), COUNT.load(Ordering::SeqCst))
}

/// Runs until no buffer has grown for a while, and gives what the run after that gives. Which thread does what differs
/// from run to run: on a busy machine one of them may do something for the first time late, and then it all begins anew.
fn settled(executor: &mut Executor<f32>, mut run: impl FnMut(&mut Executor<f32>) -> usize) -> usize {
    let mut unchanged = 0;
    loop {
        let before = executor.buffer_bytes();
        let largest = run(executor);
        if executor.buffer_bytes() != before {
            unchanged = 0;
        } else if unchanged == 60 {
            return largest;
        } else {
            unchanged += 1;
        }
    }
}

#[test]
fn nothing_large_is_allocated_once_it_runs() {
    let config = ModelConfig {
        image_side_px: 128,
        ..ModelConfig::demo()
    };
    let weights = FormulaWeights::builder(DType::F32, &Device::Cpu);
    let model = MaSam::new(&config, FactMode::Folded, weights).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
    let area = config.image_side_px.pow(2);
    let pixels = vec![0.4f32; 3 * area];
    let mut ids = vec![vec![0u8; area]; 5];
    let mut state = State::new(&config);
    pool.install(|| {
        let mut executor = Executor::<f32>::new(model).unwrap();
        let mut clip = |executor: &mut Executor<f32>, outputs: &[usize]| {
            let mut masks: Vec<Masks<'_>> = ids
                .iter_mut()
                .take(outputs.len())
                .map(|ids| Masks::Labels(ids))
                .collect();
            let job = Job {
                clips: 1,
                frames: 5,
                outputs,
                picture: &|_| Picture::Planes(&pixels),
            };
            let found = watched(|| {
                executor.clip(&job, &mut masks).unwrap();
            });
            println!(
                "clip {outputs:?}: largest allocation {} bytes of {}",
                found.0, found.1
            );
            found.0
        };
        let largest = settled(&mut executor, |executor| clip(executor, &[0, 1, 2, 3, 4]));
        assert!(largest <= 4096);
        assert!(clip(&mut executor, &[4]) <= 4096, "fewer outputs need no more");
        let step = |executor: &mut Executor<f32>| {
            let mut masks = [Masks::Labels(&mut ids[0])];
            let found = watched(|| {
                let picture = |_: usize| Picture::Planes(&pixels);
                executor.step(&mut [&mut state], &picture, &mut masks).unwrap();
            });
            println!("step: largest allocation {} bytes of {}", found.0, found.1);
            found.0
        };
        assert!(settled(&mut executor, step) <= 4096);
        assert!(executor.buffer_bytes() > 0 && executor.weight_bytes() > 4 * 1_000_000);
    });
}
