-- The series that a dataset belongs to, by the id of its first version; versions that are removed do not break it.
ALTER TABLE datasets ADD COLUMN series TEXT;
WITH RECURSIVE versions (id, series) AS (
    SELECT id, id FROM datasets WHERE former IS NULL
    UNION ALL
    SELECT datasets.id, versions.series FROM datasets JOIN versions ON datasets.former = versions.id
)
UPDATE datasets SET series = (SELECT versions.series FROM versions WHERE versions.id = datasets.id);
-- A version that was removed holds no place in it: the one before it may be followed by another.
UPDATE datasets SET former = NULL WHERE removed IS NOT NULL;
CREATE INDEX datasets_series ON datasets (series, version);
-- The version that a run reads from its first round here to its end; NULL before that round.
ALTER TABLE jobs ADD COLUMN dataset TEXT REFERENCES datasets (id);
UPDATE jobs SET dataset = (
    SELECT approvals.dataset FROM rounds JOIN approvals ON approvals.id = rounds.approval
    WHERE rounds.job = jobs.job ORDER BY rounds.at DESC LIMIT 1
);
