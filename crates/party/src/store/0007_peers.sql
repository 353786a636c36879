-- Names whose key was verified here until they had another key, or until a person took that back; none any more once the words
-- of that name were compared anew.
CREATE TABLE revoked_peers (
    federation TEXT NOT NULL REFERENCES memberships (federation),
    name       TEXT NOT NULL,            -- its letters and digits in small letters, by which names of a roster differ
    at         INTEGER NOT NULL,
    PRIMARY KEY (federation, name)
) STRICT;
