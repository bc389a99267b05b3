-- What was answered to requests that carried an Idempotency-Key, so that one that is sent again
-- is answered again and changes nothing. It is written with the change itself.
CREATE TABLE idempotency (
    -- Who asked: keys of two callers never meet.
    actor     TEXT    NOT NULL,
    key       TEXT    NOT NULL,
    -- SHA-256 of the method, the path with its query, and the body, in hexadecimal.
    request   TEXT    NOT NULL,
    status    INTEGER NOT NULL CHECK (status BETWEEN 200 AND 299),
    -- The answer's Location and ETag, where it had them.
    location  TEXT,
    etag      TEXT,
    -- The answer's body; nothing where it held a secret, which is shown once.
    body      TEXT,
    made_ms   INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT;

CREATE INDEX idempotency_made ON idempotency (made_ms);
