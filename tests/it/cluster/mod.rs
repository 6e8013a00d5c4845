//! Many gateways on one Postgres: they decide, pay and record as one.

mod together;
