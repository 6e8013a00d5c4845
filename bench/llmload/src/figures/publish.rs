//! Publishing a policy: from the request until its acknowledgement, after which nothing older decides.
//!
//! Owns one policy per gateway for as long as it measures: assigned to the whole organization, so that each publish has to
//! compile what decides, and removed at the end. The drafts are made before and are not timed. An answer other than 200 is
//! an error of the run.

use std::time::Instant;

use serde_json::Value;

use crate::{
    figures::rig::Gateway,
    load,
    measure::{median, show},
};

/// Two versions that differ, so that each publish changes what decides.
const RULES: [&str; 2] = [r#"["payments_*"]"#, r#"["payments_*","wire_*"]"#];

/// What one gateway took, in milliseconds, and how many instances had it, as the last receipt tells.
#[derive(Debug, Default)]
pub struct Published {
    pub ms: Vec<f64>,
    pub live_on: u64,
    pub instances: u64,
}

impl Published {
    pub fn median(&self) -> Option<f64> {
        median(self.ms.clone())
    }

    pub fn worst(&self) -> Option<f64> {
        self.ms.iter().copied().max_by(f64::total_cmp)
    }
}

/// `count` publishes on each, the gateways taking turns; in their order.
pub fn run(gateways: &[&Gateway], count: usize) -> Result<Vec<Published>, String> {
    let mut all: Vec<Published> = gateways.iter().map(|_| Published::default()).collect();
    let policies = gateways.iter().map(|gateway| make(gateway)).collect::<Result<Vec<_>, _>>()?;
    for n in 0..count {
        for ((gateway, policy), seen) in gateways.iter().zip(&policies).zip(&mut all) {
            let draft = rules(n);
            let draft = post(gateway, &format!("{policy}/versions"), &format!("{{\"rules\":{draft}}}"))?;
            let publish = format!("{policy}/versions/{}/publish", draft["version_no"]);
            let begin = Instant::now();
            let answer = post(gateway, &publish, "")?;
            seen.ms.push(begin.elapsed().as_secs_f64() * 1e3);
            let number = |name: &str| answer["receipt"][name].as_u64();
            let (Some(live_on), Some(instances)) = (number("live_on"), number("instances")) else {
                return Err(format!("{}: the receipt of a publish counts no instances: {answer}", gateway.name));
            };
            (seen.live_on, seen.instances) = (live_on, instances);
        }
    }
    for (gateway, policy) in gateways.iter().zip(&policies) {
        let to = gateway.admin(policy);
        answer(gateway, policy, load::ask(&to, &to.delete()))?;
    }
    Ok(all)
}

fn rules(n: usize) -> String {
    format!(r#"[{{"kind":"BlockTool","ordinal":1,"payload":{{"tools":{}}}}}]"#, RULES[n % RULES.len()])
}

/// A policy whose first version is active and assigned; its path.
fn make(gateway: &Gateway) -> Result<String, String> {
    let policy = post(gateway, "/api/policies", &format!(r#"{{"name":"bench","rules":{}}}"#, rules(1)))?;
    let id = policy["policy_id"].as_str().ok_or_else(|| format!("{}: a policy without an id", gateway.name))?;
    let path = format!("/api/policies/{id}");
    post(gateway, &format!("{path}/versions/1/publish"), "")?;
    post(gateway, &format!("{path}/assignments"), r#"{"scope_type":"org"}"#)?;
    Ok(path)
}

fn post(gateway: &Gateway, path: &str, body: &str) -> Result<Value, String> {
    let to = gateway.admin(path);
    answer(gateway, path, load::ask(&to, &to.post(body)))
}

fn answer(gateway: &Gateway, path: &str, got: std::io::Result<(u16, Vec<u8>)>) -> Result<Value, String> {
    match got {
        Ok((200, body)) => serde_json::from_slice(&body).map_err(|e| format!("{} at {path}: {e}", gateway.name)),
        Ok((status, body)) => {
            Err(format!("{} at {path}: status {status}, {}", gateway.name, String::from_utf8_lossy(&body)))
        }
        Err(e) => Err(format!("{} at {path}: {e}", gateway.name)),
    }
}

/// The line of a table.
pub fn line(name: &str, of: &Published) -> String {
    let (median, worst, n) = (show(of.median()), show(of.worst()), of.ms.len());
    let (live_on, instances) = (of.live_on, of.instances);
    format!("publish   {name:<13} median {median} ms, worst {worst} ms, {n} times, live on {live_on} of {instances}")
}
