-- Accounts of the privacy ledger: pools of subjects. A registration that has a subject of a pool joins it, so that no two pools
-- have one in common. A pool has the id of the dataset that it began with, and outlives it.
CREATE TABLE pools (
    id       TEXT PRIMARY KEY,
    members  BLOB NOT NULL,              -- sealed with the data key: keyed hashes of subject keys
    subjects INTEGER NOT NULL,
    curve    BLOB NOT NULL,              -- Rényi divergences that were spent, at the fixed orders, 8 bytes each
    at       INTEGER NOT NULL
) STRICT;
-- NULL for datasets of before, until the engine has counted their subjects, and for those that were removed by then.
ALTER TABLE datasets ADD COLUMN pool TEXT REFERENCES pools (id);

-- One row for each payload that was entered in the outbox, in the same transaction.
CREATE TABLE spendings (
    job     TEXT NOT NULL,
    task    TEXT NOT NULL,
    epoch   INTEGER NOT NULL,
    round   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    study   TEXT NOT NULL,
    pool    TEXT NOT NULL REFERENCES pools (id),
    release TEXT,                        -- JSON: sampling, noise and times; NULL without differential privacy
    epsilon REAL NOT NULL,               -- of all bounded releases of the pool, this one among them, at the policy's delta
    entry   INTEGER,                     -- of the log, by its sequence; what is bounded waits until it is cosigned
    at      INTEGER NOT NULL,
    PRIMARY KEY (job, task, epoch, round, attempt)
) STRICT;
CREATE INDEX spendings_by_pool ON spendings (pool, at);
