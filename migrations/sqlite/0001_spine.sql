-- One row per run of the process (admission.md rule 7). `closed`: nothing of this boot may be appended any more.
CREATE TABLE boot (
    id          TEXT    NOT NULL PRIMARY KEY,
    started_at  INTEGER NOT NULL,
    lease_until INTEGER NOT NULL,
    closed      INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- The head of each chain: where it ends, and which configuration decides. Locked by every append.
CREATE TABLE audit_head (
    org_id         TEXT    NOT NULL PRIMARY KEY,
    seq            INTEGER NOT NULL,
    link           BLOB    NOT NULL,
    config_version INTEGER NOT NULL,
    config_tag     BLOB    NOT NULL,
    config_digest  BLOB    NOT NULL,
    kid            TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

-- The record. `body` is the exact canonical text that was hashed.
CREATE TABLE audit_entry (
    org_id  TEXT    NOT NULL,
    seq     INTEGER NOT NULL,
    boot    TEXT    NOT NULL,
    counter INTEGER NOT NULL,
    kind    TEXT    NOT NULL,
    body    TEXT    NOT NULL,
    digest  BLOB    NOT NULL,
    link    BLOB    NOT NULL,
    PRIMARY KEY (org_id, seq)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX audit_entry_id ON audit_entry (org_id, boot, counter);

-- What one boot appended to one chain in one commit: the signed message, whole, and the counters it did not write.
CREATE TABLE audit_batch (
    org_id    TEXT    NOT NULL,
    boot      TEXT    NOT NULL,
    number    INTEGER NOT NULL,
    message   BLOB    NOT NULL,
    kid       TEXT    NOT NULL,
    signature BLOB    NOT NULL,
    unwritten TEXT    NOT NULL,
    PRIMARY KEY (org_id, boot, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_batch_unwritten ON audit_batch (boot) WHERE unwritten <> '[]';

CREATE TABLE audit_checkpoint (
    org_id   TEXT    NOT NULL,
    size     INTEGER NOT NULL,
    frontier BLOB    NOT NULL,
    note     TEXT    NOT NULL,
    at       INTEGER NOT NULL,
    PRIMARY KEY (org_id, size)
) STRICT, WITHOUT ROWID;

-- Open admissions. `spending_window`: the window that settles them (rule 21).
CREATE TABLE hold (
    org_id          TEXT    NOT NULL,
    boot            TEXT    NOT NULL,
    counter         INTEGER NOT NULL,
    config_version  INTEGER NOT NULL,
    amount_nano     INTEGER NOT NULL,
    spending_window INTEGER NOT NULL,
    PRIMARY KEY (org_id, boot, counter)
) STRICT, WITHOUT ROWID;

CREATE TABLE spending (
    org_id          TEXT    NOT NULL,
    spending_window INTEGER NOT NULL,
    settled_nano    INTEGER NOT NULL,
    held_nano       INTEGER NOT NULL,
    PRIMARY KEY (org_id, spending_window)
) STRICT, WITHOUT ROWID;

CREATE TABLE data_key (
    org_id     TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    state      TEXT    NOT NULL,
    kek        TEXT    NOT NULL,
    wrapped    BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (org_id, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE signing_key (
    kid         TEXT    NOT NULL PRIMARY KEY,
    purpose     TEXT    NOT NULL,
    state       TEXT    NOT NULL,
    public_key  BLOB    NOT NULL,
    data_key_id TEXT    NOT NULL,
    sealed      BLOB    NOT NULL,
    created_at  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Configuration: one table per kind of record, one JSON document per row, covered by `audit_head.config_digest`.
CREATE TABLE organization        (org_id TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id)) STRICT, WITHOUT ROWID;
CREATE TABLE project             (org_id TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id)) STRICT, WITHOUT ROWID;
CREATE TABLE agent               (org_id TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id)) STRICT, WITHOUT ROWID;
CREATE TABLE agent_key           (org_id TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id)) STRICT, WITHOUT ROWID;
CREATE TABLE provider_credential (org_id TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id)) STRICT, WITHOUT ROWID;
CREATE TABLE policy              (org_id TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id)) STRICT, WITHOUT ROWID;
CREATE TABLE policy_version      (org_id TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id)) STRICT, WITHOUT ROWID;
CREATE TABLE policy_assignment   (org_id TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id)) STRICT, WITHOUT ROWID;
CREATE TABLE budget              (org_id TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id)) STRICT, WITHOUT ROWID;
CREATE TABLE pipeline            (org_id TEXT NOT NULL, id TEXT NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id)) STRICT, WITHOUT ROWID;
