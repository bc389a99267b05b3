-- One-time tokens by which an agent becomes a director's. Once used or too old they are kept for a
-- while, so that whoever tries one again is told which of the two it is.
CREATE TABLE enroll_tokens (
    -- SHA-256 of the token, in hexadecimal.
    hash       TEXT    NOT NULL PRIMARY KEY,
    cluster    TEXT    NOT NULL,
    director   TEXT    NOT NULL,
    made_by    TEXT    NOT NULL,
    made_ms    INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    used_ms    INTEGER,
    -- The agent that it made.
    agent      TEXT,
    -- When it was first tried in vain, which is told once.
    refused_ms INTEGER,
    CHECK ((used_ms IS NULL) = (agent IS NULL))
) STRICT;

-- Agents that have enrolled: who a client's certificate speaks for. Neither cluster nor director
-- need be declared.
CREATE TABLE agents (
    -- The UUID in the certificate.
    id            TEXT    NOT NULL PRIMARY KEY,
    cluster       TEXT    NOT NULL,
    director      TEXT    NOT NULL,
    -- A hash of the machine's id, by which a copied key is noticed.
    machine       TEXT    NOT NULL,
    boot          TEXT    NOT NULL,
    version       TEXT    NOT NULL,
    protocol      INTEGER NOT NULL,
    -- SHA-256 of the last certificate, in hexadecimal.
    fingerprint   TEXT    NOT NULL,
    enrolled_ms   INTEGER NOT NULL,
    issued_ms     INTEGER NOT NULL,
    expires_ms    INTEGER NOT NULL,
    revoked_ms    INTEGER,
    revoked_by    TEXT,
    revoke_reason TEXT,
    CHECK ((revoked_ms IS NULL) = (revoked_by IS NULL)),
    CHECK ((revoked_ms IS NULL) = (revoke_reason IS NULL))
) STRICT;

-- A director has one agent.
CREATE UNIQUE INDEX agents_active ON agents (cluster, director) WHERE revoked_ms IS NULL;
