-- Sites, certificates, invitations, tokens, studies. Times are milliseconds since 1970 (UTC).
CREATE TABLE meta (
  name TEXT NOT NULL PRIMARY KEY,
  value TEXT NOT NULL
);

CREATE TABLE sites (
  site TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  name_key TEXT NOT NULL UNIQUE,
  organisation TEXT NOT NULL,
  identity TEXT NOT NULL UNIQUE,
  statement TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('enrolled', 'active', 'suspended', 'revoked')),
  reason TEXT,
  enrolled_ms BIGINT NOT NULL,
  last_seen_ms BIGINT,
  software TEXT
);

CREATE TABLE certificates (
  serial TEXT NOT NULL PRIMARY KEY,
  site TEXT NOT NULL REFERENCES sites (site),
  issued_ms BIGINT NOT NULL,
  expires_ms BIGINT NOT NULL,
  revoked_ms BIGINT
);
CREATE INDEX certificates_by_site ON certificates (site);

CREATE TABLE invitations (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL,
  name_key TEXT NOT NULL,
  secret_hash BLOB NOT NULL,
  created_ms BIGINT NOT NULL,
  created_by TEXT NOT NULL,
  expires_ms BIGINT NOT NULL,
  used_ms BIGINT,
  used_by TEXT REFERENCES sites (site),
  revoked_ms BIGINT
);

CREATE TABLE tokens (
  id TEXT NOT NULL PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  role TEXT NOT NULL CHECK (role IN ('operator', 'researcher')),
  secret_hash BLOB NOT NULL,
  created_ms BIGINT NOT NULL,
  expires_ms BIGINT,
  revoked_ms BIGINT
);

CREATE TABLE rosters (
  version BIGINT NOT NULL PRIMARY KEY,
  document BLOB NOT NULL,
  at_ms BIGINT NOT NULL
);

CREATE TABLE vouches (
  voucher TEXT NOT NULL REFERENCES sites (site),
  site TEXT NOT NULL REFERENCES sites (site),
  document BLOB NOT NULL,
  at_ms BIGINT NOT NULL,
  PRIMARY KEY (voucher, site)
);

CREATE TABLE studies (
  study TEXT NOT NULL PRIMARY KEY,
  title TEXT NOT NULL,
  submitted_by TEXT NOT NULL,
  submitter TEXT NOT NULL,
  submitted_ms BIGINT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('offered', 'withdrawn')),
  plan_digest TEXT NOT NULL,
  document BLOB NOT NULL
);
CREATE INDEX studies_by_submitter ON studies (submitted_by);

CREATE TABLE study_members (
  study TEXT NOT NULL REFERENCES studies (study),
  site TEXT NOT NULL REFERENCES sites (site),
  decision TEXT,
  decided_ms BIGINT,
  PRIMARY KEY (study, site)
);
CREATE INDEX study_members_by_site ON study_members (site);

CREATE TABLE leases (
  subject TEXT NOT NULL PRIMARY KEY,
  holder TEXT NOT NULL,
  fence BIGINT NOT NULL,
  until_ms BIGINT NOT NULL
);
