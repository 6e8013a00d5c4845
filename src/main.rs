//! The doorway: TLS first, then the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    tappass::net::install_tls();
    tappass::app::main()
}
