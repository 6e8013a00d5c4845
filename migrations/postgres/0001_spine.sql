-- The tables of the embedded database, for many instances. Texts that name things sort by byte ("C"), so that every
-- instance locks heads in the same order whatever the database's language is.

-- One row per run of a process (admission.md rules 7, 17, 18). `closed`: nothing of this boot may be appended any more.
CREATE TABLE boot (
    id          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    started_at  BIGINT NOT NULL,
    lease_until BIGINT NOT NULL,
    closed      BIGINT NOT NULL DEFAULT 0
);

-- Which configuration each instance has loaded, for receipts ("live on 3 of 3"). Decides nothing.
CREATE TABLE boot_snapshot (
    boot           TEXT COLLATE "C" NOT NULL,
    org_id         TEXT COLLATE "C" NOT NULL,
    config_version BIGINT NOT NULL,
    PRIMARY KEY (boot, org_id)
);

-- The head of each chain: where it ends, and which configuration decides. Locked by every append.
CREATE TABLE audit_head (
    org_id         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    seq            BIGINT NOT NULL,
    link           BYTEA  NOT NULL,
    config_version BIGINT NOT NULL,
    config_tag     BYTEA  NOT NULL,
    config_digest  BYTEA  NOT NULL,
    kid            TEXT   NOT NULL
) WITH (fillfactor = 50);

-- The record. `body` is the exact canonical text that was hashed.
CREATE TABLE audit_entry (
    org_id  TEXT COLLATE "C" NOT NULL,
    seq     BIGINT NOT NULL,
    boot    TEXT COLLATE "C" NOT NULL,
    counter BIGINT NOT NULL,
    kind    TEXT   NOT NULL,
    body    TEXT   NOT NULL,
    digest  BYTEA  NOT NULL,
    link    BYTEA  NOT NULL,
    PRIMARY KEY (org_id, seq)
);
CREATE UNIQUE INDEX audit_entry_id ON audit_entry (org_id, boot, counter);

-- What one boot appended to one chain in one commit: the signed message, whole, and the counters it did not write.
CREATE TABLE audit_batch (
    org_id    TEXT COLLATE "C" NOT NULL,
    boot      TEXT COLLATE "C" NOT NULL,
    number    BIGINT NOT NULL,
    message   BYTEA  NOT NULL,
    kid       TEXT   NOT NULL,
    signature BYTEA  NOT NULL,
    unwritten TEXT   NOT NULL,
    PRIMARY KEY (org_id, boot, number)
);
CREATE INDEX audit_batch_unwritten ON audit_batch (boot) WHERE unwritten <> '[]';

CREATE TABLE audit_checkpoint (
    org_id   TEXT COLLATE "C" NOT NULL,
    size     BIGINT NOT NULL,
    frontier BYTEA  NOT NULL,
    note     TEXT   NOT NULL,
    at       BIGINT NOT NULL,
    PRIMARY KEY (org_id, size)
);

-- Open admissions. `windows`: those that settle them, whatever the budget says later (rule 21); `limits`: what each of
-- them could hold when the call was admitted, null without a limit.
CREATE TABLE hold (
    org_id         TEXT COLLATE "C" NOT NULL,
    boot           TEXT COLLATE "C" NOT NULL,
    counter        BIGINT NOT NULL,
    config_version BIGINT NOT NULL,
    amount_nano    BIGINT NOT NULL,
    windows        TEXT[] NOT NULL,
    limits         BIGINT[] NOT NULL,
    PRIMARY KEY (org_id, boot, counter)
);
CREATE INDEX hold_boot ON hold (boot);

CREATE TABLE spending (
    org_id          TEXT COLLATE "C" NOT NULL,
    spending_window TEXT COLLATE "C" NOT NULL,
    settled_nano    BIGINT NOT NULL,
    held_nano       BIGINT NOT NULL,
    PRIMARY KEY (org_id, spending_window)
) WITH (fillfactor = 50);

CREATE TABLE data_key (
    org_id     TEXT COLLATE "C" NOT NULL,
    id         TEXT COLLATE "C" NOT NULL,
    state      TEXT   NOT NULL,
    kek        TEXT   NOT NULL,
    wrapped    BYTEA  NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (org_id, id)
);
-- Two instances that seal for the first time make one key between them.
CREATE UNIQUE INDEX data_key_active ON data_key (org_id) WHERE state = 'active';

CREATE TABLE signing_key (
    kid         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    purpose     TEXT   NOT NULL,
    state       TEXT   NOT NULL,
    public_key  BYTEA  NOT NULL,
    data_key_id TEXT   NOT NULL,
    sealed      BYTEA  NOT NULL,
    created_at  BIGINT NOT NULL
);

-- Jobs that run once per cluster: who may, until when, by which token; when that run began, and when the last one that came
-- to its end did.
CREATE TABLE job_lease (
    name        TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    token       BIGINT NOT NULL,
    holder      TEXT   NOT NULL,
    lease_until BIGINT NOT NULL,
    started_at  BIGINT NOT NULL,
    ran_at      BIGINT NOT NULL
) WITH (fillfactor = 50);
-- One sequence for all jobs: two of them may write the same row, so their tokens have to compare.
CREATE SEQUENCE job_token;

-- What the validation job found out about each provider credential. `token` fences a job that lost its lease.
CREATE TABLE credential_check (
    org_id        TEXT COLLATE "C" NOT NULL,
    credential_id TEXT COLLATE "C" NOT NULL,
    checked_at    BIGINT NOT NULL,
    used_at       BIGINT NOT NULL,
    outcome       TEXT   NOT NULL,
    token         BIGINT NOT NULL,
    PRIMARY KEY (org_id, credential_id)
);

-- Configuration: one table per kind of record, one JSON document per row, covered by `audit_head.config_digest`.
CREATE TABLE organization        (org_id TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id));
CREATE TABLE project             (org_id TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id));
CREATE TABLE agent               (org_id TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id));
CREATE TABLE agent_key           (org_id TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id));
CREATE TABLE provider_credential (org_id TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id));
CREATE TABLE policy              (org_id TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id));
CREATE TABLE policy_version      (org_id TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id));
CREATE TABLE policy_assignment   (org_id TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id));
CREATE TABLE budget              (org_id TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id));
CREATE TABLE pipeline            (org_id TEXT COLLATE "C" NOT NULL, id TEXT COLLATE "C" NOT NULL, body TEXT NOT NULL, PRIMARY KEY (org_id, id));

-- Microseconds since 1970 now, not at the transaction's start: a transaction may have waited for a lock.
CREATE FUNCTION tappass_now() RETURNS BIGINT LANGUAGE sql VOLATILE AS
$$ SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::BIGINT $$;

-- The link of an entry: SHA-256 over `L`, the previous link, the sequence number (64 bits, big endian) and the digest.
CREATE FUNCTION tappass_link(previous BYTEA, seq BIGINT, digest BYTEA) RETURNS BYTEA LANGUAGE sql IMMUTABLE AS
$$ SELECT sha256('\x4c'::bytea || previous || int8send(seq) || digest) $$;
