//! The product from outside: over HTTP, from the command line, on its files, with its neighbours faked.
//!
//! One binary, one module per theme; `support` is what they share. Nothing here reaches into a module of the product.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::format_push_string,
    clippy::format_collect,
    reason = "a test that cannot go on says so by panicking; it has no lifecycle to spawn through and no config to ask"
)]
#![expect(unreachable_pub, reason = "`pub` says what a module offers to the others; nothing leaves this binary")]

mod support;

mod architecture;

mod budget;
mod budget_books;
mod budget_streams;
mod budget_windows;
mod canary;
mod cli;
mod cluster;
mod content;
mod control_plane;
mod coverage;
mod crash;
mod flags;
mod fresh_policy;
mod hangups;
mod header_hygiene;
mod health;
mod http_two;
mod lifecycle;
mod limits;
mod outages;
mod output_guard;
mod paths;
mod redis;
mod refusals;
mod request_bodies;
mod response_bodies;
mod slow_and_late;
mod signing_keys;
mod sse_framing;
mod stream_ends;
mod tamper;
mod tenancy;
mod the_fakes;
mod the_servers;
mod usage;
mod wire;
