-- Jobs, their members and tasks, rounds, uploads, models, figures.
CREATE TABLE jobs (
  job TEXT NOT NULL PRIMARY KEY,
  study TEXT NOT NULL REFERENCES studies (study),
  state TEXT NOT NULL CHECK (state IN ('ready', 'waiting', 'running', 'paused', 'success', 'failed', 'timeout', 'cancelled')),
  reason TEXT,
  created_ms BIGINT NOT NULL,
  created_by TEXT NOT NULL,
  started_ms BIGINT,
  ended_ms BIGINT,
  model TEXT
);
CREATE INDEX jobs_by_study ON jobs (study);

CREATE TABLE job_members (
  job TEXT NOT NULL REFERENCES jobs (job),
  site TEXT NOT NULL REFERENCES sites (site),
  state TEXT NOT NULL CHECK (state IN ('asked', 'reserved', 'refused')),
  reason TEXT,
  released_ms BIGINT,
  PRIMARY KEY (job, site)
);
CREATE INDEX job_members_by_site ON job_members (site);

CREATE TABLE tasks (
  job TEXT NOT NULL REFERENCES jobs (job),
  task TEXT NOT NULL,
  position BIGINT NOT NULL,
  component TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('waiting', 'running', 'success', 'skipped', 'failed', 'timeout', 'cancelled')),
  reason TEXT,
  rounds BIGINT NOT NULL,
  done BIGINT NOT NULL,
  model TEXT,
  started_ms BIGINT,
  ended_ms BIGINT,
  PRIMARY KEY (job, task)
);

CREATE TABLE rounds (
  job TEXT NOT NULL REFERENCES jobs (job),
  task TEXT NOT NULL,
  epoch BIGINT NOT NULL,
  round BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  phase TEXT NOT NULL CHECK (phase IN ('open', 'committed', 'published', 'abandoned', 'failed')),
  reason TEXT,
  header BLOB NOT NULL,
  digest TEXT NOT NULL,
  opened_ms BIGINT NOT NULL,
  closed_ms BIGINT,
  included TEXT,
  outs TEXT NOT NULL,
  model TEXT,
  PRIMARY KEY (job, task, epoch, round, attempt)
);

CREATE TABLE uploads (
  job TEXT NOT NULL REFERENCES jobs (job),
  task TEXT NOT NULL,
  epoch BIGINT NOT NULL,
  round BIGINT NOT NULL,
  attempt BIGINT NOT NULL,
  site TEXT NOT NULL REFERENCES sites (site),
  digest TEXT NOT NULL,
  bytes BIGINT NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (job, task, epoch, round, attempt, site)
);
CREATE INDEX uploads_by_site ON uploads (site, job, at_ms);

CREATE TABLE models (
  model TEXT NOT NULL,
  job TEXT NOT NULL REFERENCES jobs (job),
  task TEXT NOT NULL,
  round BIGINT NOT NULL,
  bytes BIGINT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('checkpoint', 'final', 'dropped')),
  at_ms BIGINT NOT NULL,
  card TEXT,
  PRIMARY KEY (job, task, round)
);
CREATE INDEX models_by_digest ON models (model);

CREATE TABLE figures (
  job TEXT NOT NULL REFERENCES jobs (job),
  task TEXT NOT NULL,
  site TEXT NOT NULL,
  document BLOB NOT NULL,
  PRIMARY KEY (job, task, site)
);
