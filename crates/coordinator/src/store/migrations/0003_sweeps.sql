-- Studies with many settings: whether they are through, and which of their jobs gave the best model.
CREATE TABLE sweeps (
  study TEXT NOT NULL PRIMARY KEY REFERENCES studies (study),
  state TEXT NOT NULL CHECK (state IN ('running', 'success', 'failed', 'cancelled')),
  reason TEXT,
  created_by TEXT NOT NULL,
  started_ms BIGINT NOT NULL,
  ended_ms BIGINT
);

ALTER TABLE jobs ADD COLUMN setting BIGINT;
ALTER TABLE jobs ADD COLUMN figure TEXT;
ALTER TABLE jobs ADD COLUMN chosen_ms BIGINT;
CREATE UNIQUE INDEX jobs_by_setting ON jobs (study, setting);
