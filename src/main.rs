//! The doorway: TLS first, then the command line.

use std::process::ExitCode;

/// Requests make many small values on many threads; see `make bench` for what the system's allocator costs instead.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tappass::net::install_tls();
    tappass::app::main()
}
