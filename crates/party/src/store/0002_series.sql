-- A dataset that is registered again under its name is a new version of it; the former one keeps its snapshot, for the
-- approvals that name it, and gets a name with its version.
ALTER TABLE datasets ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE datasets ADD COLUMN former TEXT REFERENCES datasets (id);
CREATE UNIQUE INDEX datasets_former ON datasets (former);
