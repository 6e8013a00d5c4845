//! The schema's history, compiled in.
//!
//! Owns the order. Migrations only expand; what a version before reads and calls stays. Each is applied once, under a lock.

use sqlx::migrate::{Migration, MigrationType};

/// Number, name, text.
type Step = (i64, &'static str, &'static str);

/// The embedded database's.
pub(super) const SQLITE: &[Step] = &[
    (1, "spine", include_str!("../../../migrations/sqlite/0001_spine.sql")),
    (2, "cluster", include_str!("../../../migrations/sqlite/0002_cluster.sql")),
    (3, "entries", include_str!("../../../migrations/sqlite/0003_entries.sql")),
];

/// Postgres's.
pub(super) const POSTGRES: &[Step] = &[
    (1, "spine", include_str!("../../../migrations/postgres/0001_spine.sql")),
    (2, "append", include_str!("../../../migrations/postgres/0002_append.sql")),
    (3, "instance", include_str!("../../../migrations/postgres/0003_instance.sql")),
    (4, "plans", include_str!("../../../migrations/postgres/0004_plans.sql")),
];

/// In the driver's form.
pub(super) fn of(steps: &[Step]) -> Vec<Migration> {
    let migration = |(version, name, text): &Step| {
        let text = sqlx::SqlStr::from_static(text);
        Migration::new(*version, (*name).into(), MigrationType::Simple, text, false)
    };
    steps.iter().map(migration).collect()
}
