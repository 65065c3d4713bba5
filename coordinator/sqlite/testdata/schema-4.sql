-- A registry from before nodes had weights, as sqlite3's .dump tells it.
PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
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
INSERT INTO "audit" VALUES(1,1767355208000000001,'local','deployment.create','','issyltvzcvzz6elm','fdd3:8576:d47e::/48',X'978FF8584A5864F2B744D4BDE148A7B53E1C646FD6F2E44D1622236477596030');
INSERT INTO "audit" VALUES(2,1767355210000000001,'local','token.create','','zvwaatwf3btgrbuq','pstjoin1 for gateway, good for 1, until 2026-01-03T12:00:10Z',X'1EA0C34297733F2A25E60336D4BDA4CD869DAB9B51EBB85578F67F683ACDABA3');
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
INSERT INTO "claims" VALUES('erp.example.com','acme','default','',1767355210000000001,1795814411000000000,0,'');
INSERT INTO "claims" VALUES('books.globex.example','globex','books','',1767355200000000001,1795814411000000000,0,'');
CREATE TABLE deployment (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    id           TEXT    NOT NULL,
    prefix       TEXT    NOT NULL,
    map_version  INTEGER NOT NULL,
    next_tenant  INTEGER NOT NULL,
    next_gateway INTEGER NOT NULL,
    created      INTEGER NOT NULL
, fit TEXT NOT NULL DEFAULT '[]') STRICT;
INSERT INTO "deployment" VALUES(1,'issyltvzcvzz6elm','fdd3:8576:d47e::/48',1767355209000,65538,2,1767355207000000001,'["bbbbbbbbbbbbbbbb"]');
CREATE TABLE favourites (
    user    TEXT NOT NULL REFERENCES users (id),
    tenant  TEXT NOT NULL REFERENCES tenants (name),
    service TEXT NOT NULL,
    entry   TEXT NOT NULL,
    PRIMARY KEY (user, tenant, service, entry)
) STRICT;
CREATE TABLE goose_db_version (
		id INTEGER PRIMARY KEY AUTOINCREMENT,
		version_id INTEGER NOT NULL,
		is_applied INTEGER NOT NULL,
		tstamp TIMESTAMP DEFAULT (datetime('now'))
	);
