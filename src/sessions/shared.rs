//! Sessions in Redis.
//!
//! Owns the script that merges and reads in one round trip, and the names of the keys. Time is the server's. A session
//! that nobody sees ends by itself. Names of sessions are digests: what callers write stands in no key.

use std::sync::LazyLock;

use super::{Glance, HALF_LIFE, LIFE, Labels, Session, SessionKey};
use crate::{
    domain::digest::Digest,
    storage::{Redis, Script},
};

/// Key: a session. Arguments: labels, risk to add, tools, risk that is known, half-life in µs, life in ms, whether to
/// write. Answers labels, risk, tools, when it was seen; nothing for a session that is only read and not there.
static MERGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local old = redis.call('HMGET', KEYS[1], 'labels', 'risk', 'tools', 'seen')
local write = ARGV[7] == '1'
if not write and not old[4] then return {} end
local age = math.max(0, now - tonumber(old[4] or now))
local risk = tonumber(old[2] or 0) * 2 ^ (-age / tonumber(ARGV[5]))
risk = math.max(risk, tonumber(ARGV[4])) + tonumber(ARGV[2])
local labels = bit.bor(tonumber(old[1] or 0), tonumber(ARGV[1]))
local tools = old[3] or ''
if tools == '' then tools = ARGV[3] end
local seen = string.format('%.0f', now)
if write then
  redis.call('HSET', KEYS[1], 'labels', labels, 'risk', string.format('%.3f', risk), 'tools', tools, 'seen', seen)
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
else
  seen = old[4]
end
return {tostring(labels), string.format('%.0f', risk), tools, seen}",
    )
});

pub(super) struct SharedSessions {
    redis: Redis,
}

impl SharedSessions {
    pub(super) fn new(redis: Redis) -> Self {
        Self { redis }
    }

    pub(super) fn link(&self) -> Option<u64> {
        self.redis.link()
    }

    /// `untold`: what is known here and may not be there.
    pub(super) async fn merge(&self, key: SessionKey, glance: &Glance, untold: Option<&Session>) -> Option<Session> {
        let labels = Labels(glance.labels.0 | untold.map_or(0, |known| known.labels.0));
        let tools = untold.and_then(|known| known.tools).or(glance.tools);
        let floor = untold.map_or(0, |known| known.risk);
        self.run(key, &Glance { labels, risk: glance.risk, tools }, floor, true).await.flatten()
    }

    /// `None`: Redis does not answer.
    pub(super) async fn find(&self, key: SessionKey) -> Option<Option<Session>> {
        self.run(key, &Glance::default(), 0, false).await
    }

    async fn run(&self, key: SessionKey, glance: &Glance, floor: u32, write: bool) -> Option<Option<Session>> {
        let arguments = [
            glance.labels.0.to_string(),
            glance.risk.to_string(),
            glance.tools.map_or_else(String::new, |tools| tools.to_string()),
            floor.to_string(),
            (HALF_LIFE / 1_000).to_string(),
            (LIFE / 1_000_000).to_string(),
            u8::from(write).to_string(),
        ];
        let key = format!("{}:session:{}", self.redis.prefix(), key.0);
        let answer = self.redis.run(&MERGE, &[key], &arguments).await.ok()?;
        if answer.is_empty() {
            return Some(None);
        }
        let [labels, risk, tools, seen] = answer.as_slice() else { return None };
        let session = Session {
            labels: Labels(labels.parse().ok()?),
            risk: risk.parse().ok()?,
            tools: Digest::from_hex(tools),
            seen: seen.parse().ok()?,
        };
        Some(Some(session))
    }
}
