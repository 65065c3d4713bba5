package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

// formRows is how many empty lines a voucher's form begins with, and how many
// "More lines" adds.
const (
	formRows = 4
	moreRows = 4
)

// readForm reads r's form of at most maxBody bytes.
func readForm(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	err := r.ParseForm()
	var tooLong *http.MaxBytesError
	if err != nil && !errors.As(err, &tooLong) {
		return statusError{http.StatusBadRequest, "The form cannot be read."}
	}
	return err
}

// field is what was typed into a field of r's form.
func field(r *http.Request, name string) string { return strings.TrimSpace(r.PostForm.Get(name)) }

// companyForm is the form for a new company, as it was typed.
type companyForm struct {
	NewCompany
	Currencies []string
	Flaws      Invalid
}

// showCompanyForm: GET /companies/new
func (a *App) showCompanyForm(w http.ResponseWriter, r *http.Request) error {
	form := companyForm{NewCompany: NewCompany{Currency: "EUR", Chart: "standard"}, Currencies: currencies}
	a.render(w, r, http.StatusOK, "company-new.html", view{Heading: "New company", Body: form})
	return nil
}

// foundCompany: POST /companies/new
func (a *App) foundCompany(w http.ResponseWriter, r *http.Request) error {
	if err := readForm(w, r); err != nil {
		return err
	}
	form := companyForm{Currencies: currencies}
	form.NewCompany = NewCompany{Name: field(r, "name"), Currency: field(r, "currency"), Chart: field(r, "chart")}
	c, err := a.store.AddCompany(r.Context(), form.NewCompany)
	switch {
	case errors.As(err, &form.Flaws):
		a.render(w, r, http.StatusUnprocessableEntity, "company-new.html", view{Heading: "New company", Body: form})
		return nil
	case err != nil:
		return err
	}
	http.Redirect(w, r, fmt.Sprintf("/companies/%d", c.ID), http.StatusSeeOther)
	return nil
}

// accountsPage is a chart of accounts with the form that adds to it.
type accountsPage struct {
	Groups []accountGroup
	At     Date // of the balances
	Kinds  []Kind
	Form   Account // as it was typed
	Flaws  Invalid
}

// accountGroup is the accounts of one kind.
type accountGroup struct {
	Kind     Kind
	Accounts []accountRow
	Balance  Cents // of all, debits less credits
}

type accountRow struct {
	Account
	Balance Cents // debits less credits
}

// showAccounts: GET /companies/{company}/accounts
func (a *App) showAccounts(w http.ResponseWriter, r *http.Request) error {
	return a.renderAccounts(w, r, http.StatusOK, Account{Kind: Expense}, nil)
}

func (a *App) renderAccounts(w http.ResponseWriter, r *http.Request, status int, form Account, flaws Invalid) error {
	v, err := a.companyView(r, "Accounts", "accounts")
	if err != nil {
		return err
	}
	chart, err := a.store.Accounts(r.Context(), v.Company.ID)
	if err != nil {
		return err
	}
	at := a.latest(*v.Company)
	trial, err := a.store.TrialBalance(r.Context(), *v.Company, at)
	if err != nil {
		return err
	}
	v.Body = accountsPage{Groups: groupAccounts(chart, trial), At: at, Kinds: kinds, Form: form, Flaws: flaws}
	a.render(w, r, status, "accounts.html", v)
	return nil
}

// groupAccounts puts chart's accounts with their balances under their kinds.
func groupAccounts(chart []Account, trial TrialBalance) []accountGroup {
	balances := make(map[string]Cents, len(trial.Rows))
	for _, row := range trial.Rows {
		balances[row.Number] = row.Debit - row.Credit
	}
	var groups []accountGroup
	for _, kind := range kinds {
		group := accountGroup{Kind: kind}
		for _, account := range chart {
			if account.Kind == kind {
				group.Accounts = append(group.Accounts, accountRow{account, balances[account.Number]})
				group.Balance += balances[account.Number]
			}
		}
		if len(group.Accounts) > 0 {
			groups = append(groups, group)
		}
	}
	return groups
}

// submitAccount: POST /companies/{company}/accounts
func (a *App) submitAccount(w http.ResponseWriter, r *http.Request) error {
	c, err := a.company(r)
	if err != nil {
		return err
	}
	if err := readForm(w, r); err != nil {
		return err
	}
	account := Account{Number: field(r, "number"), Name: field(r, "name"), Kind: Kind(field(r, "kind"))}
	err = a.store.AddAccount(r.Context(), c.ID, account)
	var flaws Invalid
	switch {
	case errors.As(err, &flaws):
		return a.renderAccounts(w, r, http.StatusUnprocessableEntity, account, flaws)
	case err != nil:
		return err
	}
	http.Redirect(w, r, fmt.Sprintf("/companies/%d/accounts#a%s", c.ID, account.Number), http.StatusSeeOther)
	return nil
}

// adoptChart: POST /companies/{company}/accounts/standard
func (a *App) adoptChart(w http.ResponseWriter, r *http.Request) error {
	c, err := a.company(r)
	if err != nil {
		return err
	}
	if err := a.store.AdoptStandardChart(r.Context(), c.ID); err != nil {
		return err
	}
	http.Redirect(w, r, fmt.Sprintf("/companies/%d/accounts", c.ID), http.StatusSeeOther)
	return nil
}

