package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
)

const maxBody = 1 << 20 // bytes of a request's body

// getCompanies: GET /api/companies
func (a *App) getCompanies(w http.ResponseWriter, r *http.Request) error {
	list, err := a.store.Companies(r.Context())
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Companies []Company `json:"companies"`
	}{list})
	return nil
}

// postCompany: POST /api/companies
func (a *App) postCompany(w http.ResponseWriter, r *http.Request) error {
	var c NewCompany
	if err := readJSON(w, r, &c); err != nil {
		return err
	}
	created, err := a.store.AddCompany(r.Context(), c)
	if err != nil {
		return err
	}
	w.Header().Set("Location", fmt.Sprintf("/api/companies/%d", created.ID))
	writeJSON(w, http.StatusCreated, created)
	return nil
}

// getCompany: GET /api/companies/{company}
func (a *App) getCompany(w http.ResponseWriter, r *http.Request) error {
	c, err := a.company(r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, c)
	return nil
}

// getAccounts: GET /api/companies/{company}/accounts
func (a *App) getAccounts(w http.ResponseWriter, r *http.Request) error {
	c, err := a.company(r)
	if err != nil {
		return err
	}
	list, err := a.store.Accounts(r.Context(), c.ID)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		Accounts []Account `json:"accounts"`
	}{list})
	return nil
}

// postAccount: POST /api/companies/{company}/accounts
func (a *App) postAccount(w http.ResponseWriter, r *http.Request) error {
	c, err := a.company(r)
	if err != nil {
		return err
	}
	var account Account
	if err := readJSON(w, r, &account); err != nil {
		return err
	}
	if err := a.store.AddAccount(r.Context(), c.ID, account); err != nil {
		return err
	}
	writeJSON(w, http.StatusCreated, account)
	return nil
}

// getVouchers: GET /api/companies/{company}/vouchers?from=&to=&after=&limit=
//
// They come in the order of posting, 100 at a time unless limit (at most 1000)
// says otherwise; next is the after of the next page, absent on the last.
func (a *App) getVouchers(w http.ResponseWriter, r *http.Request) error {
	c, err := a.company(r)
	if err != nil {
		return err
	}
	f := VoucherFilter{Company: c.ID}
	if f.From, err = queryDate(r, "from", ""); err != nil {
		return err
	}
	if f.To, err = queryDate(r, "to", ""); err != nil {
		return err
	}
	if f.After, err = queryInt(r, "after", 0); err != nil {
		return err
	}
	limit, err := queryInt(r, "limit", 100)
	if err != nil {
		return err
	}
	if limit < 1 || limit > 1000 {
		return statusError{http.StatusBadRequest, "limit must be 1 to 1000"}
	}
	// One more than asked for tells whether there is a next page.
	f.Limit = int(limit) + 1
	list, err := a.store.Vouchers(r.Context(), f)
	if err != nil {
		return err
	}
	var next int64
	if len(list) > int(limit) {
		list = list[:limit]
		next = list[limit-1].ID
	}
	writeJSON(w, http.StatusOK, struct {
		Vouchers []Voucher `json:"vouchers"`
		Next     int64     `json:"next,omitempty"`
	}{list, next})
	return nil
}

// postVoucher: POST /api/companies/{company}/vouchers
func (a *App) postVoucher(w http.ResponseWriter, r *http.Request) error {
	c, err := a.company(r)
	if err != nil {
		return err
	}
	var sent struct {
		Date      Date   `json:"date"`
		Text      string `json:"text"`
		Reference string `json:"reference"`
		Lines     []struct {
			Account string `json:"account"`
			Debit   Cents  `json:"debit_cents"`
			Credit  Cents  `json:"credit_cents"`
		} `json:"lines"`
	}
	if err := readJSON(w, r, &sent); err != nil {
		return err
	}
	v := Voucher{Date: sent.Date, Text: sent.Text, Reference: sent.Reference, PostedBy: a.login(r)}
	for _, l := range sent.Lines {
		v.Lines = append(v.Lines, Line{Account: l.Account, Debit: l.Debit, Credit: l.Credit})
	}
	posted, err := a.store.Post(r.Context(), c.ID, v, a.now())
	if err != nil {
		return err
	}
	w.Header().Set("Location", fmt.Sprintf("/api/companies/%d/vouchers/%d", c.ID, posted.ID))
	writeJSON(w, http.StatusCreated, posted)
	return nil
}

