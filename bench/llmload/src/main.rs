//! A load generator for gateways that stand between agents and model providers.
//!
//!   llmload figures --gateway BINARY --out FILE [--short]
//!       starts the mock, the bare proxy and the gateway, prints the figures and writes them as JSON
//!   llmload closed|streams|open --url URL [--key KEY] [--connections 64] [--rate 200] [--seconds 4] [--prompt 1024]
//!       one load against what already runs, to look at with a profiler
//!
//! Talks to loopback only. Fails where an answer was not a whole 200.

mod figures;
mod http;
mod load;
mod measure;
mod procs;

use std::{process::ExitCode, time::Duration};

use crate::http::Endpoint;

/// The command line: one word and `--name value` pairs.
struct Options {
    word: String,
    named: Vec<(String, String)>,
}

impl Options {
    fn read() -> Result<Self, String> {
        let mut args = std::env::args().skip(1);
        let word = args.next().unwrap_or_default();
        let mut named = Vec::new();
        while let Some(arg) = args.next() {
            let name = arg.strip_prefix("--").ok_or_else(|| format!("what is `{arg}`?"))?;
            let value = if name == "short" { Some(String::new()) } else { args.next() };
            named.push((name.to_owned(), value.ok_or_else(|| format!("--{name} needs a value"))?));
        }
        Ok(Options { word, named })
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.named.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    fn needed(&self, name: &str) -> Result<&str, String> {
        self.get(name).ok_or_else(|| format!("--{name} is needed"))
    }

    fn number(&self, name: &str, default: f64) -> Result<f64, String> {
        self.get(name).map_or(Ok(default), |v| v.parse().map_err(|_| format!("--{name} {v}: no number")))
    }
}

fn by_hand(o: &Options) -> Result<(), String> {
    let mut endpoint = Endpoint::parse(o.needed("url")?)?;
    endpoint.headers.extend(o.get("key").map(http::bearer));
    let stream = o.word == "streams";
    let body = measure::body(stream, o.number("prompt", 1024.0)? as usize);
    let time = Duration::from_secs_f64(o.number("seconds", 4.0)?);
    let connections = o.number("connections", 64.0)? as usize;
    let outcome = match o.word.as_str() {
        "open" => load::open(&endpoint, &body, o.number("rate", 200.0)?, connections, time),
        _ => load::closed(&endpoint, &body, connections, time, stream),
    };
    println!("{outcome:#?}");
    if outcome.errors > 0 { Err(format!("{} answers were not a whole 200", outcome.errors)) } else { Ok(()) }
}

fn run() -> Result<(), String> {
    let o = Options::read()?;
    match o.word.as_str() {
        "figures" => figures::run(o.needed("gateway")?.as_ref(), o.needed("out")?.as_ref(), o.get("short").is_some()),
        "closed" | "open" | "streams" => by_hand(&o),
        _ => Err("what to do? figures, closed, open or streams".into()),
    }
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("llmload: {e}");
            ExitCode::FAILURE
        }
    }
}
