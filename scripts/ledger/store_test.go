package main

import (
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"pgregory.net/rapid"
)

var testTime = time.Date(2026, 3, 31, 9, 30, 0, 0, time.UTC)

// openTest opens empty books that the test's end closes.
func openTest(t *testing.T) *Store {
	t.Helper()
	s, err := OpenStore(t.Context(), filepath.Join(t.TempDir(), "books.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// found founds a company with the standard chart.
func found(t *testing.T, s *Store) Company {
	t.Helper()
	c, err := s.AddCompany(t.Context(), NewCompany{Name: "Test & Sons", Currency: "EUR", Chart: "standard"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// rent is a voucher without flaw.
func rent() Voucher {
	return Voucher{Date: "2026-03-01", Text: "Rent March", Reference: "R-1", Lines: []Line{
		{Account: "6200", Debit: 1_000_00}, {Account: "1400", Debit: 200_00}, {Account: "1100", Credit: 1_200_00},
	}}
}

func TestVoucherCheck(t *testing.T) {
	exists := func(account string) bool { return account != "9999" }
	for _, tt := range []struct {
		name    string
		change  func(*Voucher)
		pointer string // of the only flaw; "" if there is none
		detail  string
	}{
		{"sound", func(*Voucher) {}, "", ""},
		{"no date", func(v *Voucher) { v.Date = "" }, "#/date", "not a date"},
		{"impossible date", func(v *Voucher) { v.Date = "2026-02-30" }, "#/date", "not a date"},
		{"no text", func(v *Voucher) { v.Text = "  " }, "#/text", "missing"},
		{"long text", func(v *Voucher) { v.Text = strings.Repeat("ä", maxText+1) }, "#/text", "longer than 200"},
		{"line break", func(v *Voucher) { v.Reference = "a\nb" }, "#/reference", "cannot be printed"},
		{"one line", func(v *Voucher) { v.Lines = v.Lines[:1] }, "#/lines", "this one has 1"},
		{"too many lines", func(v *Voucher) { v.Lines = make([]Line, maxLines+1) }, "#/lines", "this one has 201"},
		{"unknown account", func(v *Voucher) { v.Lines[1].Account = "9999" }, "#/lines/1/account", `line 2: there is no account "9999"`},
		{"no account", func(v *Voucher) { v.Lines[0].Account = "" }, "#/lines/0/account", "missing"},
		{"unbalanced", func(v *Voucher) { v.Lines[2].Credit = 1_199_99 }, "#/lines", "debits are 1,200.00, credits 1,199.99, a difference of 0.01"},
		{"no amount", func(v *Voucher) { v.Lines[1].Debit = 0 }, "#/lines/1/debit_cents", "enter a debit or a credit"},
		{"both amounts", func(v *Voucher) { v.Lines[1].Credit = 1 }, "#/lines/1/debit_cents", "not both"},
		{"negative", func(v *Voucher) { v.Lines[1].Debit = -200_00 }, "#/lines/1/debit_cents", "never negative"},
		{"too much", func(v *Voucher) { v.Lines[1].Debit = maxAmount + 1 }, "#/lines/1/debit_cents", "more than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := rent()
			tt.change(&v)
			err := v.check(exists)
			var flaws Invalid
			if tt.pointer == "" {
				if err != nil {
					t.Errorf("got %v, want no flaw", err)
				}
				return
			}
			if !errors.As(err, &flaws) || len(flaws) != 1 {
				t.Fatalf("got %v, want one flaw", err)
			}
			if flaws[0].Pointer != tt.pointer || !strings.Contains(flaws[0].Detail, tt.detail) {
				t.Errorf("got %q, want %q with %q", flaws[0], tt.pointer, tt.detail)
			}
		})
	}
}

// TestBooksStayBalanced posts vouchers as they come, sound and unsound, and
// holds the books to a plain sum of those that were taken.
func TestBooksStayBalanced(t *testing.T) {
	s := openTest(t)
	numbers := []string{"1000", "1100", "2000", "4000", "6200", "9999"}
	rapid.Check(t, func(rt *rapid.T) {
		c := found(t, s)
		want := make(map[string]Cents)
		taken := 0
		for range rapid.IntRange(1, 6).Draw(rt, "vouchers") {
			v := drawVoucher(rt, numbers)
			got, err := s.Post(t.Context(), c.ID, v, testTime)
			debit, credit := v.sums()
			sound := debit == credit && len(v.Lines) >= 2
			for _, l := range v.Lines {
				sound = sound && l.Account != "9999" && (l.Debit > 0) != (l.Credit > 0)
			}
			if sound != (err == nil) {
				rt.Fatalf("post %+v: got error %v, want it taken: %v", v.Lines, err, sound)
			}
			if err != nil {
				continue
			}
			taken++
			if want := voucherNumber("2026", taken); got.Number != want {
				rt.Fatalf("got number %s, want %s", got.Number, want)
			}
			for _, l := range v.Lines {
				want[l.Account] += l.Debit - l.Credit
			}
		}
		trial, err := s.TrialBalance(t.Context(), c, "2026-12-31")
		if err != nil {
			rt.Fatal(err)
		}
		if trial.Totals.Debit != trial.Totals.Credit || trial.Totals.DebitBalance != trial.Totals.CreditBalance {
			rt.Fatalf("got totals %+v, want equal ones", trial.Totals)
		}
		for _, row := range trial.Rows {
			if got := row.DebitBalance - row.CreditBalance; got != want[row.Number] || row.DebitBalance != 0 && row.CreditBalance != 0 {
				rt.Fatalf("account %s: got balance %+v, want %v", row.Number, row.Balance, want[row.Number])
			}
			delete(want, row.Number)
		}
		if len(want) > 0 {
			rt.Fatalf("the trial balance lacks %v", want)
		}
		if left := trial.Of(Asset) + trial.Of(Expense) - trial.Of(Liability) - trial.Of(Equity) - trial.Of(Income); left != 0 {
			rt.Fatalf("the kinds differ by %v", left)
		}
	})
}

// drawVoucher draws lines and, mostly, one more that balances them.
func drawVoucher(t *rapid.T, accounts []string) Voucher {
	v := Voucher{Date: "2026-05-05", Text: "drawn"}
	account := rapid.SampledFrom(accounts)
	if rapid.IntRange(0, 4).Draw(t, "account unknown") > 0 {
		account = rapid.SampledFrom(accounts[:len(accounts)-1])
	}
	for range rapid.IntRange(1, 5).Draw(t, "lines") {
		l := Line{Account: account.Draw(t, "account")}
		cents := Cents(rapid.Int64Range(0, 1_000_000_00).Draw(t, "cents"))
		if rapid.Bool().Draw(t, "debit") {
			l.Debit = cents
		} else {
			l.Credit = cents
		}
		v.Lines = append(v.Lines, l)
	}
	if rapid.IntRange(0, 4).Draw(t, "unbalanced") > 0 {
		debit, credit := v.sums()
		v.Lines = append(v.Lines, Line{Account: account.Draw(t, "account"), Debit: max(credit-debit, 0), Credit: max(debit-credit, 0)})
	}
	return v
}

func TestPostedStays(t *testing.T) {
	s := openTest(t)
	c := found(t, s)
	v, err := s.Post(t.Context(), c.ID, rent(), testTime)
	if err != nil {
		t.Fatal(err)
	}
	for _, statement := range []string{
		`UPDATE vouchers SET text = 'forged'`, `DELETE FROM vouchers`, `UPDATE lines SET debit_cents = 1`, `DELETE FROM lines`,
		`INSERT INTO lines VALUES (1, 1, 9, '1000', 0, 0)`, `INSERT INTO lines VALUES (1, 1, 9, '9999', 1, 0)`,
	} {
		if _, err := s.db.Exec(statement); err == nil {
			t.Errorf("%s: got no error", statement)
		}
	}
	got, err := s.Voucher(t.Context(), c.ID, v.ID)
	if err != nil {
		t.Fatal(err)
	}
	if got.Text != v.Text || got.Number != "2026-0001" || len(got.Lines) != 3 || !got.PostedAt.Equal(testTime) {
		t.Errorf("got %+v, want %+v", got, v)
	}
	if _, err := s.Voucher(t.Context(), c.ID+1, v.ID); !errors.Is(err, ErrNotFound) {
		t.Errorf("the voucher under another company: got error %v, want %v", err, ErrNotFound)
	}
}

func TestEntriesCarryForward(t *testing.T) {
	s := openTest(t)
	c := found(t, s)
	for _, date := range []Date{"2025-12-31", "2026-01-15", "2026-01-10"} {
		v := rent()
		v.Date = date
		if _, err := s.Post(t.Context(), c.ID, v, testTime); err != nil {
			t.Fatal(err)
		}
	}
	carried, entries, err := s.Entries(t.Context(), c.ID, "1100", "2026")
	if err != nil {
		t.Fatal(err)
	}
	if carried != -1_200_00 || len(entries) != 2 {
		t.Fatalf("got %v carried forward and %d entries, want −1,200.00 and 2", carried, len(entries))
	}
	if e := entries[0]; e.Date != "2026-01-10" || e.Number != "2026-0002" || e.Balance != -2_400_00 {
		t.Errorf("got the first entry %+v", e)
	}
	if e := entries[1]; e.Balance != -3_600_00 {
		t.Errorf("got the last balance %v, want −3,600.00", e.Balance)
	}
}

func TestOpenMigratesExistingFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "books ?100%.db")
	first, err := migrations.ReadFile("migrations/0001_books.sql")
	if err != nil {
		t.Fatal(err)
	}
	execFile(t, path, func(db *sql.DB) error {
		old := fstest.MapFS{"migrations/0001_books.sql": {Data: first}}
		if err := migrate(t.Context(), db, old); err != nil {
			return err
		}
		_, err := db.Exec(`INSERT INTO companies VALUES (7, 'Old Ltd', 'GBP');
			INSERT INTO accounts VALUES (7, '1000', 'Cash', 'asset'), (7, '3000', 'Capital', 'equity');
			INSERT INTO vouchers VALUES (1, 7, 2025, 1, '2025-01-01', 'Opening', '2025-01-01T08:00:00Z');
			INSERT INTO lines VALUES (7, 1, 0, '1000', 500, 0), (7, 1, 1, '3000', 0, 500)`)
		return err
	})
	for range 2 {
		s, err := OpenStore(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		v, err := s.Voucher(t.Context(), 7, 1)
		if err != nil {
			t.Fatal(err)
		}
		if v.Text != "Opening" || v.Reference != "" || v.Total() != 500 {
			t.Errorf("got %+v", v)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenMakesPrivateFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "books.db")
	s, err := OpenStore(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	st, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := st.Mode(), os.FileMode(0o600); got != want {
		t.Errorf("got mode %v, want %v", got, want)
	}
	var journal string
	var synchronous int
	if err := s.db.QueryRow(`SELECT journal_mode, synchronous FROM pragma_journal_mode, pragma_synchronous`).Scan(&journal, &synchronous); err != nil {
		t.Fatal(err)
	}
	if journal != "wal" || synchronous != 2 {
		t.Errorf("got journal mode %s, synchronous %d, want wal, 2 (FULL)", journal, synchronous)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name    string
		prepare string
		want    string
	}{
		{"a newer schema", `PRAGMA application_id = 0x4c454447; PRAGMA user_version = 99`, "schema version 99, this program knows up to 3"},
		{"another program's file", `CREATE TABLE theirs (x)`, "belongs to another program"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "books.db")
			execFile(t, path, func(db *sql.DB) error {
				_, err := db.Exec(tt.prepare)
				return err
			})
			if _, err := OpenStore(t.Context(), path); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got error %v, want one with %q", err, tt.want)
			}
		})
	}
	t.Run("no database", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "books.db")
		if err := os.WriteFile(path, []byte(strings.Repeat("not a database ", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenStore(t.Context(), path); err == nil || !strings.Contains(err.Error(), "not a database") {
			t.Errorf("got error %v", err)
		}
	})
}

// TestMigrationIsWhole wants a migration that fails half way to leave nothing.
func TestMigrationIsWhole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "books.db")
	execFile(t, path, func(db *sql.DB) error {
		err := migrate(t.Context(), db, fstest.MapFS{"migrations/1.sql": {Data: []byte(`CREATE TABLE a (x); CREATE TABLE a (x)`)}})
		if err == nil {
			t.Error("got no error")
		}
		var tables, version int
		if err := db.QueryRow(`SELECT (SELECT count(*) FROM sqlite_schema), user_version FROM pragma_user_version`).Scan(&tables, &version); err != nil {
			return err
		}
		if tables != 0 || version != 0 {
			t.Errorf("got %d tables at version %d, want none", tables, version)
		}
		return nil
	})
}

// execFile runs do on the database in the file at path.
func execFile(t *testing.T, path string, do func(*sql.DB) error) {
	t.Helper()
	db, err := sql.Open("sqlite3", "file:"+strings.NewReplacer("%", "%25", "?", "%3f").Replace(path))
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(db), db.Close()); err != nil {
		t.Fatal(err)
	}
}

func TestSeed(t *testing.T) {
	for _, tt := range []struct {
		name      string
		companies []string
		least     int // vouchers in each company
	}{
		{"acme", []string{"Acme Interiors", "Acme Joinery"}, 400},
		{"globex", []string{"Globex Trading"}, 600},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := openTest(t)
			if err := s.Seed(t.Context(), tt.name); err != nil {
				t.Fatal(err)
			}
			first := dump(t, s)
			if err := s.Seed(t.Context(), tt.name); err != nil {
				t.Fatal(err)
			}
			if got := dump(t, s); got != first {
				t.Error("seeding twice changed the books")
			}
			other := openTest(t)
			if err := other.Seed(t.Context(), tt.name); err != nil {
				t.Fatal(err)
			}
			if dump(t, other) != first {
				t.Error("two seeds differ")
			}
			companies, err := s.Companies(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if len(companies) != len(tt.companies) {
				t.Fatalf("got %d companies, want %d", len(companies), len(tt.companies))
			}
			for i, c := range companies {
				if c.Name != tt.companies[i] || c.Vouchers < tt.least {
					t.Errorf("got %+v, want %s with at least %d vouchers", c, tt.companies[i], tt.least)
				}
				checkPlausible(t, s, c)
			}
		})
	}
}

