//! The map of tappass.

pub mod domain;
pub mod crypto;
pub mod telemetry;
pub mod config;
pub mod net;
pub mod storage;
pub mod audit;
pub mod auth;
pub mod detect;
pub mod limits;
pub mod policy;
pub mod providers;
pub mod tenants;
pub mod usage;
pub mod vault;
pub mod admission;
pub mod pipeline;
pub mod http;
pub mod jobs;
pub mod app;
