//! What a call used and what that costs.
//!
//! Owns prices, token counts and estimates. Never rounds in the caller's favour before settlement: a reservation is the
//! worst case. A model without a price of its own has the default price, never none.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::domain::money::NanoUsd;

/// Price of one model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Price {
    /// Per prompt token.
    pub input: NanoUsd,
    /// Per answer token.
    pub output: NanoUsd,
    /// Per call.
    pub call: NanoUsd,
}

/// Tokens of one call, as the provider reported them or as we counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// Answer tokens, reasoning included.
    pub completion_tokens: u64,
    /// Whether we counted ourselves because the provider did not say.
    pub estimated: bool,
    /// Prompt tokens.
    pub prompt_tokens: u64,
}

/// Prices by model.
#[derive(Clone, Debug)]
pub struct Prices {
    rows: BTreeMap<String, Price>,
    default: Price,
}

impl Prices {
    /// A table with the price of every other model.
    pub fn new(rows: BTreeMap<String, Price>, default: Price) -> Self {
        Self { rows, default }
    }

    /// The price of a model; a dated name (`gpt-4o-2024-11-20`) has the price of its longest listed beginning.
    pub fn of(&self, model: &str) -> Price {
        let name = model.strip_prefix("openai/").unwrap_or(model);
        if let Some(price) = self.rows.get(name) {
            return *price;
        }
        let begins = |row: &&String| name.strip_prefix(row.as_str()).is_some_and(|rest| rest.starts_with('-'));
        let longest = self.rows.keys().filter(begins).max_by_key(|row| row.len());
        longest.and_then(|row| self.rows.get(row)).copied().unwrap_or(self.default)
    }
}

impl Price {
    /// What `usage` costs.
    pub fn cost(self, usage: Usage) -> NanoUsd {
        self.call.plus(self.input.times(usage.prompt_tokens)).plus(self.output.times(usage.completion_tokens))
    }

    /// The most that a call can cost: a token has at least one byte, and each of `choices` may be of full length.
    pub fn worst_case(self, prompt_bytes: u64, max_tokens: u64, choices: u64) -> NanoUsd {
        let answer = max_tokens.saturating_mul(choices.max(1));
        self.call.plus(self.input.times(prompt_bytes)).plus(self.output.times(answer))
    }
}

/// Bytes of one token in a text that nobody counted.
const TOKEN_BYTES: u64 = 4;

/// Tokens in a text that nobody counted: four bytes each, rounded up.
pub fn estimate_tokens(bytes: u64) -> u64 {
    bytes.div_ceil(TOKEN_BYTES)
}

/// The longest text that is estimated at so many tokens.
pub fn estimate_bytes(tokens: u64) -> u64 {
    tokens.saturating_mul(TOKEN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices() -> Prices {
        let price = |n| Price { input: NanoUsd(n), output: NanoUsd(n), call: NanoUsd::ZERO };
        let rows = [("gpt-4o".to_owned(), price(2)), ("gpt-4o-mini".to_owned(), price(1))];
        Prices::new(rows.into(), price(9))
    }

    #[test]
    fn a_dated_name_has_the_price_of_its_longest_listed_beginning() {
        assert_eq!(prices().of("gpt-4o-mini-2024-07-18").input, NanoUsd(1));
        assert_eq!(prices().of("openai/gpt-4o").input, NanoUsd(2));
        assert_eq!(prices().of("gpt-4omni").input, NanoUsd(9), "a different model is not a dated name");
    }

    #[test]
    fn one_byte_more_than_a_text_of_so_many_tokens_is_one_token_more() {
        for tokens in [0, 1, 7, 4_096] {
            assert_eq!(estimate_tokens(estimate_bytes(tokens)), tokens);
            assert_eq!(estimate_tokens(estimate_bytes(tokens) + 1), tokens + 1);
        }
        assert_eq!(estimate_bytes(u64::MAX), u64::MAX, "an absurd number saturates");
    }

    #[test]
    fn every_choice_is_reserved_at_full_length() {
        let price = Price { input: NanoUsd(1), output: NanoUsd(10), call: NanoUsd(5) };
        assert_eq!(price.worst_case(100, 50, 3), NanoUsd(5 + 100 + 1_500));
    }
}
