-- Figures to whose sum this site agreed. They are a function of the rows and of the model alone, so that two sums over other
-- sites would tell by their difference what one site sent: they are answered for the same sites again, and for no others.
CREATE TABLE secure_answers (
    snapshot TEXT NOT NULL,              -- what was read
    task     TEXT NOT NULL,              -- digest of the task and of all that leads to it
    model    TEXT NOT NULL,              -- digest of what it was asked of; empty for none
    cohort   TEXT NOT NULL,              -- digest of the ids of the sites in the sum
    at       INTEGER NOT NULL,
    PRIMARY KEY (snapshot, task, model)
) STRICT;
