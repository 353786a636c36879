-- When a dataset was removed: its key and profile are gone, the row stays for the approvals that name it.
ALTER TABLE datasets ADD COLUMN removed INTEGER;
