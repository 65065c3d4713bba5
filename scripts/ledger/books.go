package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Company keeps one set of books in one currency.
type Company struct {
	ID       int64  `json:"id"`
	Name     string `json:"name"`
	Currency string `json:"currency"` // ISO 4217, one of currencies

	Vouchers    int  `json:"vouchers"`               // how many are posted
	LastVoucher Date `json:"last_voucher,omitempty"` // the latest voucher's day; absent if none is posted
}

// NewCompany is what founding a company takes.
type NewCompany struct {
	Name     string `json:"name"`
	Currency string `json:"currency"`
	Chart    string `json:"chart"` // "standard" begins with the standard chart of accounts; "" with none
}

// currencies are those that the books can be kept in: each has two decimals.
var currencies = []string{"CHF", "CZK", "DKK", "EUR", "GBP", "NOK", "PLN", "SEK", "USD"}

// Kind says which side of the accounts an account belongs to.
type Kind string

const (
	Asset     Kind = "asset"
	Liability Kind = "liability"
	Equity    Kind = "equity"
	Income    Kind = "income"
	Expense   Kind = "expense"
)

// kinds in the order of the statements.
var kinds = []Kind{Asset, Liability, Equity, Income, Expense}

// Account is one account of a company's chart. Its number is three to six
// digits, unique in the company; charts are ordered by number as text.
type Account struct {
	Number string `json:"number"`
	Name   string `json:"name"`
	Kind   Kind   `json:"kind"`
}

// Voucher is one posting: two or more lines whose debits equal their credits.
// A posted voucher is never changed; a mistake is put right by another voucher.
type Voucher struct {
	ID        int64     `json:"id"`
	Company   int64     `json:"company"`
	Number    string    `json:"number"` // the year and a serial number without gaps: 2026-0042
	Date      Date      `json:"date"`
	Text      string    `json:"text"`
	Reference string    `json:"reference,omitempty"` // the number on the document, if it has one
	PostedAt  time.Time `json:"posted_at"`
	PostedBy  string    `json:"posted_by,omitempty"` // login of who did; absent if nobody was signed in
	Lines     []Line    `json:"lines"`
}

// Line books an amount on one side of an account; the other side is zero.
type Line struct {
	Account string `json:"account"`
	Name    string `json:"name,omitempty"` // the account's name, as the books tell it
	Debit   Cents  `json:"debit_cents"`
	Credit  Cents  `json:"credit_cents"`
}

const (
	maxLines = 200
	maxText  = 200 // characters
)

// Total is the sum of v's debits, which is that of its credits too.
func (v Voucher) Total() Cents {
	debit, _ := v.sums()
	return debit
}

func (v Voucher) sums() (debit, credit Cents) {
	for _, l := range v.Lines {
		debit, credit = debit+l.Debit, credit+l.Credit
	}
	return debit, credit
}

// ErrNotFound says that the books hold no such thing.
var ErrNotFound = errors.New("not found")

// Flaw is one thing wrong with what was sent. Pointer names the field as a URI
// fragment holding a JSON Pointer (RFC 6901, section 6): "#/lines/0/account".
type Flaw struct {
	Pointer string `json:"pointer"`
	Detail  string `json:"detail"`
}

// Invalid is the error that lists all that is wrong with what was sent.
type Invalid []Flaw

func (e Invalid) Error() string {
	details := make([]string, len(e))
	for i, f := range e {
		details[i] = f.Detail
	}
	return strings.Join(details, "; ")
}

// At says what is wrong with the field that pointer names, "" if nothing is.
func (e Invalid) At(pointer string) string {
	for _, f := range e {
		if f.Pointer == pointer {
			return f.Detail
		}
	}
	return ""
}

// add notes a flaw.
func (e *Invalid) add(pointer, format string, args ...any) {
	*e = append(*e, Flaw{pointer, fmt.Sprintf(format, args...)})
}

// err is e, or nil if nothing is wrong.
func (e Invalid) err() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// checkText wants s to be a line of at most maxText visible characters, and
// not empty if it is required.
func (e *Invalid) checkText(pointer, what, s string, required bool) {
	switch {
	case required && strings.TrimSpace(s) == "":
		e.add(pointer, "%s is missing", what)
	case utf8.RuneCountInString(s) > maxText:
		e.add(pointer, "%s is longer than %d characters", what, maxText)
	case !utf8.ValidString(s) || strings.ContainsFunc(s, unicode.IsControl):
		e.add(pointer, "%s holds characters that cannot be printed", what)
	}
}

