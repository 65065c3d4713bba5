package main

import (
	"context"
	"database/sql"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// samples are the sample books by name. Each call makes the same ones.
var samples = map[string]func() []sampleBook{
	"acme":   acmeBooks,
	"globex": globexBooks,
}

// sampleBook is one company's books for a year: its vouchers by day.
type sampleBook struct {
	company  NewCompany
	accounts []Account // beyond the standard chart
	vouchers []Voucher
}

// Seed writes the sample books of that name, all or nothing, unless there are
// books already.
func (s *Store) Seed(ctx context.Context, name string) error {
	sample, ok := samples[name]
	if !ok {
		return fmt.Errorf("no sample %q: there are %s", name, strings.Join(slices.Sorted(maps.Keys(samples)), " and "))
	}
	err := inTx(ctx, s.db, func(tx *sql.Tx) error {
		var companies int
		if err := tx.QueryRowContext(ctx, `SELECT count(*) FROM companies`).Scan(&companies); err != nil || companies > 0 {
			return err
		}
		for _, book := range sample() {
			if err := insertBook(ctx, tx, book); err != nil {
				return fmt.Errorf("%s: %w", book.company.Name, err)
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("write sample %q: %w", name, err)
	}
	return nil
}

func insertBook(ctx context.Context, tx *sql.Tx, book sampleBook) error {
	id, err := insertCompany(ctx, tx, book.company)
	if err != nil {
		return err
	}
	if err := insertAccounts(ctx, tx, id, book.accounts); err != nil {
		return err
	}
	chart, err := accounts(ctx, tx, id)
	if err != nil {
		return err
	}
	for _, v := range book.vouchers {
		v.Company = id
		v.PostedAt = v.Date.Time().Add(16 * time.Hour)
		if _, err := insertVoucher(ctx, tx, v, chart); err != nil {
			return fmt.Errorf("voucher %q of %s: %w", v.Text, v.Date, err)
		}
	}
	return nil
}
