-- +goose Up
-- Times are Unix nanoseconds, 0 for none. Lists and maps are JSON.

CREATE TABLE users (
    id         TEXT    PRIMARY KEY,
    login      TEXT    NOT NULL UNIQUE,
    name       TEXT    NOT NULL,
    password   TEXT    NOT NULL, -- argon2id in PHC form, '' for none
    operator   INTEGER NOT NULL,
    created    INTEGER NOT NULL,
    signed_in  INTEGER NOT NULL,
    disabled   INTEGER NOT NULL,
    not_before INTEGER NOT NULL
) STRICT;

CREATE TABLE grants (
    tenant   TEXT    NOT NULL REFERENCES tenants (name),
    user     TEXT    NOT NULL REFERENCES users (id),
    role     TEXT    NOT NULL,
    groups   TEXT    NOT NULL,
    services TEXT    NOT NULL, -- null: all that members may open
    issuer   TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    PRIMARY KEY (tenant, user)
) STRICT;
CREATE INDEX grants_user ON grants (user);

CREATE TABLE passkeys (
    id         TEXT    PRIMARY KEY,
    user       TEXT    NOT NULL REFERENCES users (id),
    name       TEXT    NOT NULL,
    credential BLOB    NOT NULL,
    created    INTEGER NOT NULL,
    used       INTEGER NOT NULL
) STRICT;
CREATE INDEX passkeys_user ON passkeys (user);

CREATE TABLE invitations (
    hash    BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    user    TEXT    NOT NULL REFERENCES users (id),
    by      TEXT    NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT;
CREATE INDEX invitations_user ON invitations (user);

CREATE TABLE sessions (
    hash    BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    id      TEXT    NOT NULL UNIQUE,
    user    TEXT    NOT NULL REFERENCES users (id),
    device  INTEGER NOT NULL,
    methods TEXT    NOT NULL,
    agent   TEXT    NOT NULL,
    remote  TEXT    NOT NULL,
    signed  INTEGER NOT NULL,
    seen    INTEGER NOT NULL,
    expires INTEGER NOT NULL,
    ended   INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_user ON sessions (user, ended);
CREATE INDEX sessions_expires ON sessions (expires);

CREATE TABLE issuers (
    name          TEXT    PRIMARY KEY,
    title         TEXT    NOT NULL,
    url           TEXT    NOT NULL,
    client_id     TEXT    NOT NULL,
    client_secret BLOB    NOT NULL, -- sealed with a key that is not in this file
    tenant        TEXT    NOT NULL REFERENCES tenants (name),
    groups_claim  TEXT    NOT NULL,
    roles         TEXT    NOT NULL,
    created       INTEGER NOT NULL
) STRICT;
CREATE INDEX issuers_tenant ON issuers (tenant);

CREATE TABLE links (
    issuer  TEXT    NOT NULL REFERENCES issuers (name),
    subject TEXT    NOT NULL,
    user    TEXT    NOT NULL REFERENCES users (id),
    created INTEGER NOT NULL,
    PRIMARY KEY (issuer, subject)
) STRICT;
CREATE INDEX links_user ON links (user);

CREATE TABLE favourites (
    user    TEXT NOT NULL REFERENCES users (id),
    tenant  TEXT NOT NULL REFERENCES tenants (name),
    service TEXT NOT NULL,
    entry   TEXT NOT NULL,
    PRIMARY KEY (user, tenant, service, entry)
) STRICT;
CREATE INDEX favourites_tenant ON favourites (tenant);

CREATE TABLE sources ( -- refers to tenants and users that may be gone
    tenant TEXT    NOT NULL,
    user   TEXT    NOT NULL,
    prefix TEXT    NOT NULL,
    seen   INTEGER NOT NULL,
    PRIMARY KEY (tenant, user, prefix)
) STRICT;
CREATE INDEX sources_user ON sources (user);
CREATE INDEX sources_seen ON sources (seen);

CREATE INDEX audit_tenant ON audit (tenant, seq);

ALTER TABLE tenants ADD COLUMN admission TEXT NOT NULL DEFAULT '{"mode":"open"}';
