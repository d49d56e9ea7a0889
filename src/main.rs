//! The `masam` program. Everything it does is in the library's [`masam::cli`].

/// Number of threads of the pool in Candle whose threads wait for work, and for each other, in a busy loop.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

fn main() -> std::process::ExitCode {
    if std::env::var_os(CANDLE_THREADS).is_none() {
        // Our kernels have a pool of their own; Candle's would burn more than half of all time on busy cores.
        // SAFETY: this is the first thing that happens, so no other thread reads the environment.
        unsafe { std::env::set_var(CANDLE_THREADS, "1") };
    }
    masam::cli::main()
}
