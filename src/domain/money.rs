//! Money as integers: nano-dollars.
//!
//! Owns arithmetic that cannot overflow silently. Never uses floats except to read what a person wrote.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An amount in 10⁻⁹ US dollars.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NanoUsd(pub i64);

impl NanoUsd {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// `units` things at `self` each; saturates, so that an absurd product is refused by a budget and never wraps.
    #[must_use]
    pub fn times(self, units: u64) -> Self {
        Self(self.0.saturating_mul(i64::try_from(units).unwrap_or(i64::MAX)))
    }

    /// Sum, saturating.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Reads dollars that a person wrote, rounded to the nano-dollar; `None` if negative, not finite or too large.
    pub fn from_dollars(dollars: f64) -> Option<Self> {
        let nano = (dollars * 1e9).round();
        #[expect(clippy::cast_possible_truncation, reason = "the range is checked in the same expression")]
        (nano.is_finite() && (0.0..9.0e18).contains(&nano)).then_some(Self(nano as i64))
    }

    /// Dollars for display; not for arithmetic.
    #[expect(clippy::cast_precision_loss, reason = "for display only")]
    pub fn dollars(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${:.6}", self.dollars())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_absurd_product_saturates_instead_of_wrapping() {
        assert_eq!(NanoUsd(i64::MAX / 2).times(10), NanoUsd(i64::MAX));
        assert_eq!(NanoUsd(3).times(u64::MAX), NanoUsd(i64::MAX));
    }

    #[test]
    fn dollars_are_read_to_the_nano_and_nonsense_is_refused() {
        assert_eq!(NanoUsd::from_dollars(0.000_000_15), Some(NanoUsd(150)));
        assert_eq!(NanoUsd::from_dollars(-1.0), None);
        assert_eq!(NanoUsd::from_dollars(f64::NAN), None);
    }
}