// getVoucher: GET /api/companies/{company}/vouchers/{voucher}
func (a *App) getVoucher(w http.ResponseWriter, r *http.Request) error {
	v, err := a.voucher(r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, v)
	return nil
}

// getTrialBalance: GET /api/companies/{company}/trial-balance?at=YYYY-MM-DD
//
// Without at it is that of the day of the latest voucher.
func (a *App) getTrialBalance(w http.ResponseWriter, r *http.Request) error {
	t, err := a.trialBalance(r)
	if err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, t)
	return nil
}

// getVisitor: GET /api/visitor
func (a *App) getVisitor(w http.ResponseWriter, r *http.Request) error {
	writeJSON(w, http.StatusOK, a.visitor(r))
	return nil
}

// company is the company that r's path names.
func (a *App) company(r *http.Request) (Company, error) {
	id, err := strconv.ParseInt(r.PathValue("company"), 10, 64)
	if err != nil {
		return Company{}, fmt.Errorf("company %q: %w", r.PathValue("company"), ErrNotFound)
	}
	return a.store.Company(r.Context(), id)
}

// voucher is the voucher that r's path names.
func (a *App) voucher(r *http.Request) (Voucher, error) {
	c, err := a.company(r)
	if err != nil {
		return Voucher{}, err
	}
	id, err := strconv.ParseInt(r.PathValue("voucher"), 10, 64)
	if err != nil {
		return Voucher{}, fmt.Errorf("voucher %q: %w", r.PathValue("voucher"), ErrNotFound)
	}
	return a.store.Voucher(r.Context(), c.ID, id)
}

// trialBalance is the trial balance that r asks for.
func (a *App) trialBalance(r *http.Request) (TrialBalance, error) {
	c, err := a.company(r)
	if err != nil {
		return TrialBalance{}, err
	}
	at, err := queryDate(r, "at", a.latest(c))
	if err != nil {
		return TrialBalance{}, err
	}
	return a.store.TrialBalance(r.Context(), c, at)
}

// latest is the day of c's latest voucher; today if it has none.
func (a *App) latest(c Company) Date {
	if c.LastVoucher == "" {
		return dateOf(a.now())
	}
	return c.LastVoucher
}

// queryDate reads a day from r's query, otherwise if it is absent or empty.
func queryDate(r *http.Request, key string, otherwise Date) (Date, error) {
	s := r.URL.Query().Get(key)
	if s == "" {
		return otherwise, nil
	}
	d, err := ParseDate(s)
	if err != nil {
		return "", statusError{http.StatusBadRequest, fmt.Sprintf("%s=%q is %v", key, s, err)}
	}
	return d, nil
}

// queryInt reads a number from r's query, otherwise if it is absent or empty.
func queryInt(r *http.Request, key string, otherwise int64) (int64, error) {
	s := r.URL.Query().Get(key)
	if s == "" {
		return otherwise, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return 0, statusError{http.StatusBadRequest, fmt.Sprintf("%s=%q is not a number", key, s)}
	}
	return n, nil
}

// readJSON reads r's body, one JSON value of at most maxBody bytes without
// unknown members, into v.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		return statusError{http.StatusUnsupportedMediaType, "the body must be application/json"}
	}
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		return fmt.Errorf("read body: %w", err)
	}
	if err := decodeStrict(data, v); err != nil {
		return statusError{http.StatusBadRequest, "the body is no such JSON: " + err.Error()}
	}
	return nil
}

// decodeStrict decodes the one JSON value that data is into v.
func decodeStrict(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return fmt.Errorf("more than one value")
	}
	return nil
}
