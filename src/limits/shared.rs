//! Quotas in Redis, counted over all instances.
//!
//! Owns the two scripts and the names of the keys. One script looks at all allowances of a call and charges all or none,
//! in one round trip. Time is the server's, so clocks of instances are never compared; what goes over the wire is how far
//! ahead a caller is, in microseconds. A key ends with the window that it is about: a lost Redis forgets, and the
//! instances then tell it what they know (`floors`). Who has spent another sixteenth of an allowance is put on a short
//! stream, so that instances that have not seen a caller know about it before Redis goes away.

use std::sync::LazyLock;

use async_trait::async_trait;

use super::charge::{Cell, Charge, Charges, MOST, Standing, Standings, Subject};
use crate::storage::{Redis, RedisError, Script};

/// Keys: the stream, then allowances. Arguments, four for each: span, window, what the caller knows to be ahead, its name on
/// the stream if it belongs there. Answers two for each: ahead, wait. Numbers are microseconds since a moment that is near enough for a double to keep nanoseconds.
static CHARGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local stored = redis.call('MGET', unpack(KEYS, 2))
local ahead, span, raised, wait, fits = {}, {}, {}, {}, true
for i = 1, #stored do
  span[i] = tonumber(ARGV[4 * i - 3])
  local window, floor = tonumber(ARGV[4 * i - 2]), tonumber(ARGV[4 * i - 1])
  local known = math.max(0, tonumber(stored[i] or now) - now)
  ahead[i] = math.min(math.max(known, floor), window)
  raised[i] = floor > known
  local over = ahead[i] + span[i] - window
  -- Within a microsecond it is rounding.
  if over > 1 then wait[i] = over; fits = false else wait[i] = 0 end
end
local answer = {}
for i = 1, #stored do
  local before, window, name = ahead[i], tonumber(ARGV[4 * i - 2]), ARGV[4 * i]
  if fits then ahead[i] = ahead[i] + span[i] end
  if fits or raised[i] then
    local tat = string.format('%.3f', now + ahead[i])
    redis.call('SET', KEYS[i + 1], tat, 'PX', math.ceil(ahead[i] / 1000) + 1000)
    if name ~= '' and math.floor(16 * before / window) ~= math.floor(16 * ahead[i] / window) then
      redis.call('XADD', KEYS[1], 'MAXLEN', '~', 4096, '*', name, tat)
      redis.call('PEXPIRE', KEYS[1], 86400000)
    end
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

/// Key: the stream. Argument: the last entry that is known. Answers the last one now, then name and ahead of each newer one.
static NEWS: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local answer = {ARGV[1]}
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. ARGV[1], '+', 'COUNT', 1000)) do
  answer[1] = entry[1]
  answer[#answer + 1] = entry[2][1]
  answer[#answer + 1] = string.format('%.3f', math.max(0, tonumber(entry[2][2]) - now))
end
return answer",
    )
});

/// Keys: allowances. Arguments: how far ahead each is known to be; less than what is stored changes nothing.
static TELL: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local stored = redis.call('MGET', unpack(KEYS))
for i = 1, #KEYS do
  local floor = tonumber(ARGV[i])
  if floor > tonumber(stored[i] or now) - now then
    redis.call('SET', KEYS[i], string.format('%.3f', now + floor), 'PX', math.ceil(floor / 1000) + 1000)
  end
end
return {}",
    )
});

/// Allowances that one call of `TELL` carries; Lua unpacks some thousands, and others want to be served in between.
const AT_ONCE: usize = 200;

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
    /// Tells how far ahead callers are known to be.
    async fn tell(&self, known: &[(Cell, u64)]) -> Result<(), Away>;
    /// How far ahead callers have come since a place in the news, which is moved; a new place begins at the oldest.
    async fn news(&self, since: &mut String) -> Result<Vec<(Cell, u64)>, Away>;
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

    fn key(&self, cell: &Cell) -> String {
        format!("{}:quota:{cell}", self.redis.prefix())
    }

    fn stream(&self) -> String {
        format!("{}:quota-news", self.redis.prefix())
    }
}

#[async_trait]
impl QuotaStore for SharedQuotas {
    fn link(&self) -> Option<u64> {
        self.redis.link()
    }

    async fn charge(&self, charges: &Charges, floors: &[u64; MOST]) -> Result<Standings, Away> {
        let mut keys = Vec::with_capacity(1 + MOST);
        let mut arguments = Vec::with_capacity(4 * MOST);
        keys.push(self.stream());
        for (charge, floor) in charges.iter().zip(floors) {
            keys.push(self.key(&charge.cell));
            arguments.extend([charge.rate.span(charge.cost), charge.rate.window, *floor].map(micros));
            // Addresses are anybody's: they would fill the stream.
            let known = !matches!(charge.cell.subject, Subject::Address(_) | Subject::Failures(_));
            arguments.push(if known { charge.cell.to_string() } else { String::new() });
        }
        let answer = self.redis.run(&CHARGE, &keys, &arguments).await.map_err(|_: RedisError| Away)?;
        let mut standings = Standings::default();
        for (pair, standing) in answer.chunks_exact(2).zip(&mut standings) {
            let [ahead, wait] = pair else { return Err(Away) };
            let read = |text: &String| nanos(text).ok_or(Away);
            // A microsecond for rounding; the answer has taken longer than that.
            *standing = Standing { ahead: read(ahead)?.saturating_sub(1_000), wait: read(wait)? };
        }
        if answer.len() + 2 == 2 * keys.len() { Ok(standings) } else { Err(Away) }
    }

    async fn adjust(&self, charge: &Charge, used: u64) -> Result<(), Away> {
        let (charged, used) = (charge.rate.span(charge.cost), charge.rate.span(used));
        let sign = if used < charged { "-" } else { "" };
        let moved = format!("{sign}{}", micros(used.abs_diff(charged)));
        let arguments = [moved, micros(charge.rate.window)];
        self.redis.run(&ADJUST, &[self.key(&charge.cell)], &arguments).await.map_err(|_: RedisError| Away)?;
        Ok(())
    }

    async fn tell(&self, known: &[(Cell, u64)]) -> Result<(), Away> {
        for some in known.chunks(AT_ONCE) {
            let (keys, floors): (Vec<String>, Vec<String>) =
                some.iter().map(|(cell, ahead)| (self.key(cell), micros(*ahead))).unzip();
            self.redis.run(&TELL, &keys, &floors).await.map_err(|_: RedisError| Away)?;
        }
        Ok(())
    }

    async fn news(&self, since: &mut String) -> Result<Vec<(Cell, u64)>, Away> {
        let from = if since.is_empty() { "0-0".to_owned() } else { since.clone() };
        let answer = self.redis.run(&NEWS, &[self.stream()], &[from]).await.map_err(|_: RedisError| Away)?;
        let [last, news @ ..] = answer.as_slice() else { return Err(Away) };
        since.clone_from(last);
        Ok(heard(news))
    }
}

/// What the stream said.
fn heard(answer: &[String]) -> Vec<(Cell, u64)> {
    let pairs = answer.chunks_exact(2).filter_map(|pair| match pair {
        [name, ahead] => Some((Cell::parse(name)?, nanos(ahead)?)),
        _ => None,
    });
    pairs.collect()
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
