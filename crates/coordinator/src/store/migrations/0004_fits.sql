-- Regressions: where Newton's method stands between two rounds, and the table that it ended with (JSON).
CREATE TABLE fits (
  job TEXT NOT NULL REFERENCES jobs (job),
  task TEXT NOT NULL,
  state TEXT NOT NULL,
  fit TEXT,
  PRIMARY KEY (job, task)
);
