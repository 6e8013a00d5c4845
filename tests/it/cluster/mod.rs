//! Many gateways on one Postgres: they decide, pay and record as one.

mod money;
mod revoked;
mod rounds;
mod together;
