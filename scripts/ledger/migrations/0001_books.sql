CREATE TABLE companies (
	id       INTEGER PRIMARY KEY AUTOINCREMENT,
	name     TEXT NOT NULL,
	currency TEXT NOT NULL
) STRICT;

CREATE TABLE accounts (
	company_id INTEGER NOT NULL REFERENCES companies (id),
	number     TEXT NOT NULL,
	name       TEXT NOT NULL,
	kind       TEXT NOT NULL CHECK (kind IN ('asset', 'liability', 'equity', 'income', 'expense')),
	PRIMARY KEY (company_id, number)
) STRICT, WITHOUT ROWID;

CREATE TABLE vouchers (
	id         INTEGER PRIMARY KEY AUTOINCREMENT,
	company_id INTEGER NOT NULL REFERENCES companies (id),
	year       INTEGER NOT NULL,
	serial     INTEGER NOT NULL,
	date       TEXT NOT NULL,
	text       TEXT NOT NULL,
	posted_at  TEXT NOT NULL,
	UNIQUE (company_id, id),
	UNIQUE (company_id, year, serial)
) STRICT;
CREATE INDEX vouchers_by_date ON vouchers (company_id, date);

CREATE TABLE lines (
	company_id   INTEGER NOT NULL,
	voucher_id   INTEGER NOT NULL,
	position     INTEGER NOT NULL,
	account      TEXT NOT NULL,
	debit_cents  INTEGER NOT NULL,
	credit_cents INTEGER NOT NULL,
	PRIMARY KEY (voucher_id, position),
	FOREIGN KEY (company_id, voucher_id) REFERENCES vouchers (company_id, id),
	FOREIGN KEY (company_id, account) REFERENCES accounts (company_id, number),
	CHECK (debit_cents > 0 AND credit_cents = 0 OR debit_cents = 0 AND credit_cents > 0)
) STRICT, WITHOUT ROWID;
CREATE INDEX lines_by_account ON lines (company_id, account);

CREATE TRIGGER vouchers_stay BEFORE UPDATE ON vouchers BEGIN SELECT raise(ABORT, 'a posted voucher is never changed'); END;
CREATE TRIGGER vouchers_last BEFORE DELETE ON vouchers BEGIN SELECT raise(ABORT, 'a posted voucher is never removed'); END;
CREATE TRIGGER lines_stay BEFORE UPDATE ON lines BEGIN SELECT raise(ABORT, 'a posted voucher is never changed'); END;
CREATE TRIGGER lines_last BEFORE DELETE ON lines BEGIN SELECT raise(ABORT, 'a posted voucher is never removed'); END;
