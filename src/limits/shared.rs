//! Quotas in Redis, counted over all instances.
//!
//! Owns the two scripts and the names of the keys. One script looks at all allowances of a call and charges all or none,
//! in one round trip. Time is the server's, so clocks of instances are never compared; what goes over the wire is how far
//! ahead a caller is, in microseconds. A key ends with the window that it is about: a lost Redis forgets, and the
//! instances then tell it what they know (`floors`).

use std::sync::LazyLock;

use async_trait::async_trait;

use super::charge::{Charge, Charges, MOST, Standing, Standings};
use crate::storage::{Redis, RedisError, Script};

/// Keys: allowances. Arguments, three for each: span, window, what the caller knows to be ahead. Answers two for each:
/// ahead, wait. Numbers are microseconds since a moment that is near enough for a double to keep nanoseconds.
static CHARGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local stored = redis.call('MGET', unpack(KEYS))
local ahead, span, raised, wait, fits = {}, {}, {}, {}, true
for i = 1, #KEYS do
  span[i] = tonumber(ARGV[3 * i - 2])
  local window, floor = tonumber(ARGV[3 * i - 1]), tonumber(ARGV[3 * i])
  local known = math.max(0, tonumber(stored[i] or now) - now)
  ahead[i] = math.min(math.max(known, floor), window)
  raised[i] = floor > known
  local over = ahead[i] + span[i] - window
  -- Within a microsecond it is rounding.
  if over > 1 then wait[i] = over; fits = false else wait[i] = 0 end
end
local answer = {}
for i = 1, #KEYS do
  if fits then ahead[i] = ahead[i] + span[i] end
  if fits or raised[i] then
    redis.call('SET', KEYS[i], string.format('%.3f', now + ahead[i]), 'PX', math.ceil(ahead[i] / 1000) + 1000)
  end
  answer[2 * i - 1] = string.format('%.3f', ahead[i])
  answer[2 * i] = string.format('%.3f', wait[i])
end
return answer",
    )
});

/// Key: an allowance. Arguments: by how much it moves, window.
static ADJUST: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local ahead = math.max(0, tonumber(redis.call('GET', KEYS[1]) or now) - now)
ahead = math.max(0, math.min(ahead + tonumber(ARGV[1]), tonumber(ARGV[2])))
redis.call('SET', KEYS[1], string.format('%.3f', now + ahead), 'PX', math.ceil(ahead / 1000) + 1000)
return {}",
    )
});

/// The shared store does not answer.
#[derive(Debug, thiserror::Error)]
#[error("the shared store does not answer")]
pub struct Away;

/// A count that several instances share.
#[async_trait]
pub trait QuotaStore: Send + Sync + 'static {
    /// The number of the link to it, if it can be asked; another link may lead to a store that has forgotten.
    fn link(&self) -> Option<u64>;
    /// Charges all or nothing. `floors`: how far ahead each caller is known to be.
    async fn charge(&self, charges: &Charges, floors: &[u64; MOST]) -> Result<Standings, Away>;
    /// Moves an allowance from the cost that was charged to the one that was used.
    async fn adjust(&self, charge: &Charge, used: u64) -> Result<(), Away>;
}

/// Quotas in Redis.
pub struct SharedQuotas {
    redis: Redis,
}

impl SharedQuotas {
    /// Over the shared connection.
    pub fn new(redis: Redis) -> Self {
        Self { redis }
    }

    fn key(&self, charge: &Charge) -> String {
        format!("{}:quota:{}", self.redis.prefix(), charge.cell)
    }
}

#[async_trait]
impl QuotaStore for SharedQuotas {
    fn link(&self) -> Option<u64> {
        self.redis.link()
    }

    async fn charge(&self, charges: &Charges, floors: &[u64; MOST]) -> Result<Standings, Away> {
        let mut keys = Vec::with_capacity(MOST);
        let mut arguments = Vec::with_capacity(3 * MOST);
        for (charge, floor) in charges.iter().zip(floors) {
            keys.push(self.key(charge));
            arguments.extend([charge.rate.span(charge.cost), charge.rate.window, *floor].map(micros));
        }
        let answer = self.redis.run(&CHARGE, &keys, &arguments).await.map_err(|_: RedisError| Away)?;
        let mut standings = Standings::default();
        for (pair, standing) in answer.chunks_exact(2).zip(&mut standings) {
            let [ahead, wait] = pair else { return Err(Away) };
            let read = |text: &String| nanos(text).ok_or(Away);
            // A microsecond for rounding; the answer has taken longer than that.
            *standing = Standing { ahead: read(ahead)?.saturating_sub(1_000), wait: read(wait)? };
        }
        if answer.len() == 2 * keys.len() { Ok(standings) } else { Err(Away) }
    }

    async fn adjust(&self, charge: &Charge, used: u64) -> Result<(), Away> {
        let (charged, used) = (charge.rate.span(charge.cost), charge.rate.span(used));
        let sign = if used < charged { "-" } else { "" };
        let moved = format!("{sign}{}", micros(used.abs_diff(charged)));
        let arguments = [moved, micros(charge.rate.window)];
        self.redis.run(&ADJUST, &[self.key(charge)], &arguments).await.map_err(|_: RedisError| Away)?;
        Ok(())
    }
}

/// Nanoseconds as microseconds with three decimals.
fn micros(nanos: u64) -> String {
    format!("{}.{:03}", nanos / 1_000, nanos % 1_000)
}

fn nanos(micros: &str) -> Option<u64> {
    let (whole, part) = micros.split_once('.')?;
    let part: u64 = part.parse().ok().filter(|_| part.len() == 3)?;
    whole.parse::<u64>().ok()?.checked_mul(1_000)?.checked_add(part)
}
