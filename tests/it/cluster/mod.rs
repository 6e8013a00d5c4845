//! Many gateways on one Postgres: they decide, pay and record as one.

mod jobs;
mod money;
mod recovery;
mod revoked;
mod rounds;
mod together;
