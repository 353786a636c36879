-- A site's part in a round with secure aggregation, from its training on. The seed of its secrets lies in the vault.
CREATE TABLE secure_sessions (
    job      TEXT NOT NULL,
    task     TEXT NOT NULL,
    epoch    INTEGER NOT NULL,
    round    INTEGER NOT NULL,
    attempt  INTEGER NOT NULL,
    subjects INTEGER NOT NULL,           -- subjects left when its rows were read; an opt-out since withdraws what came of it
    at       INTEGER NOT NULL,
    PRIMARY KEY (job, task, epoch, round, attempt),
    FOREIGN KEY (job, task, epoch, round, attempt) REFERENCES rounds (job, task, epoch, round, attempt)
) STRICT;

-- What it said in each step, once, and what led to it. When the round is over the row of the consent alone stays, empty: who
-- agreed to a sum joins no other attempt at the round.
CREATE TABLE secure_records (
    job     TEXT NOT NULL,
    task    TEXT NOT NULL,
    epoch   INTEGER NOT NULL,
    round   INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    number  INTEGER NOT NULL,            -- in the order in which they were made, from 0
    step    TEXT NOT NULL,
    input   BLOB NOT NULL,
    message BLOB NOT NULL,
    at      INTEGER NOT NULL,
    PRIMARY KEY (job, task, epoch, round, attempt, step),
    FOREIGN KEY (job, task, epoch, round, attempt) REFERENCES rounds (job, task, epoch, round, attempt)
) STRICT;

-- Whether what left was masked.
ALTER TABLE outbox ADD COLUMN masked INTEGER NOT NULL DEFAULT 0;
