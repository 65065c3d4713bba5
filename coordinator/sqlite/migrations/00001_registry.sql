-- +goose Up
-- Times are Unix nanoseconds, 0 for none. Keys, ids and addresses are their text.

CREATE TABLE deployment (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    id           TEXT    NOT NULL,
    prefix       TEXT    NOT NULL,
    map_version  INTEGER NOT NULL,
    next_tenant  INTEGER NOT NULL,
    next_gateway INTEGER NOT NULL,
    created      INTEGER NOT NULL
) STRICT;

CREATE TABLE tenants (
    name      TEXT    PRIMARY KEY,
    title     TEXT    NOT NULL,
    number    INTEGER NOT NULL UNIQUE,
    next_node INTEGER NOT NULL,
    created   INTEGER NOT NULL
) STRICT;

CREATE TABLE tokens (
    id      TEXT    PRIMARY KEY,
    kind    TEXT    NOT NULL,
    public  TEXT    NOT NULL,
    role    TEXT    NOT NULL,
    tenant  TEXT    REFERENCES tenants (name),
    uses    INTEGER NOT NULL CHECK (uses >= 0),
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    revoked INTEGER NOT NULL,
    note    TEXT    NOT NULL
) STRICT;
CREATE INDEX tokens_tenant ON tokens (tenant);

CREATE TABLE members (
    id        TEXT    PRIMARY KEY,
    role      TEXT    NOT NULL,
    tenant    TEXT    REFERENCES tenants (name),
    name      TEXT    NOT NULL,
    address   TEXT    NOT NULL UNIQUE,
    identity  TEXT    NOT NULL UNIQUE,
    wireguard TEXT    NOT NULL UNIQUE,
    token     TEXT    NOT NULL,
    host      TEXT    NOT NULL, -- JSON
    services  TEXT    NOT NULL, -- JSON
    endpoint  TEXT    NOT NULL,
    public    TEXT    NOT NULL,
    joined    INTEGER NOT NULL,
    seen      INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX members_name ON members (ifnull(tenant, ''), name);
CREATE INDEX members_tenant ON members (tenant);

CREATE TABLE removed (
    identity TEXT    PRIMARY KEY,
    id       TEXT    NOT NULL,
    time     INTEGER NOT NULL
) STRICT;

CREATE TABLE routes (
    host    TEXT    PRIMARY KEY,
    tenant  TEXT    NOT NULL REFERENCES tenants (name),
    service TEXT    NOT NULL,
    created INTEGER NOT NULL
) STRICT;
CREATE INDEX routes_tenant ON routes (tenant);

CREATE TABLE holds (
    host  TEXT    PRIMARY KEY,
    owner INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT;

CREATE TABLE audit (
    seq    INTEGER PRIMARY KEY,
    time   INTEGER NOT NULL,
    actor  TEXT    NOT NULL,
    action TEXT    NOT NULL,
    tenant TEXT    NOT NULL,
    target TEXT    NOT NULL,
    detail TEXT    NOT NULL,
    hash   BLOB    NOT NULL CHECK (length(hash) = 32)
) STRICT;

-- +goose StatementBegin
CREATE TRIGGER audit_keep BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'entries of the audit log are not deleted');
END;
-- +goose StatementEnd

-- +goose StatementBegin
CREATE TRIGGER audit_fixed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'entries of the audit log are not changed');
END;
-- +goose StatementEnd

-- Without it, REPLACE would get around the two above.
-- +goose StatementBegin
CREATE TRIGGER audit_next BEFORE INSERT ON audit
WHEN NEW.seq <> (SELECT ifnull(max(seq), 0) + 1 FROM audit)
BEGIN
    SELECT RAISE(ABORT, 'entries of the audit log are numbered in turn');
END;
-- +goose StatementEnd
