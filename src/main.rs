//! The `masam` program. Everything it does is in the library's [`masam::cli`].

fn main() -> std::process::ExitCode {
    masam::cli::main()
}
