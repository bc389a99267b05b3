-- The declaration in force of each cluster, in tables of its own: written with each revision in
-- one transaction. What it says no more is kept with declared = 0 where something else may hang
-- on it, as with directors; the rest is deleted.

-- The interfaces with OSPF on them that a director's speaker reported last.
CREATE TABLE interfaces (
    cluster    TEXT    NOT NULL,
    director   TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    -- Its place in the director's own file.
    place      INTEGER NOT NULL CHECK (place >= 0),
    -- The address that it speaks from; nothing while it is down.
    address    TEXT,
    unnumbered INTEGER NOT NULL CHECK (unnumbered IN (0, 1)),
    auth       TEXT    NOT NULL CHECK (auth IN ('none', 'simple', 'cryptographic')),
    PRIMARY KEY (cluster, director, name),
    FOREIGN KEY (cluster, director) REFERENCES directors (cluster, name)
) STRICT;

CREATE TABLE switches (
    cluster   TEXT NOT NULL REFERENCES clusters (name),
    name      TEXT NOT NULL,
    router_id TEXT NOT NULL,
    PRIMARY KEY (cluster, name)
) STRICT;

CREATE TABLE vips (
    cluster     TEXT    NOT NULL REFERENCES clusters (name),
    vip         TEXT    NOT NULL,
    declared    INTEGER NOT NULL CHECK (declared IN (0, 1)),
    announce_as TEXT    NOT NULL CHECK (announce_as IN ('stub', 'external-1', 'external-2', 'nssa')),
    cost        INTEGER NOT NULL CHECK (cost BETWEEN 1 AND 65535),
    -- 'all', 'any' or a number.
    require     TEXT    NOT NULL,
    PRIMARY KEY (cluster, vip)
) STRICT;

-- The cost at single directors in the place of the VIP's own.
CREATE TABLE vip_costs (
    cluster  TEXT    NOT NULL,
    vip      TEXT    NOT NULL,
    director TEXT    NOT NULL,
    cost     INTEGER NOT NULL CHECK (cost BETWEEN 1 AND 65535),
    PRIMARY KEY (cluster, vip, director),
    FOREIGN KEY (cluster, vip) REFERENCES vips (cluster, vip),
    FOREIGN KEY (cluster, director) REFERENCES directors (cluster, name)
) STRICT;

CREATE TABLE services (
    cluster         TEXT    NOT NULL,
    -- Such as tcp:10.99.0.1:80 or fwmark:10.99.0.1:7.
    service         TEXT    NOT NULL,
    vip             TEXT    NOT NULL,
    declared        INTEGER NOT NULL CHECK (declared IN (0, 1)),
    protocol        TEXT    CHECK (protocol IN ('tcp', 'udp', 'sctp')),
    port            INTEGER CHECK (port BETWEEN 1 AND 65535),
    fwmark          INTEGER CHECK (fwmark BETWEEN 1 AND 4294967295),
    scheduler       TEXT    NOT NULL,
    -- Its flags as they are in force, with commas between them.
    flags           TEXT    NOT NULL,
    forwarding      TEXT    NOT NULL CHECK (forwarding IN ('dr', 'tun', 'nat')),
    tunnel          TEXT    CHECK (tunnel IN ('ipip', 'gue', 'gre')),
    tunnel_port     INTEGER CHECK (tunnel_port BETWEEN 1 AND 65535),
    tunnel_checksum TEXT    CHECK (tunnel_checksum IN ('none', 'csum', 'remcsum')),
    persistence_s   INTEGER CHECK (persistence_s > 0),
    persistence_netmask TEXT,
    quorum          INTEGER NOT NULL CHECK (quorum > 0),
    PRIMARY KEY (cluster, service),
    FOREIGN KEY (cluster, vip) REFERENCES vips (cluster, vip),
    CHECK ((fwmark IS NULL) = (protocol IS NOT NULL)),
    CHECK ((fwmark IS NULL) = (port IS NOT NULL)),
    CHECK ((forwarding = 'tun') = (tunnel IS NOT NULL)),
    CHECK ((tunnel IS NULL) = (tunnel_checksum IS NULL))
) STRICT;

CREATE TABLE real_servers (
    cluster         TEXT    NOT NULL,
    service         TEXT    NOT NULL,
    address         TEXT    NOT NULL,
    -- 0 keeps each packet's own, where the service is a mark's.
    port            INTEGER NOT NULL CHECK (port BETWEEN 0 AND 65535),
    declared        INTEGER NOT NULL CHECK (declared IN (0, 1)),
    weight          INTEGER NOT NULL CHECK (weight BETWEEN 0 AND 65535),
    upper_threshold INTEGER NOT NULL CHECK (upper_threshold BETWEEN 0 AND 4294967295),
    lower_threshold INTEGER NOT NULL CHECK (lower_threshold BETWEEN 0 AND 4294967295),
    PRIMARY KEY (cluster, service, address, port),
    FOREIGN KEY (cluster, service) REFERENCES services (cluster, service)
) STRICT;

CREATE INDEX real_servers_address ON real_servers (cluster, address, port);

CREATE TABLE checks (
    cluster     TEXT    NOT NULL,
    service     TEXT    NOT NULL,
    kind        TEXT    NOT NULL CHECK (kind IN ('none', 'tcp', 'http', 'https')),
    port        INTEGER CHECK (port BETWEEN 1 AND 65535),
    path        TEXT,
    host        TEXT,
    -- A range of statuses such as 200-399.
    status      TEXT,
    verify      INTEGER NOT NULL CHECK (verify IN (0, 1)),
    interval_us INTEGER NOT NULL CHECK (interval_us >= 0),
    timeout_us  INTEGER NOT NULL CHECK (timeout_us >= 0),
    rise        INTEGER NOT NULL CHECK (rise > 0),
    fall        INTEGER NOT NULL CHECK (fall > 0),
    PRIMARY KEY (cluster, service),
    FOREIGN KEY (cluster, service) REFERENCES services (cluster, service)
) STRICT;
