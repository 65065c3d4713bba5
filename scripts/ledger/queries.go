package main

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"
)

// Companies lists all companies by name.
func (s *Store) Companies(ctx context.Context) ([]Company, error) { return s.companies(ctx, 0) }

// Company is the company with that id, or ErrNotFound.
func (s *Store) Company(ctx context.Context, id int64) (Company, error) {
	list, err := s.companies(ctx, id)
	if err != nil {
		return Company{}, err
	}
	if id == 0 || len(list) == 0 {
		return Company{}, fmt.Errorf("company %d: %w", id, ErrNotFound)
	}
	return list[0], nil
}

// companies lists the company with that id, or all if it is 0.
func (s *Store) companies(ctx context.Context, id int64) ([]Company, error) {
	return scanAll(ctx, s.db, func(rows *sql.Rows, c *Company) error {
		return rows.Scan(&c.ID, &c.Name, &c.Currency, &c.Vouchers, &c.LastVoucher)
	}, `SELECT c.id, c.name, c.currency, count(v.id), ifnull(max(v.date), '')
		FROM companies c LEFT JOIN vouchers v ON v.company_id = c.id
		WHERE ?1 IN (0, c.id) GROUP BY c.id ORDER BY c.name, c.id`, id)
}

// AddCompany founds a company, with the accounts of the chart it names.
func (s *Store) AddCompany(ctx context.Context, c NewCompany) (Company, error) {
	if err := c.check(); err != nil {
		return Company{}, err
	}
	var id int64
	err := inTx(ctx, s.db, func(tx *sql.Tx) (err error) {
		id, err = insertCompany(ctx, tx, c)
		return err
	})
	if err != nil {
		return Company{}, err
	}
	return s.Company(ctx, id)
}

func insertCompany(ctx context.Context, tx *sql.Tx, c NewCompany) (int64, error) {
	res, err := tx.ExecContext(ctx, `INSERT INTO companies (name, currency) VALUES (?, ?)`, c.Name, c.Currency)
	if err != nil {
		return 0, fmt.Errorf("insert company %q: %w", c.Name, err)
	}
	id, err := res.LastInsertId()
	if err != nil || c.Chart == "" {
		return id, err
	}
	return id, insertAccounts(ctx, tx, id, standardChart)
}

func insertAccounts(ctx context.Context, tx *sql.Tx, company int64, accounts []Account) error {
	for _, a := range accounts {
		_, err := tx.ExecContext(ctx, `INSERT INTO accounts (company_id, number, name, kind) VALUES (?, ?, ?, ?)`,
			company, a.Number, a.Name, a.Kind)
		if err != nil {
			return fmt.Errorf("insert account %q: %w", a.Number, err)
		}
	}
	return nil
}

// Accounts lists a company's chart by number.
func (s *Store) Accounts(ctx context.Context, company int64) ([]Account, error) {
	return accounts(ctx, s.db, company)
}

func accounts(ctx context.Context, db querier, company int64) ([]Account, error) {
	return scanAll(ctx, db, func(rows *sql.Rows, a *Account) error {
		return rows.Scan(&a.Number, &a.Name, &a.Kind)
	}, `SELECT number, name, kind FROM accounts WHERE company_id = ? ORDER BY number`, company)
}

// Account is the account with that number, or ErrNotFound.
func (s *Store) Account(ctx context.Context, company int64, number string) (Account, error) {
	list, err := s.Accounts(ctx, company)
	if err != nil {
		return Account{}, err
	}
	for _, a := range list {
		if a.Number == number {
			return a, nil
		}
	}
	return Account{}, fmt.Errorf("account %q: %w", number, ErrNotFound)
}