// voucherForm is the form for a new voucher, as it was typed.
type voucherForm struct {
	Date      string
	Text      string
	Reference string
	Rows      []voucherRow
	Accounts  []Account // to choose from
	Flaws     Invalid   // pointers as for the voucher: row i is its line i
}

type voucherRow struct{ Account, Debit, Credit string }

func (row voucherRow) blank() bool { return row == voucherRow{} }

// Sums adds up the amounts typed so far, those that can be read.
func (f voucherForm) Sums() Balance {
	var b Balance
	for _, row := range f.Rows {
		debit, _ := ParseCents(row.Debit)
		credit, _ := ParseCents(row.Credit)
		b.Debit += debit
		b.Credit += credit
	}
	return b
}

// showVoucherForm: GET /companies/{company}/vouchers/new?reverse=ID
//
// With reverse the form is filled with what undoes that voucher.
func (a *App) showVoucherForm(w http.ResponseWriter, r *http.Request) error {
	c, err := a.company(r)
	if err != nil {
		return err
	}
	form := voucherForm{Date: string(dateOf(a.now()))}
	id, err := queryInt(r, "reverse", 0)
	if err != nil {
		return err
	}
	if id != 0 {
		v, err := a.store.Voucher(r.Context(), c.ID, id)
		if err != nil {
			return err
		}
		form.Text, form.Reference = "Reversal of "+v.Number, v.Number
		for _, l := range v.Lines {
			form.Rows = append(form.Rows, voucherRow{l.Account, amount(l.Credit), amount(l.Debit)})
		}
	}
	form.pad(formRows)
	return a.renderVoucherForm(w, r, http.StatusOK, form)
}

// pad adds empty rows up to n of them.
func (f *voucherForm) pad(n int) {
	for len(f.Rows) < min(n, maxLines) {
		f.Rows = append(f.Rows, voucherRow{})
	}
}

func (a *App) renderVoucherForm(w http.ResponseWriter, r *http.Request, status int, form voucherForm) error {
	v, err := a.companyView(r, "New voucher", "new")
	if err != nil {
		return err
	}
	v.Live = false // nothing may change under the hands of who is typing
	if form.Accounts, err = a.store.Accounts(r.Context(), v.Company.ID); err != nil {
		return err
	}
	v.Body = form
	a.render(w, r, status, "voucher-new.html", v)
	return nil
}

// submitVoucher: POST /companies/{company}/vouchers/new
func (a *App) submitVoucher(w http.ResponseWriter, r *http.Request) error {
	c, err := a.company(r)
	if err != nil {
		return err
	}
	if err := readForm(w, r); err != nil {
		return err
	}
	form := readVoucherForm(r)
	if field(r, "action") == "more" {
		form.pad(max(len(form.Rows)+moreRows, formRows+moreRows))
		return a.renderVoucherForm(w, r, http.StatusOK, form)
	}
	v, flaws := form.voucher()
	if flaws == nil {
		v.PostedBy = a.login(r)
		v, err = a.store.Post(r.Context(), c.ID, v, a.now())
		if err == nil {
			http.Redirect(w, r, fmt.Sprintf("/companies/%d/vouchers/%d?posted", c.ID, v.ID), http.StatusSeeOther)
			return nil
		}
		if !errors.As(err, &flaws) {
			return err
		}
	}
	form.Flaws = flaws
	form.pad(max(len(form.Rows), formRows))
	return a.renderVoucherForm(w, r, http.StatusUnprocessableEntity, form)
}

// readVoucherForm takes what was typed from r's form, leaving blank rows out,
// so that row i is line i.
func readVoucherForm(r *http.Request) voucherForm {
	form := voucherForm{Date: field(r, "date"), Text: field(r, "text"), Reference: field(r, "reference")}
	debits, credits := r.PostForm["debit"], r.PostForm["credit"]
	for i, account := range r.PostForm["account"] {
		if i >= len(debits) || i >= len(credits) {
			break
		}
		row := voucherRow{strings.TrimSpace(account), strings.TrimSpace(debits[i]), strings.TrimSpace(credits[i])}
		if !row.blank() {
			form.Rows = append(form.Rows, row)
		}
	}
	return form
}

// voucher is the voucher that f describes, or the amounts that cannot be read.
func (f voucherForm) voucher() (v Voucher, flaws Invalid) {
	v = Voucher{Date: Date(f.Date), Text: f.Text, Reference: f.Reference}
	for i, row := range f.Rows {
		line := Line{Account: row.Account}
		for _, side := range []struct {
			name  string
			typed string
			to    *Cents
		}{{"debit", row.Debit, &line.Debit}, {"credit", row.Credit, &line.Credit}} {
			if side.typed == "" {
				continue
			}
			var err error
			if *side.to, err = ParseCents(side.typed); err != nil {
				flaws.add(fmt.Sprintf("#/lines/%d/%s_cents", i, side.name), "line %d: the %s %q is %v", i+1, side.name, side.typed, err)
			}
		}
		v.Lines = append(v.Lines, line)
	}
	return v, flaws
}
