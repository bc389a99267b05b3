-- Measurements over time. A row is all that was measured of one cluster in one window: many
-- points of many objects, packed, so that a row has pages of its own and not each point a row.
CREATE TABLE samples (
    cluster  TEXT    NOT NULL REFERENCES clusters (name),
    -- The time from one point to the next, in seconds.
    step_s   INTEGER NOT NULL CHECK (step_s > 0),
    -- The window's first point.
    start_ms INTEGER NOT NULL,
    packed   BLOB    NOT NULL,
    PRIMARY KEY (cluster, step_s, start_ms)
) STRICT;

-- What is old goes first.
CREATE INDEX samples_age ON samples (step_s, start_ms);
CREATE INDEX events_age ON events (at_ms);
