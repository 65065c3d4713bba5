-- +goose Up
-- A custom route is a claim that was proven. Those that there are were given by who
-- operates the deployment, and count as proven from now on.

CREATE TABLE claims (
    host    TEXT    NOT NULL,
    tenant  TEXT    NOT NULL REFERENCES tenants (name),
    service TEXT    NOT NULL,
    secret  TEXT    NOT NULL, -- that DNS has to show; '' where that was never asked for
    created INTEGER NOT NULL,
    proven  INTEGER NOT NULL, -- 0: not
    checked INTEGER NOT NULL,
    finding TEXT    NOT NULL,
    PRIMARY KEY (host, tenant)
) STRICT;
CREATE INDEX claims_tenant ON claims (tenant);
CREATE INDEX claims_unproven ON claims (created) WHERE proven = 0;
CREATE UNIQUE INDEX claims_proven ON claims (host) WHERE proven <> 0;

INSERT INTO claims (host, tenant, service, secret, created, proven, checked, finding)
    SELECT host, tenant, service, '', created, unixepoch() * 1000000000, 0, '' FROM routes;
DROP TABLE routes;