// AddAccount adds an account to a company's chart. A number that is taken is
// an Invalid error.
func (s *Store) AddAccount(ctx context.Context, company int64, a Account) error {
	if err := a.check(); err != nil {
		return err
	}
	return inTx(ctx, s.db, func(tx *sql.Tx) error {
		chart, err := accounts(ctx, tx, company)
		if err != nil {
			return err
		}
		for _, taken := range chart {
			if taken.Number == a.Number {
				return Invalid{{"#/number", fmt.Sprintf("account %s exists already: %s", a.Number, taken.Name)}}
			}
		}
		return insertAccounts(ctx, tx, company, []Account{a})
	})
}

// AdoptStandardChart adds those accounts of the standard chart to a company's
// whose numbers are free.
func (s *Store) AdoptStandardChart(ctx context.Context, company int64) error {
	return inTx(ctx, s.db, func(tx *sql.Tx) error {
		chart, err := accounts(ctx, tx, company)
		if err != nil {
			return err
		}
		taken := make(map[string]bool, len(chart))
		for _, a := range chart {
			taken[a.Number] = true
		}
		var missing []Account
		for _, a := range standardChart {
			if !taken[a.Number] {
				missing = append(missing, a)
			}
		}
		return insertAccounts(ctx, tx, company, missing)
	})
}

// Post posts v to a company's books at the time now, and returns it with its
// id and number. What is wrong with v is an Invalid error; a company that does
// not exist is ErrNotFound.
func (s *Store) Post(ctx context.Context, company int64, v Voucher, now time.Time) (Voucher, error) {
	if _, err := s.Company(ctx, company); err != nil {
		return Voucher{}, err
	}
	v.Company, v.PostedAt = company, now
	err := inTx(ctx, s.db, func(tx *sql.Tx) (err error) {
		chart, err := accounts(ctx, tx, company)
		if err != nil {
			return err
		}
		v, err = insertVoucher(ctx, tx, v, chart)
		return err
	})
	if err != nil {
		return Voucher{}, err
	}
	s.posted.fire()
	return v, nil
}

// insertVoucher checks v against the chart and writes it under the next free
// number of its year. Of v's number, id and account names, nothing is used.
func insertVoucher(ctx context.Context, tx *sql.Tx, v Voucher, chart []Account) (Voucher, error) {
	names := make(map[string]string, len(chart))
	for _, a := range chart {
		names[a.Number] = a.Name
	}
	if err := v.check(func(account string) bool { return names[account] != "" }); err != nil {
		return Voucher{}, err
	}
	year := v.Date.Month().Year()
	var serial int
	err := tx.QueryRowContext(ctx, `INSERT INTO vouchers (company_id, year, serial, date, text, reference, posted_at, posted_by)
		VALUES (?1, ?2, (SELECT ifnull(max(serial), 0) + 1 FROM vouchers WHERE company_id = ?1 AND year = ?2), ?3, ?4, ?5, ?6, ?7)
		RETURNING id, serial`, v.Company, year, v.Date, v.Text, v.Reference, v.PostedAt.UTC().Format(time.RFC3339), v.PostedBy).Scan(&v.ID, &serial)
	if err != nil {
		return Voucher{}, fmt.Errorf("insert voucher: %w", err)
	}
	v.Number = voucherNumber(year, serial)
	v.PostedAt = v.PostedAt.UTC().Truncate(time.Second)
	lines := make([]Line, len(v.Lines))
	for i, l := range v.Lines {
		_, err := tx.ExecContext(ctx, `INSERT INTO lines (company_id, voucher_id, position, account, debit_cents, credit_cents)
			VALUES (?, ?, ?, ?, ?, ?)`, v.Company, v.ID, i, l.Account, l.Debit, l.Credit)
		if err != nil {
			return Voucher{}, fmt.Errorf("insert line %d: %w", i, err)
		}
		lines[i] = Line{l.Account, names[l.Account], l.Debit, l.Credit}
	}
	v.Lines = lines
	return v, nil
}

func voucherNumber(year string, serial int) string { return fmt.Sprintf("%s-%04d", year, serial) }

