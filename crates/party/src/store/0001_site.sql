-- Times are milliseconds since 1970 in UTC; ids, digests and keys are in their text form; lists are JSON.

CREATE TABLE settings (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT;

CREATE TABLE persons (
    id           TEXT PRIMARY KEY,
    name         TEXT NOT NULL UNIQUE COLLATE NOCASE,
    roles        TEXT NOT NULL,
    organisation TEXT,
    state        TEXT NOT NULL,          -- invited, active, disabled, key_unconfirmed
    key          TEXT,                   -- public signing key
    code         TEXT,                   -- digest of the one-time code
    code_expires INTEGER,
    replacing    INTEGER NOT NULL DEFAULT 0, -- whether the next key is a replacement that a second person must confirm
    failures     INTEGER NOT NULL DEFAULT 0,
    locked_until INTEGER NOT NULL DEFAULT 0,
    at           INTEGER NOT NULL
) STRICT;

CREATE TABLE proposals (
    id          TEXT PRIMARY KEY,        -- digest of the document
    document    BLOB NOT NULL,
    by_person   TEXT NOT NULL REFERENCES persons (id),
    signature   TEXT NOT NULL,
    at          INTEGER NOT NULL,
    state       TEXT NOT NULL,           -- open, done, declined, replaced
    answered_by TEXT REFERENCES persons (id),
    answer      TEXT,                    -- the second signature
    answered_at INTEGER
) STRICT;

CREATE TABLE datasets (
    id         TEXT PRIMARY KEY,
    name       TEXT NOT NULL UNIQUE,
    snapshot   TEXT NOT NULL,
    document   BLOB NOT NULL,            -- of the snapshot; its digest names it
    sealed_key BLOB NOT NULL,            -- opens the snapshot; sealed with the data key
    subjects_left INTEGER NOT NULL,      -- distinct subjects that did not opt out
    profile    BLOB NOT NULL,            -- sealed with the data key: extremes can be one patient's values
    findings   TEXT NOT NULL,            -- of the identifier scan
    duo        TEXT NOT NULL,
    at         INTEGER NOT NULL
) STRICT;

-- Sealed with the data key: the opt-out list.
CREATE TABLE sealed (
    name  TEXT PRIMARY KEY,
    bytes BLOB NOT NULL
) STRICT;

CREATE TABLE memberships (
    federation     TEXT PRIMARY KEY,
    name           TEXT NOT NULL,
    url            TEXT NOT NULL,
    site           TEXT NOT NULL,
    site_name      TEXT NOT NULL,
    organisation   TEXT NOT NULL,
    coordinator    TEXT NOT NULL,        -- identity key
    ca_pem         TEXT NOT NULL,
    chain_pem      TEXT NOT NULL,
    extra_ca_pem   TEXT,
    epoch          INTEGER,              -- of the coordinator, as accepted here; NULL before the first session
    epoch_offered  INTEGER,              -- another one that a person must accept
    paused         TEXT,
    roster         BLOB NOT NULL,        -- signed
    roster_version INTEGER NOT NULL,
    settled        INTEGER NOT NULL,     -- when the coordinator's log was last known to be settled
    cosigned       INTEGER NOT NULL,     -- when somebody last cosigned this site's log
    at             INTEGER NOT NULL
) STRICT;

CREATE TABLE verified_peers (
    federation TEXT NOT NULL REFERENCES memberships (federation),
    site       TEXT NOT NULL,
    identity   TEXT NOT NULL,
    name       TEXT NOT NULL,            -- in the roster when it was verified
    by_person  TEXT NOT NULL REFERENCES persons (id),
    at         INTEGER NOT NULL,
    PRIMARY KEY (federation, site)
) STRICT;

CREATE TABLE vouches (
    federation TEXT NOT NULL REFERENCES memberships (federation),
    by_site    TEXT NOT NULL,
    site       TEXT NOT NULL,
    identity   TEXT NOT NULL,
    document   BLOB NOT NULL,            -- signed
    at         INTEGER NOT NULL,
    PRIMARY KEY (federation, by_site, site)
) STRICT;

CREATE TABLE studies (
    study      TEXT PRIMARY KEY,
    federation TEXT NOT NULL REFERENCES memberships (federation),
    document   BLOB NOT NULL,            -- signed
    digest     TEXT NOT NULL,
    state      TEXT NOT NULL,            -- received, under_review, refused, withdrawn, decided (then see approvals)
    reason     TEXT,
    at         INTEGER NOT NULL
) STRICT;

CREATE TABLE opinions (
    study     TEXT PRIMARY KEY REFERENCES studies (study),
    by_person TEXT NOT NULL REFERENCES persons (id),
    view      TEXT NOT NULL,
    text      TEXT NOT NULL,
    at        INTEGER NOT NULL
) STRICT;

CREATE TABLE approvals (
    id         TEXT PRIMARY KEY,
    study      TEXT NOT NULL REFERENCES studies (study),
    dataset    TEXT NOT NULL REFERENCES datasets (id),
    document   BLOB NOT NULL,
    digest     TEXT NOT NULL UNIQUE,
    state      TEXT NOT NULL,            -- partly_approved, active, suspended, revoked, expired, superseded
    reason     TEXT,
    held_by    TEXT,                     -- role that suspended it
    not_before INTEGER NOT NULL,
    expires    INTEGER NOT NULL,
    at         INTEGER NOT NULL
) STRICT;
CREATE INDEX approvals_by_study ON approvals (study, at);
-- At most one approval of a study is in force, and at most one on its way.
CREATE UNIQUE INDEX approvals_in_force ON approvals (study) WHERE state IN ('active', 'suspended');
CREATE UNIQUE INDEX approvals_on_its_way ON approvals (study) WHERE state = 'partly_approved';

CREATE TABLE approval_signatures (
    approval  TEXT NOT NULL REFERENCES approvals (id),
    person    TEXT NOT NULL REFERENCES persons (id),
    role      TEXT NOT NULL,
    at        INTEGER NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (approval, role)
) STRICT;

CREATE TABLE jobs (
    job      TEXT PRIMARY KEY,
    study    TEXT NOT NULL REFERENCES studies (study),
    plan     BLOB NOT NULL,
    state    TEXT NOT NULL,              -- ready, waiting, running, success, failed, timeout, cancelled
    reason   TEXT,
    model    TEXT,
    release  TEXT NOT NULL,              -- none, held, released
    released INTEGER,
    at       INTEGER NOT NULL
) STRICT;

-- One row for each round that was ever asked for; its key is what makes a permit unique (invariant I2).
CREATE TABLE rounds (
    job      TEXT NOT NULL REFERENCES jobs (job),
    task     TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    round    INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,
    header   BLOB NOT NULL,
    approval TEXT REFERENCES approvals (id), -- of the permit; NULL if none was given
    deadline INTEGER NOT NULL,           -- of the permit, or of the header where none was given
    state    TEXT NOT NULL,              -- JSON: see rounds/state.rs
    ended    INTEGER NOT NULL,           -- whether nothing more happens in it
    view     BLOB,                       -- sealed with the data key: what its own people see of the result or failure
    at       INTEGER NOT NULL,
    PRIMARY KEY (job, task, epoch, round, attempt)
) STRICT;
CREATE INDEX rounds_by_approval ON rounds (approval);
CREATE INDEX rounds_open ON rounds (ended) WHERE ended = 0;

CREATE TABLE outbox (
    job     TEXT NOT NULL,
    task    TEXT NOT NULL,
    epoch   INTEGER NOT NULL,
    round   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    kind    TEXT NOT NULL,
    digest  TEXT NOT NULL,
    bytes   INTEGER NOT NULL,
    subjects INTEGER NOT NULL,           -- subjects left when it was computed; an opt-out since withdraws it
    state   TEXT NOT NULL,               -- waiting, sent, withdrawn, refused
    left_at INTEGER,                     -- first time that it was let go; without a receipt it may have arrived since
    public  INTEGER NOT NULL,
    receipt BLOB,
    at      INTEGER NOT NULL,
    ended   INTEGER,
    PRIMARY KEY (job, task, epoch, round, attempt),
    FOREIGN KEY (job, task, epoch, round, attempt) REFERENCES rounds (job, task, epoch, round, attempt)
) STRICT;

CREATE TABLE control_counts (
    federation TEXT NOT NULL,
    direction  TEXT NOT NULL,            -- in, out
    kind       TEXT NOT NULL,
    count      INTEGER NOT NULL,
    PRIMARY KEY (federation, direction, kind)
) STRICT;

CREATE TABLE alarms (
    id         INTEGER PRIMARY KEY,
    at         INTEGER NOT NULL,
    federation TEXT,
    words      TEXT NOT NULL,
    seen_by    TEXT REFERENCES persons (id)
) STRICT;