INSERT INTO "goose_db_version" VALUES(1,0,1,'2026-11-27 10:48:21');
INSERT INTO "goose_db_version" VALUES(2,1,1,'2026-11-27 10:48:21');
INSERT INTO "goose_db_version" VALUES(3,2,1,'2026-11-27 17:59:09');
INSERT INTO "goose_db_version" VALUES(4,3,1,'2026-11-27 21:20:11');
INSERT INTO "goose_db_version" VALUES(5,4,1,'2026-11-27 21:40:05');
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
INSERT INTO "grants" VALUES('acme','uaaaaaaaaaaaaaaaa','owner','["accounting"]','null','',1767355200000000001);
CREATE TABLE holds (
    host  TEXT    PRIMARY KEY,
    owner INTEGER NOT NULL,
    until INTEGER NOT NULL
) STRICT;
INSERT INTO "holds" VALUES('old.apps.example.com',65530,1767358810000000001);
CREATE TABLE invitations (
    hash    BLOB    PRIMARY KEY CHECK (length(hash) = 32),
    user    TEXT    NOT NULL REFERENCES users (id),
    by      TEXT    NOT NULL,
    created INTEGER NOT NULL,
    expires INTEGER NOT NULL
) STRICT;
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
CREATE TABLE links (
    issuer  TEXT    NOT NULL REFERENCES issuers (name),
    subject TEXT    NOT NULL,
    user    TEXT    NOT NULL REFERENCES users (id),
    created INTEGER NOT NULL,
    PRIMARY KEY (issuer, subject)
) STRICT;
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
, draining INTEGER NOT NULL DEFAULT 0) STRICT;
INSERT INTO "members" VALUES('aaaaaaaaaaaaaaaa','node','acme','office','fdd3:8576:d47e:1::1','ZWTDXrZS283ZjHsOykv2M7Tgr1kIPT8yFA87J0Q7DQ4=','za+faXXET3QTtdME5jwe5tqIYWN2M3QylnT5NH6vCR0=','a4aaaaaaaaaaaaaa','{"name":"pc","os":"linux","arch":"amd64","version":"1"}','[{"name":"default","title":"Books","entries":[{"name":"y2026","path":"/2026"}]}]','','',1767355210000000001,1767355210000000001,0);
INSERT INTO "members" VALUES('bbbbbbbbbbbbbbbb','gateway',NULL,'door','fdd3:8576:d47e::1','UEww5OinuF/3VI2QM1C7DMntE8lceS86fMG1hTWdvgY=','OxQwWZ4ag5hy6TerwPpWs97jxlOw1wPHfmk+sUYPLAk=','baaaaaaaaaaaaaaa','{}','null','203.0.113.1:51820','203.0.113.1:443',1767355210000000001,0,1);
CREATE TABLE passkeys (
    id         TEXT    PRIMARY KEY,
    user       TEXT    NOT NULL REFERENCES users (id),
    name       TEXT    NOT NULL,
    credential BLOB    NOT NULL,
    created    INTEGER NOT NULL,
    used       INTEGER NOT NULL
) STRICT;
CREATE TABLE removed (
    identity TEXT    PRIMARY KEY,
    id       TEXT    NOT NULL,
    time     INTEGER NOT NULL
) STRICT;
INSERT INTO "removed" VALUES('xSWypXSrTKYcNRDeI38H9v2lnrbxU/W2TMJGL12toVo=','cccccccccccccccc',1767355210000000001);
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
CREATE TABLE sources ( -- refers to tenants and users that may be gone
    tenant TEXT    NOT NULL,
    user   TEXT    NOT NULL,
    prefix TEXT    NOT NULL,
    seen   INTEGER NOT NULL,
    PRIMARY KEY (tenant, user, prefix)
) STRICT;
CREATE TABLE tenants (
    name      TEXT    PRIMARY KEY,
    title     TEXT    NOT NULL,
    number    INTEGER NOT NULL UNIQUE,
    next_node INTEGER NOT NULL,
    created   INTEGER NOT NULL
, admission TEXT NOT NULL DEFAULT '{"mode":"open"}') STRICT;
INSERT INTO "tenants" VALUES('acme','Acme & Sons',65536,2,1767355210000000001,'{"mode":"open"}');
INSERT INTO "tenants" VALUES('globex','globex',65537,1,1767355200000000001,'{"mode":""}');
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
INSERT INTO "tokens" VALUES('zvwaatwf3btgrbuq','pstjoin1','zJ+TYash99gfuJd8Nmdpj2MJjKHYywFFZHPLUU5luVg=','gateway',NULL,1,1767355210000000001,1767441610000000001,0,'door');
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
INSERT INTO "users" VALUES('uaaaaaaaaaaaaaaaa','ada@acme.example','Ada','',0,1767355200000000001,1767355200000000001,0,0);
CREATE INDEX tokens_tenant ON tokens (tenant);
CREATE UNIQUE INDEX members_name ON members (ifnull(tenant, ''), name);
CREATE INDEX members_tenant ON members (tenant);
CREATE TRIGGER audit_keep BEFORE DELETE ON audit
BEGIN
    SELECT RAISE(ABORT, 'entries of the audit log are not deleted');
END;
CREATE TRIGGER audit_fixed BEFORE UPDATE ON audit
BEGIN
    SELECT RAISE(ABORT, 'entries of the audit log are not changed');
END;
CREATE TRIGGER audit_next BEFORE INSERT ON audit
WHEN NEW.seq <> (SELECT ifnull(max(seq), 0) + 1 FROM audit)
BEGIN
    SELECT RAISE(ABORT, 'entries of the audit log are numbered in turn');
END;
CREATE INDEX grants_user ON grants (user);
CREATE INDEX passkeys_user ON passkeys (user);
CREATE INDEX invitations_user ON invitations (user);
CREATE INDEX sessions_user ON sessions (user, ended);
CREATE INDEX sessions_expires ON sessions (expires);
CREATE INDEX issuers_tenant ON issuers (tenant);
CREATE INDEX links_user ON links (user);
CREATE INDEX favourites_tenant ON favourites (tenant);
CREATE INDEX sources_user ON sources (user);
CREATE INDEX sources_seen ON sources (seen);
CREATE INDEX audit_tenant ON audit (tenant, seq);
CREATE INDEX claims_tenant ON claims (tenant);
CREATE INDEX claims_unproven ON claims (created) WHERE proven = 0;
CREATE UNIQUE INDEX claims_proven ON claims (host) WHERE proven <> 0;
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('goose_db_version',5);
COMMIT;