// VoucherFilter selects vouchers.
type VoucherFilter struct {
	Company int64 // If zero, those of all companies.
	After   int64 // Only ids above this one.
	From    Date  // If zero, from the first day on.
	To      Date  // If zero, to the last day.
	Limit   int   // If zero, without limit.
}

// Vouchers lists the vouchers that f selects, in the order of posting.
func (s *Store) Vouchers(ctx context.Context, f VoucherFilter) ([]Voucher, error) {
	if f.To == "" {
		f.To = "9999-12-31"
	}
	if f.Limit == 0 {
		f.Limit = -1
	}
	type row struct {
		Voucher
		Line
	}
	rows, err := scanAll(ctx, s.db, func(rows *sql.Rows, r *row) error {
		var year, posted string
		var serial int
		v, l := &r.Voucher, &r.Line
		err := rows.Scan(&v.ID, &v.Company, &year, &serial, &v.Date, &v.Text, &v.Reference, &posted, &v.PostedBy,
			&l.Account, &l.Name, &l.Debit, &l.Credit)
		if err != nil {
			return err
		}
		v.Number = voucherNumber(year, serial)
		v.PostedAt, err = time.Parse(time.RFC3339, posted)
		return err
	}, `SELECT v.id, v.company_id, v.year, v.serial, v.date, v.text, v.reference, v.posted_at, v.posted_by,
			l.account, a.name, l.debit_cents, l.credit_cents
		FROM (SELECT * FROM vouchers
			WHERE ?1 IN (0, company_id) AND id > ?2 AND date BETWEEN ?3 AND ?4
			ORDER BY id LIMIT ?5) v
		JOIN lines l ON l.voucher_id = v.id
		JOIN accounts a ON a.company_id = l.company_id AND a.number = l.account
		ORDER BY v.id, l.position`, f.Company, f.After, f.From, f.To, f.Limit)
	if err != nil {
		return nil, err
	}
	vouchers := []Voucher{}
	for _, r := range rows {
		if n := len(vouchers); n == 0 || vouchers[n-1].ID != r.Voucher.ID {
			vouchers = append(vouchers, r.Voucher)
		}
		last := &vouchers[len(vouchers)-1]
		last.Lines = append(last.Lines, r.Line)
	}
	return vouchers, nil
}

// Voucher is the company's voucher with that id, or ErrNotFound.
func (s *Store) Voucher(ctx context.Context, company, id int64) (Voucher, error) {
	list, err := s.Vouchers(ctx, VoucherFilter{Company: company, After: id - 1, Limit: 1})
	if err != nil {
		return Voucher{}, err
	}
	if company == 0 || len(list) == 0 || list[0].ID != id {
		return Voucher{}, fmt.Errorf("voucher %d: %w", id, ErrNotFound)
	}
	return list[0], nil
}

// Recent lists the n vouchers that a company posted last, newest first.
func (s *Store) Recent(ctx context.Context, company int64, n int) ([]Voucher, error) {
	var after int64
	err := s.db.QueryRowContext(ctx, `SELECT ifnull(min(id), 1) - 1
		FROM (SELECT id FROM vouchers WHERE company_id = ? ORDER BY id DESC LIMIT ?)`, company, n).Scan(&after)
	if err != nil {
		return nil, err
	}
	list, err := s.Vouchers(ctx, VoucherFilter{Company: company, After: after})
	slices.Reverse(list)
	return list, err
}

