-- Who may do what. Everyone who could sign in before could do everything.
ALTER TABLE users ADD COLUMN role TEXT NOT NULL DEFAULT 'admin'
    CHECK (role IN ('viewer', 'operator', 'admin'));
ALTER TABLE users ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0 CHECK (disabled IN (0, 1));

-- Sessions have an id to be listed and ended by, which tells nothing of the cookie. Those of
-- before have none: whoever was signed in signs in again.
DROP TABLE sessions;
CREATE TABLE sessions (
    id        TEXT    NOT NULL PRIMARY KEY,
    -- SHA-256 of the cookie's secret, in hexadecimal.
    hash      TEXT    NOT NULL UNIQUE,
    user_name TEXT    NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    -- The address that signed in.
    peer      TEXT    NOT NULL,
    made_ms   INTEGER NOT NULL,
    seen_ms   INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_user ON sessions (user_name);

-- A table's CHECK cannot be changed in place: the tokens move to a new one.
CREATE TABLE access_tokens (
    name       TEXT    NOT NULL PRIMARY KEY,
    -- SHA-256 of the token, in hexadecimal.
    hash       TEXT    NOT NULL UNIQUE,
    role       TEXT    NOT NULL CHECK (role IN ('viewer', 'operator', 'admin', 'agent')),
    -- Whether it is good for the clusters of token_clusters only.
    restricted INTEGER NOT NULL CHECK (restricted IN (0, 1)),
    made_by    TEXT    NOT NULL,
    made_ms    INTEGER NOT NULL,
    -- It is never good again from then on.
    expires_ms INTEGER,
    revoked_ms INTEGER,
    -- When it was last used, to some minutes.
    used_ms    INTEGER,
    -- An agent's token is good for one cluster, which may be declared later.
    CHECK (role <> 'agent' OR restricted = 1)
) STRICT;
CREATE TABLE token_clusters (
    token   TEXT NOT NULL REFERENCES access_tokens (name) ON DELETE CASCADE,
    cluster TEXT NOT NULL,
    PRIMARY KEY (token, cluster)
) STRICT;
INSERT INTO access_tokens (name, hash, role, restricted, made_by, made_ms)
    SELECT name, hash, role, CASE role WHEN 'agent' THEN 1 ELSE 0 END, 'isopathd', made_ms
    FROM tokens;
INSERT INTO token_clusters (token, cluster)
    SELECT name, cluster FROM tokens WHERE cluster IS NOT NULL;
DROP TABLE tokens;
ALTER TABLE access_tokens RENAME TO tokens;

-- Who changed what, and who was refused what. Changes are written in their own transaction.
CREATE TABLE audit (
    id         INTEGER NOT NULL PRIMARY KEY,
    at_ms      INTEGER NOT NULL,
    -- Empty where nobody known asked.
    principal  TEXT    NOT NULL,
    via        TEXT    NOT NULL CHECK
        (via IN ('token', 'session', 'certificate', 'command', 'controller', 'nothing')),
    -- The address that asked; nothing where it did not come over the network.
    peer       TEXT,
    action     TEXT    NOT NULL,
    object     TEXT    NOT NULL,
    cluster    TEXT,
    outcome    TEXT    NOT NULL CHECK (outcome IN ('done', 'refused')),
    -- The HTTP status that it was answered with; nothing where there was none.
    status     INTEGER,
    detail     TEXT    NOT NULL,
    request_id TEXT
) STRICT;
CREATE INDEX audit_principal ON audit (principal, id);
CREATE INDEX audit_cluster ON audit (cluster, id);
CREATE INDEX audit_outcome ON audit (outcome, id);