// check reports what is wrong with c, as an Invalid error.
func (c NewCompany) check() error {
	var flaws Invalid
	flaws.checkText("#/name", "the name", c.Name, true)
	if !slices.Contains(currencies, c.Currency) {
		flaws.add("#/currency", "the currency must be one of %s", strings.Join(currencies, ", "))
	}
	if c.Chart != "" && c.Chart != "standard" {
		flaws.add("#/chart", `the chart must be "standard" or empty`)
	}
	return flaws.err()
}

// check reports what is wrong with a, as an Invalid error.
func (a Account) check() error {
	var flaws Invalid
	if !isDigits(a.Number) || len(a.Number) < 3 || len(a.Number) > 6 {
		flaws.add("#/number", "the number must be three to six digits")
	}
	flaws.checkText("#/name", "the name", a.Name, true)
	if !slices.Contains(kinds, a.Kind) {
		flaws.add("#/kind", "the kind must be one of asset, liability, equity, income, expense")
	}
	return flaws.err()
}

// check reports what is wrong with v, as an Invalid error; exists tells which
// accounts there are.
func (v Voucher) check(exists func(account string) bool) error {
	var flaws Invalid
	if _, err := ParseDate(string(v.Date)); err != nil {
		flaws.add("#/date", "the date is %v", err)
	}
	flaws.checkText("#/text", "the text", v.Text, true)
	flaws.checkText("#/reference", "the reference", v.Reference, false)
	if n := len(v.Lines); n < 2 || n > maxLines {
		flaws.add("#/lines", "a voucher has 2 to %d lines, this one has %d", maxLines, n)
		return flaws
	}
	sound := true
	for i, l := range v.Lines {
		at := fmt.Sprintf("#/lines/%d", i)
		switch {
		case l.Account == "":
			flaws.add(at+"/account", "line %d: the account is missing", i+1)
		case !exists(l.Account):
			flaws.add(at+"/account", "line %d: there is no account %q", i+1, l.Account)
		}
		if detail := l.amountFlaw(); detail != "" {
			flaws.add(at+"/debit_cents", "line %d: %s", i+1, detail)
			sound = false
		}
	}
	// Amounts that are wrong one by one make any statement on their sum noise.
	if debit, credit := v.sums(); sound && debit != credit {
		flaws.add("#/lines", "the voucher does not balance: debits are %v, credits %v, a difference of %v",
			debit, credit, max(debit-credit, credit-debit))
	}
	return flaws.err()
}

// amountFlaw says what is wrong with l's amounts, "" if nothing is.
func (l Line) amountFlaw() string {
	switch {
	case l.Debit < 0 || l.Credit < 0:
		return "amounts are never negative; use the other side"
	case l.Debit > maxAmount || l.Credit > maxAmount:
		return "the amount is more than " + maxAmount.String()
	case l.Debit == 0 && l.Credit == 0:
		return "enter a debit or a credit"
	case l.Debit != 0 && l.Credit != 0:
		return "enter a debit or a credit, not both"
	}
	return ""
}

// TrialBalance lists every account that was booked on up to the end of a day.
type TrialBalance struct {
	Company  int64        `json:"company"`
	Currency string       `json:"currency"`
	At       Date         `json:"at"`
	Rows     []BalanceRow `json:"rows"`
	Totals   Balance      `json:"totals"` // debits equal credits, in turnover and in balance
}

// Balance is what was booked on an account and what is left of it. Of the two
// balances, one is zero.
type Balance struct {
	Debit         Cents `json:"debit_cents"`
	Credit        Cents `json:"credit_cents"`
	DebitBalance  Cents `json:"debit_balance_cents"`
	CreditBalance Cents `json:"credit_balance_cents"`
}

// BalanceRow is one account of a trial balance.
type BalanceRow struct {
	Account
	Balance
}

// add takes row into the trial balance and its totals.
func (t *TrialBalance) add(row BalanceRow) {
	row.DebitBalance = max(row.Debit-row.Credit, 0)
	row.CreditBalance = max(row.Credit-row.Debit, 0)
	t.Rows = append(t.Rows, row)
	t.Totals.Debit += row.Debit
	t.Totals.Credit += row.Credit
	t.Totals.DebitBalance += row.DebitBalance
	t.Totals.CreditBalance += row.CreditBalance
}

// Of is the balance of all accounts of a kind, positive on the side where that
// kind's accounts grow.
func (t TrialBalance) Of(kind Kind) Cents {
	var sum Cents
	for _, row := range t.Rows {
		if row.Kind == kind {
			sum += row.Debit - row.Credit
		}
	}
	if kind == Asset || kind == Expense {
		return sum
	}
	return -sum
}

// Result is income less expenses.
func (t TrialBalance) Result() Cents { return t.Of(Income) - t.Of(Expense) }
