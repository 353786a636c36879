-- Training that can end early: the mean loss of the model that a round gave, on the sites' rows for validation (round 0:
-- of the model that training began with). The shortest decimal that reads as the same number.
CREATE TABLE losses (
  job TEXT NOT NULL REFERENCES jobs (job),
  task TEXT NOT NULL,
  round BIGINT NOT NULL,
  loss TEXT NOT NULL,
  PRIMARY KEY (job, task, round)
);