// Newest is the highest id of a voucher, 0 if there is none.
func (s *Store) Newest(ctx context.Context) (id int64, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT ifnull(max(id), 0) FROM vouchers`).Scan(&id)
	return id, err
}

// TrialBalance is a company's trial balance at the end of the day at.
func (s *Store) TrialBalance(ctx context.Context, c Company, at Date) (TrialBalance, error) {
	t := TrialBalance{Company: c.ID, Currency: c.Currency, At: at, Rows: []BalanceRow{}}
	rows, err := scanAll(ctx, s.db, func(rows *sql.Rows, r *BalanceRow) error {
		return rows.Scan(&r.Number, &r.Name, &r.Kind, &r.Debit, &r.Credit)
	}, `SELECT a.number, a.name, a.kind, sum(l.debit_cents), sum(l.credit_cents)
		FROM vouchers v
		JOIN lines l ON l.voucher_id = v.id
		JOIN accounts a ON a.company_id = l.company_id AND a.number = l.account
		WHERE v.company_id = ? AND v.date <= ?
		GROUP BY a.number ORDER BY a.number`, c.ID, at)
	for _, row := range rows {
		t.add(row)
	}
	return t, err
}

// MonthFigures sums up what a company posted in one month.
type MonthFigures struct {
	Month    Month
	Vouchers int
	Income   Cents
	Expenses Cents
}

// Result is income less expenses.
func (m MonthFigures) Result() Cents { return m.Income - m.Expenses }

// Months lists the months that a company has vouchers in.
func (s *Store) Months(ctx context.Context, company int64) ([]MonthFigures, error) {
	return scanAll(ctx, s.db, func(rows *sql.Rows, m *MonthFigures) error {
		return rows.Scan(&m.Month, &m.Vouchers, &m.Income, &m.Expenses)
	}, `SELECT substr(v.date, 1, 7) month, count(DISTINCT v.id),
			sum(CASE a.kind WHEN 'income' THEN l.credit_cents - l.debit_cents ELSE 0 END),
			sum(CASE a.kind WHEN 'expense' THEN l.debit_cents - l.credit_cents ELSE 0 END)
		FROM vouchers v
		JOIN lines l ON l.voucher_id = v.id
		JOIN accounts a ON a.company_id = l.company_id AND a.number = l.account
		WHERE v.company_id = ? GROUP BY month ORDER BY month`, company)
}

// Entry is one line on one account, with the account's balance after it
// (debits less credits).
type Entry struct {
	Voucher int64
	Number  string
	Date    Date
	Text    string
	Debit   Cents
	Credit  Cents
	Balance Cents
}

// Entries lists an account's lines of one year by day, after the balance that
// was carried into the year.
func (s *Store) Entries(ctx context.Context, company int64, account, year string) (carried Cents, entries []Entry, err error) {
	err = s.db.QueryRowContext(ctx, `SELECT ifnull(sum(l.debit_cents - l.credit_cents), 0)
		FROM lines l JOIN vouchers v ON v.id = l.voucher_id
		WHERE l.company_id = ? AND l.account = ? AND v.date < ?`, company, account, year+"-01-01").Scan(&carried)
	if err != nil {
		return 0, nil, err
	}
	entries, err = scanAll(ctx, s.db, func(rows *sql.Rows, e *Entry) error {
		var serial int
		err := rows.Scan(&e.Voucher, &serial, &e.Date, &e.Text, &e.Debit, &e.Credit)
		e.Number = voucherNumber(year, serial)
		return err
	}, `SELECT v.id, v.serial, v.date, v.text, l.debit_cents, l.credit_cents
		FROM lines l JOIN vouchers v ON v.id = l.voucher_id
		WHERE l.company_id = ? AND l.account = ? AND v.year = ?
		ORDER BY v.date, v.id, l.position`, company, account, year)
	balance := carried
	for i := range entries {
		balance += entries[i].Debit - entries[i].Credit
		entries[i].Balance = balance
	}
	return carried, entries, err
}

// querier is a *sql.DB or a *sql.Tx.
type querier interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// scanAll runs query and returns its rows, each read by scan; never nil
// without an error, so that JSON shows an empty list.
func scanAll[T any](ctx context.Context, db querier, scan func(*sql.Rows, *T) error, query string, args ...any) (_ []T, err error) {
	rows, err := db.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	list := []T{}
	for rows.Next() {
		var t T
		if err := scan(rows, &t); err != nil {
			return nil, err
		}
		list = append(list, t)
	}
	return list, rows.Err()
}