// checkPlausible wants books that balance each month, a year long, with money
// in the bank, nothing overpaid and a profit that is not absurd.
func checkPlausible(t *testing.T, s *Store, c Company) {
	t.Helper()
	months, err := s.Months(t.Context(), c.ID)
	if err != nil {
		t.Fatal(err)
	}
	if len(months) != 12 {
		t.Fatalf("%s: got vouchers in %d months, want 12", c.Name, len(months))
	}
	for _, m := range months {
		trial, err := s.TrialBalance(t.Context(), c, m.Month.Last())
		if err != nil {
			t.Fatal(err)
		}
		if trial.Totals.Debit != trial.Totals.Credit || trial.Totals.DebitBalance != trial.Totals.CreditBalance {
			t.Errorf("%s, %s: got totals %+v", c.Name, m.Month, trial.Totals)
		}
		for _, row := range trial.Rows {
			switch row.Number {
			case "1000", "1100", "1200":
				if row.CreditBalance > 0 {
					t.Errorf("%s, %s: account %s is %v short", c.Name, m.Month, row.Number, row.CreditBalance)
				}
			case "2000", "2250", "2500":
				if row.DebitBalance > 0 {
					t.Errorf("%s, %s: account %s is %v overpaid", c.Name, m.Month, row.Number, row.DebitBalance)
				}
			}
		}
		if m.Month != "2026-12" {
			continue
		}
		if result, income := trial.Result(), trial.Of(Income); result < 0 || result > income/4 {
			t.Errorf("%s: got a result of %v from an income of %v", c.Name, result, income)
		}
	}
}

// dump is all that the books hold, in words.
func dump(t *testing.T, s *Store) string {
	t.Helper()
	list, err := s.Vouchers(t.Context(), VoucherFilter{})
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, v := range list {
		b.WriteString(v.Number + string(v.Date) + v.Text + v.Reference + v.PostedAt.String())
		for _, l := range v.Lines {
			b.WriteString(l.Account + l.Debit.String() + l.Credit.String())
		}
	}
	return b.String()
}
