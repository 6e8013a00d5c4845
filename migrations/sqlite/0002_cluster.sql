-- Windows of a budget by name, limits kept with the hold, leases, jobs, checks of credentials, versions of instances.

ALTER TABLE boot ADD COLUMN version TEXT NOT NULL DEFAULT '';

CREATE TABLE hold_by_name (
    org_id         TEXT    NOT NULL,
    boot           TEXT    NOT NULL,
    counter        INTEGER NOT NULL,
    config_version INTEGER NOT NULL,
    amount_nano    INTEGER NOT NULL,
    windows        TEXT    NOT NULL, -- JSON: [[name, limit or null], …]
    PRIMARY KEY (org_id, boot, counter)
) STRICT, WITHOUT ROWID;
INSERT INTO hold_by_name
    SELECT org_id, boot, counter, config_version, amount_nano, '[["total:' || spending_window || '",null]]' FROM hold;
DROP TABLE hold;
ALTER TABLE hold_by_name RENAME TO hold;

CREATE TABLE spending_by_name (
    org_id          TEXT    NOT NULL,
    spending_window TEXT    NOT NULL,
    settled_nano    INTEGER NOT NULL,
    held_nano       INTEGER NOT NULL,
    PRIMARY KEY (org_id, spending_window)
) STRICT, WITHOUT ROWID;
INSERT INTO spending_by_name SELECT org_id, 'total:' || spending_window, settled_nano, held_nano FROM spending;
DROP TABLE spending;
ALTER TABLE spending_by_name RENAME TO spending;

CREATE TABLE job_lease (
    name        TEXT    NOT NULL PRIMARY KEY,
    token       INTEGER NOT NULL,
    holder      TEXT    NOT NULL,
    lease_until INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    ran_at      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE credential_check (
    org_id        TEXT    NOT NULL,
    credential_id TEXT    NOT NULL,
    checked_at    INTEGER NOT NULL,
    used_at       INTEGER NOT NULL,
    outcome       TEXT    NOT NULL,
    token         INTEGER NOT NULL,
    PRIMARY KEY (org_id, credential_id)
) STRICT, WITHOUT ROWID;
