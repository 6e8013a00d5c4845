//! The doorway: TLS first, then the command line.

use std::process::ExitCode;

/// A request makes many small values that other threads free; the system's allocator costs a fifth of its CPU for that.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    tappass::net::install_tls();
    tappass::app::main()
}
