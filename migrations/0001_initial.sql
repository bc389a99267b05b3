-- Times are milliseconds since the Unix epoch, UTC. Ids and enumerations are text.

-- The life of this database: agents refuse generations of another one.
CREATE TABLE epoch (
    id      INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
    epoch   TEXT    NOT NULL,
    made_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE clusters (
    name     TEXT    NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL CHECK (revision > 0),
    made_ms  INTEGER NOT NULL
) STRICT;

-- What was declared, by whom and why; never changed, never deleted.
CREATE TABLE revisions (
    cluster     TEXT    NOT NULL REFERENCES clusters (name),
    revision    INTEGER NOT NULL CHECK (revision > 0),
    declaration TEXT    NOT NULL,
    actor       TEXT    NOT NULL,
    reason      TEXT    NOT NULL,
    at_ms       INTEGER NOT NULL,
    PRIMARY KEY (cluster, revision)
) STRICT;

-- A director that is declared no more keeps its row, so that its generation never goes back.
CREATE TABLE directors (
    cluster          TEXT    NOT NULL REFERENCES clusters (name),
    name             TEXT    NOT NULL,
    declared         INTEGER NOT NULL CHECK (declared IN (0, 1)),
    admin_state      TEXT    NOT NULL CHECK (admin_state IN ('active', 'draining', 'drained')),
    admin_reason     TEXT    NOT NULL,
    generation       INTEGER NOT NULL CHECK (generation > 0),
    -- The revision that the desired state of this generation was derived from.
    desired_revision INTEGER NOT NULL CHECK (desired_revision > 0),
    -- The agent whose report was accepted last.
    instance         TEXT,
    PRIMARY KEY (cluster, name)
) STRICT;

CREATE TABLE operations (
    id              TEXT    NOT NULL PRIMARY KEY,
    cluster         TEXT    NOT NULL,
    director        TEXT    NOT NULL,
    kind            TEXT    NOT NULL CHECK (kind IN ('director.drain', 'director.undrain')),
    state           TEXT    NOT NULL
        CHECK (state IN ('applying', 'settling', 'succeeded', 'cancelled')),
    detail          TEXT    NOT NULL,
    need_generation INTEGER NOT NULL,
    requested_by    TEXT    NOT NULL,
    reason          TEXT    NOT NULL,
    -- A JSON array of names.
    override_guards TEXT    NOT NULL,
    started_ms      INTEGER NOT NULL,
    ended_ms        INTEGER,
    CHECK ((ended_ms IS NULL) = (state IN ('applying', 'settling'))),
    FOREIGN KEY (cluster, director) REFERENCES directors (cluster, name)
) STRICT;

-- At most one change of a director is under way.
CREATE UNIQUE INDEX operations_open ON operations (cluster, director) WHERE ended_ms IS NULL;

CREATE TABLE events (
    id       INTEGER NOT NULL PRIMARY KEY,
    at_ms    INTEGER NOT NULL,
    cluster  TEXT,
    severity TEXT    NOT NULL CHECK (severity IN ('info', 'warning', 'error')),
    object   TEXT    NOT NULL,
    what     TEXT    NOT NULL,
    actor    TEXT    NOT NULL
) STRICT;

CREATE INDEX events_cluster ON events (cluster, id);

CREATE TABLE users (
    name          TEXT    NOT NULL PRIMARY KEY,
    -- A PHC string (Argon2id).
    password_hash TEXT    NOT NULL,
    made_ms       INTEGER NOT NULL
) STRICT;

CREATE TABLE sessions (
    -- SHA-256 of the cookie's secret, in hexadecimal.
    hash    TEXT    NOT NULL PRIMARY KEY,
    user    TEXT    NOT NULL REFERENCES users (name) ON DELETE CASCADE,
    made_ms INTEGER NOT NULL,
    seen_ms INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    -- SHA-256 of the token, in hexadecimal.
    hash    TEXT    NOT NULL PRIMARY KEY,
    name    TEXT    NOT NULL UNIQUE,
    role    TEXT    NOT NULL CHECK (role IN ('operator', 'agent')),
    cluster TEXT,
    made_ms INTEGER NOT NULL,
    -- An agent's token is good for one cluster, which may be declared later.
    CHECK ((role = 'agent') = (cluster IS NOT NULL))
) STRICT;
