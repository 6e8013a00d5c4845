//! One line of the result, for SQLite and for PostgreSQL side by side; the table and the JSON of such lines.
//! Pure. What could not be measured is null, never zero.

use std::fmt::Write;

use crate::measure::show;

/// One line of the result.
pub struct Figure {
    /// What the table calls it.
    pub name: &'static str,
    /// Else lower is.
    pub higher_is_better: bool,
    pub what: &'static str,
    /// On SQLite, or where the database does not matter.
    pub sqlite: Option<Value>,
    pub postgres: Option<Value>,
}

pub struct Value {
    /// Its name in the JSON.
    pub key: &'static str,
    pub value: Option<f64>,
    pub bar: Option<f64>,
    pub aim: Option<f64>,
}

impl Value {
    pub fn new(key: &'static str, value: Option<f64>) -> Self {
        Value { key, value, bar: None, aim: None }
    }

    pub fn bar(self, bar: impl Into<Option<f64>>) -> Self {
        Value { bar: bar.into(), ..self }
    }

    pub fn aim(self, aim: f64) -> Self {
        Value { aim: Some(aim), ..self }
    }

    fn verdict(&self, higher_is_better: bool) -> &'static str {
        let meets = |limit: f64| self.value.map(|v| if higher_is_better { v >= limit } else { v <= limit });
        if self.value.is_none() {
            return "not measured";
        }
        match (self.bar.and_then(meets), self.aim.and_then(meets)) {
            (_, Some(true)) => "aim met",
            (Some(false), _) => "BAR MISSED",
            (Some(true), _) => "bar met",
            (None, Some(false)) => "aim missed",
            (None, None) => "",
        }
    }
}

impl Figure {
    pub fn lower(name: &'static str, what: &'static str) -> Self {
        Figure { name, higher_is_better: false, what, sqlite: None, postgres: None }
    }

    pub fn higher(name: &'static str, what: &'static str) -> Self {
        Figure { higher_is_better: true, ..Figure::lower(name, what) }
    }

    pub fn sqlite(self, value: Value) -> Self {
        Figure { sqlite: Some(value), ..self }
    }

    pub fn postgres(self, value: Value) -> Self {
        Figure { postgres: Some(value), ..self }
    }

    fn values(&self) -> impl Iterator<Item = &Value> {
        self.sqlite.iter().chain(&self.postgres)
    }

    /// Value, bar, aim and verdict as columns.
    fn half(&self, value: Option<&Value>) -> String {
        let Some(v) = value else { return format!("{:>10}{:>7}{:>6}  {:<12}", "", "", "", "") };
        let dashed = |limit: Option<f64>| limit.map_or("".into(), |limit| show(Some(limit)));
        let (bar, aim) = (dashed(v.bar), dashed(v.aim));
        format!("{:>10}{bar:>7}{aim:>6}  {:<12}", show(v.value), v.verdict(self.higher_is_better))
    }
}

pub fn table(figures: &[Figure]) -> String {
    let head = |name| format!("{name:>10}{:>7}{:>6}  {:<12}", "bar", "aim", "");
    let mut text = format!("{:<23}{}{}\n", "figure", head("sqlite"), head("postgres"));
    for f in figures {
        let halves = [f.half(f.sqlite.as_ref()), f.half(f.postgres.as_ref())].concat();
        let _ = writeln!(text, "{}", format!("{:<23}{halves}{}", f.name, f.what).trim_end());
    }
    text
}

/// In the order of the table, three digits after the point.
pub fn to_json(figures: &[Figure]) -> String {
    let number = |v: Option<f64>| v.map_or("null".to_owned(), |v| format!("{:?}", (v * 1e3).round() / 1e3));
    let values = figures.iter().flat_map(Figure::values);
    let lines: Vec<String> = values.map(|v| format!("  \"{}\": {}", v.key, number(v.value))).collect();
    format!("{{\n{}\n}}\n", lines.join(",\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts_look_the_right_way() {
        let verdict = |higher_is_better, value| {
            let aim = if higher_is_better { 3.0 } else { 1.0 };
            Value::new("k", value).bar(2.0).aim(aim).verdict(higher_is_better)
        };
        assert_eq!([0.5, 1.5, 2.5].map(|v| verdict(false, Some(v))), ["aim met", "bar met", "BAR MISSED"]);
        assert_eq!([3.5, 2.5, 1.5].map(|v| verdict(true, Some(v))), ["aim met", "bar met", "BAR MISSED"]);
        assert_eq!(verdict(true, None), "not measured");
    }

    #[test]
    fn the_databases_stand_side_by_side() {
        let both = Figure::lower("both", "said").sqlite(Value::new("a", Some(1.0)).bar(2.0));
        let both = both.postgres(Value::new("a_pg", Some(3.0)));
        let one = Figure::lower("one", "").postgres(Value::new("b_pg", None));
        let table = table(&[both, one]);
        let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words[0], ["figure", "sqlite", "bar", "aim", "postgres", "bar", "aim"]);
        assert_eq!(words[1], ["both", "1.00", "2.00", "bar", "met", "3.00", "said"]);
        assert_eq!(words[2], ["one", "-", "not", "measured"]);
        let column = |line: &str, word: &str| line.find(word).unwrap() + word.len();
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(column(lines[0], "postgres"), column(lines[1], "3.00"));
    }
}
