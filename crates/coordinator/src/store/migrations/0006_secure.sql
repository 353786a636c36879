-- Rounds with secure aggregation while they run: what sites said in each step but their inputs, which are uploads, and
-- with whom each step that is over went on. Both are deleted with the round's end.
CREATE TABLE secure_messages (
  job TEXT NOT NULL,
  task TEXT NOT NULL,
  epoch BIGINT NOT NULL,
  round BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  step TEXT NOT NULL CHECK (step IN ('keys', 'shares', 'consent', 'reveal')),
  site TEXT NOT NULL REFERENCES sites (site),
  message BLOB NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (job, task, epoch, round, attempt, step, site),
  FOREIGN KEY (job, task, epoch, round, attempt) REFERENCES rounds (job, task, epoch, round, attempt)
);

CREATE TABLE secure_steps (
  job TEXT NOT NULL,
  task TEXT NOT NULL,
  epoch BIGINT NOT NULL,
  round BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  step TEXT NOT NULL CHECK (step IN ('keys', 'shares', 'input', 'consent', 'reveal')),
  sites TEXT NOT NULL,
  PRIMARY KEY (job, task, epoch, round, attempt, step),
  FOREIGN KEY (job, task, epoch, round, attempt) REFERENCES rounds (job, task, epoch, round, attempt)
);
