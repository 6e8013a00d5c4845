//! A histogram out of Prometheus text, and quantiles of it.
//! Pure. All label sets of a name are added up; a text without the name gives an empty histogram, whose quantiles are
//! none.

/// Upper bounds (the last is infinite) and how many observations lie at or below each.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram(Vec<(f64, f64)>);

impl Histogram {
    pub fn parse(text: &str, name: &str) -> Self {
        let mut histogram = Histogram::default();
        for line in text.lines() {
            if let Some((bound, count)) = bucket(line, name) {
                histogram.add(bound, count);
            }
        }
        histogram.0.sort_by(|a, b| a.0.total_cmp(&b.0));
        histogram
    }

    fn add(&mut self, bound: f64, count: f64) {
        match self.0.iter_mut().find(|(b, _)| *b == bound) {
            Some((_, sum)) => *sum += count,
            None => self.0.push((bound, count)),
        }
    }

    /// Adds what was observed between two readings of the same process.
    pub fn add_between(&mut self, before: &Histogram, after: &Histogram) {
        for (bound, count) in &after.0 {
            let earlier = before.0.iter().find(|(b, _)| b == bound).map_or(0.0, |(_, n)| *n);
            self.add(*bound, count - earlier);
        }
    }

    /// Interpolated within its bucket; beyond the last finite bound, that bound.
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let total = self.0.last().map(|(_, n)| *n).filter(|n| *n > 0.0)?;
        let rank = q * total;
        let (mut lower, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            if bound.is_infinite() {
                break;
            }
            if count >= rank && count > below {
                return Some(lower + (bound - lower) * (rank - below) / (count - below));
            }
            (lower, below) = (bound, count);
        }
        Some(lower)
    }
}

/// `NAME_bucket{…,le="BOUND",…} COUNT`, perhaps with a time or an exemplar after it.
fn bucket(line: &str, name: &str) -> Option<(f64, f64)> {
    let labels = line.strip_prefix(name)?.strip_prefix("_bucket{")?;
    let sample = labels.split(" # ").next()?;
    let (labels, count) = sample.rsplit_once('}')?;
    let le = labels.strip_prefix("le=\"").or_else(|| labels.split_once(",le=\"").map(|(_, rest)| rest))?;
    let bound = le.split('"').next()?;
    let bound = if bound == "+Inf" { f64::INFINITY } else { bound.parse().ok()? };
    Some((bound, count.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# TYPE t_seconds histogram
t_seconds_sum{kind=\"a\"} 1.5
t_seconds_count{kind=\"a\"} 4
t_seconds_bucket{le=\"0.1\",kind=\"a\"} 1
t_seconds_bucket{kind=\"a\",le=\"0.2\"} 3 # {trace=\"}x\"} 0.15
t_seconds_bucket{le=\"+Inf\",kind=\"a\"} 4
t_seconds_bucket{kind=\"b\",le=\"0.1\"} 1
t_seconds_bucket{kind=\"b\",le=\"0.2\"} 3
t_seconds_bucket{kind=\"b\",le=\"+Inf\"} 4
other_seconds_bucket{le=\"+Inf\"} 400
";

    #[test]
    fn all_label_sets_count() {
        let h = Histogram::parse(TEXT, "t_seconds");
        assert_eq!(h.0, [(0.1, 2.0), (0.2, 6.0), (f64::INFINITY, 8.0)]);
    }

    #[test]
    fn quantiles_lie_within_their_bucket() {
        let h = Histogram::parse(TEXT, "t_seconds");
        assert!((h.quantile(0.5).unwrap() - 0.15).abs() < 1e-9);
        assert!((h.quantile(0.125).unwrap() - 0.05).abs() < 1e-9);
        assert_eq!(h.quantile(0.99), Some(0.2));
        assert_eq!(Histogram::parse(TEXT, "absent").quantile(0.5), None);
    }

    #[test]
    fn only_what_lies_between_two_readings_counts() {
        let (before, after) =
            (Histogram::parse(TEXT, "t_seconds"), Histogram(vec![(0.1, 2.0), (0.2, 16.0), (f64::INFINITY, 18.0)]));
        let mut between = Histogram::default();
        between.add_between(&before, &after);
        assert_eq!(between.0, [(0.1, 0.0), (0.2, 10.0), (f64::INFINITY, 10.0)]);
        let mut idle = Histogram::default();
        idle.add_between(&after, &after);
        assert_eq!(idle.quantile(0.5), None);
    }
}
