-- Operations of any target, with their steps.
CREATE TABLE operations_of_any (
    id              TEXT    NOT NULL PRIMARY KEY,
    cluster         TEXT    NOT NULL REFERENCES clusters (name),
    kind            TEXT    NOT NULL CHECK (kind IN (
        'director.drain', 'director.undrain', 'real_server.drain', 'real_server.undrain',
        'vip.drain', 'vip.undrain')),
    -- What it changes: `director`, `real_server` or `vip`, and which.
    target_kind     TEXT    NOT NULL CHECK (target_kind IN ('director', 'real_server', 'vip')),
    target          TEXT    NOT NULL,
    -- The one service that an operation of a real server is restricted to, or nothing.
    service         TEXT    NOT NULL,
    state           TEXT    NOT NULL CHECK (state IN (
        'pending', 'applying', 'settling', 'blocked', 'cancelling',
        'succeeded', 'cancelled', 'failed')),
    -- The step that it is at, and all of them as a JSON array.
    step            TEXT    NOT NULL,
    steps           TEXT    NOT NULL,
    detail          TEXT    NOT NULL,
    -- JSON arrays of names.
    blocked_by      TEXT    NOT NULL,
    override_guards TEXT    NOT NULL,
    -- A JSON object: the generation that each director must acknowledge.
    need            TEXT    NOT NULL,
    -- A JSON array: what each director had acknowledged and counted when this row was written.
    targets         TEXT    NOT NULL,
    -- A JSON array: the VIPs that the director announced when its drain was admitted.
    at_stake        TEXT    NOT NULL,
    requested_by    TEXT    NOT NULL,
    reason          TEXT    NOT NULL,
    immediate       INTEGER NOT NULL CHECK (immediate IN (0, 1)),
    on_deadline     TEXT    NOT NULL CHECK (on_deadline IN ('hold', 'finish', 'remove')),
    base_revision   INTEGER NOT NULL,
    version         INTEGER NOT NULL CHECK (version > 0),
    started_ms      INTEGER NOT NULL,
    deadline_ms     INTEGER NOT NULL,
    ended_ms        INTEGER,
    CHECK ((ended_ms IS NULL) = (state IN (
        'pending', 'applying', 'settling', 'blocked', 'cancelling')))
) STRICT;

-- A drain that was under way had its director withdraw at once.
INSERT INTO operations_of_any
SELECT id, cluster, kind, 'director', director, '', state,
       CASE WHEN ended_ms IS NOT NULL THEN ''
            WHEN kind = 'director.drain' THEN 'withdraw' ELSE 'restore' END, '[]', detail,
       '[]', override_guards, '{"' || director || '":' || (need_generation + 1) || '}', '[]', '[]',
       requested_by, reason, 1, 'hold', 0, 1, started_ms, started_ms + 900000, ended_ms
FROM operations;

-- What it was told as `draining` it is told as `drained` from now on, which is another generation.
UPDATE directors SET generation = generation + 1
WHERE EXISTS (SELECT 1 FROM operations WHERE operations.cluster = directors.cluster
    AND operations.director = directors.name AND operations.ended_ms IS NULL);

DROP TABLE operations;
ALTER TABLE operations_of_any RENAME TO operations;

-- At most one change of the same thing is under way.
CREATE UNIQUE INDEX operations_open ON operations (cluster, target_kind, target, service)
    WHERE ended_ms IS NULL;
CREATE INDEX operations_started ON operations (cluster, started_ms);

-- What an operator took out of service; what is not here is active. It stays when it is declared
-- no more: what comes back comes back as it left.
CREATE TABLE drained_real_servers (
    cluster      TEXT    NOT NULL REFERENCES clusters (name),
    service      TEXT    NOT NULL,
    address      TEXT    NOT NULL,
    port         INTEGER NOT NULL CHECK (port BETWEEN 0 AND 65535),
    admin_state  TEXT    NOT NULL CHECK (admin_state IN ('draining', 'drained')),
    -- Whether the directors do not have it at all any more.
    removed      INTEGER NOT NULL CHECK (removed IN (0, 1)),
    admin_reason TEXT    NOT NULL,
    PRIMARY KEY (cluster, service, address, port)
) STRICT;

CREATE TABLE drained_vips (
    cluster      TEXT    NOT NULL REFERENCES clusters (name),
    vip          TEXT    NOT NULL,
    admin_state  TEXT    NOT NULL CHECK (admin_state IN ('draining', 'drained')),
    admin_reason TEXT    NOT NULL,
    PRIMARY KEY (cluster, vip)
) STRICT;
