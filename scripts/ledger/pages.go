package main

import (
	"cmp"
	"net/http"
	"slices"
	"strconv"
)

// live marks v as a page that follows the books. Called before the page's data
// is read, so that a voucher posted meanwhile is told again rather than missed.
func (a *App) live(r *http.Request, v *view) (err error) {
	v.Live = true
	v.Newest, err = a.store.Newest(r.Context())
	return err
}

// companyView begins the view of a page inside the company that r names.
func (a *App) companyView(r *http.Request, heading, section string) (view, error) {
	v := view{Heading: heading, Section: section}
	if err := a.live(r, &v); err != nil {
		return view{}, err
	}
	c, err := a.company(r)
	if err != nil {
		return view{}, err
	}
	v.Company = &c
	return v, nil
}

// showCompanies: GET /
func (a *App) showCompanies(w http.ResponseWriter, r *http.Request) error {
	v := view{Heading: "Companies"}
	if err := a.live(r, &v); err != nil {
		return err
	}
	list, err := a.store.Companies(r.Context())
	if err != nil {
		return err
	}
	v.Body = list
	a.render(w, r, http.StatusOK, "companies.html", v)
	return nil
}

// overview is the first page of a company.
type overview struct {
	At      Date // of the figures
	Balance TrialBalance
	Recent  []Voucher // the latest posted, newest first
	Months  []MonthFigures
	Sum     MonthFigures // of Months
}

// showOverview: GET /companies/{company}
func (a *App) showOverview(w http.ResponseWriter, r *http.Request) error {
	v, err := a.companyView(r, "Overview", "overview")
	if err != nil {
		return err
	}
	body := overview{At: a.latest(*v.Company)}
	if body.Balance, err = a.store.TrialBalance(r.Context(), *v.Company, body.At); err != nil {
		return err
	}
	months, err := a.store.Months(r.Context(), v.Company.ID)
	if err != nil {
		return err
	}
	for _, m := range months {
		if m.Month.Year() != body.At.Month().Year() {
			continue
		}
		body.Months = append(body.Months, m)
		body.Sum.Vouchers += m.Vouchers
		body.Sum.Income += m.Income
		body.Sum.Expenses += m.Expenses
	}
	if body.Recent, err = a.store.Recent(r.Context(), v.Company.ID, 10); err != nil {
		return err
	}
	v.Body = body
	a.render(w, r, http.StatusOK, "overview.html", v)
	return nil
}

// journal is the vouchers of one month.
type journal struct {
	Month    Month
	Months   []Month // those with vouchers in Month's year
	Earlier  Month   // the month with vouchers before Month; "" if there is none
	Later    Month   // the one after it; "" if there is none
	Vouchers []Voucher
	Total    Cents
}

// showJournal: GET /companies/{company}/vouchers?month=YYYY-MM
//
// Without month it is that of the latest voucher.
func (a *App) showJournal(w http.ResponseWriter, r *http.Request) error {
	v, err := a.companyView(r, "Vouchers", "vouchers")
	if err != nil {
		return err
	}
	months, err := a.store.Months(r.Context(), v.Company.ID)
	if err != nil {
		return err
	}
	body := journal{Month: a.latest(*v.Company).Month()}
	if s := r.URL.Query().Get("month"); s != "" {
		if body.Month, err = ParseMonth(s); err != nil {
			return statusError{http.StatusBadRequest, "The month " + strconv.Quote(s) + " is " + err.Error() + "."}
		}
	}
	for _, m := range months {
		if m.Month.Year() == body.Month.Year() {
			body.Months = append(body.Months, m.Month)
		}
		if m.Month < body.Month {
			body.Earlier = m.Month
		}
		if m.Month > body.Month && body.Later == "" {
			body.Later = m.Month
		}
	}
	body.Vouchers, err = a.store.Vouchers(r.Context(), VoucherFilter{Company: v.Company.ID, From: body.Month.First(), To: body.Month.Last()})
	if err != nil {
		return err
	}
	slices.SortStableFunc(body.Vouchers, func(x, y Voucher) int { return cmp.Compare(x.Date, y.Date) })
	for _, voucher := range body.Vouchers {
		body.Total += voucher.Total()
	}
	v.Body = body
	a.render(w, r, http.StatusOK, "journal.html", v)
	return nil
}

// showVoucher: GET /companies/{company}/vouchers/{voucher}
func (a *App) showVoucher(w http.ResponseWriter, r *http.Request) error {
	v, err := a.companyView(r, "", "vouchers")
	if err != nil {
		return err
	}
	voucher, err := a.voucher(r)
	if err != nil {
		return err
	}
	v.Live = false // a posted voucher stays as it is
	v.Heading = "Voucher " + voucher.Number
	v.Body = struct {
		Voucher
		JustPosted bool
	}{voucher, r.URL.Query().Has("posted")}
	a.render(w, r, http.StatusOK, "voucher.html", v)
	return nil
}

// statement is one account's lines in one year.
type statement struct {
	Account Account
	Year    string
	Years   []string // those with vouchers, and Year
	Carried Cents
	Entries []Entry
	Turned  Balance // the sums of Entries
	Closing Cents
}

// ClosingCredit is Closing as an amount on the credit side.
func (s statement) ClosingCredit() Cents { return -s.Closing }

// showAccount: GET /companies/{company}/accounts/{account}?year=YYYY
func (a *App) showAccount(w http.ResponseWriter, r *http.Request) error {
	v, err := a.companyView(r, "", "accounts")
	if err != nil {
		return err
	}
	var body statement
	if body.Account, err = a.store.Account(r.Context(), v.Company.ID, r.PathValue("account")); err != nil {
		return err
	}
	v.Heading = body.Account.Number + " " + body.Account.Name
	if body.Year, body.Years, err = a.years(r, *v.Company); err != nil {
		return err
	}
	body.Carried, body.Entries, err = a.store.Entries(r.Context(), v.Company.ID, body.Account.Number, body.Year)
	if err != nil {
		return err
	}
	body.Closing = body.Carried
	for _, e := range body.Entries {
		body.Turned.Debit += e.Debit
		body.Turned.Credit += e.Credit
		body.Closing = e.Balance
	}
	v.Body = body
	a.render(w, r, http.StatusOK, "account.html", v)
	return nil
}

// years is the year that r's query names, that of c's latest voucher if it
// names none, and all years that c has vouchers in.
func (a *App) years(r *http.Request, c Company) (year string, years []string, err error) {
	year = a.latest(c).Month().Year()
	if s := r.URL.Query().Get("year"); s != "" {
		if _, err := ParseMonth(s + "-01"); err != nil {
			return "", nil, statusError{http.StatusBadRequest, "There is no year " + strconv.Quote(s) + "."}
		}
		year = s
	}
	months, err := a.store.Months(r.Context(), c.ID)
	if err != nil {
		return "", nil, err
	}
	for _, m := range months {
		years = append(years, m.Month.Year())
	}
	years = append(years, year)
	slices.Sort(years)
	return year, slices.Compact(years), nil
}

// showTrialBalance: GET /companies/{company}/trial-balance?at=YYYY-MM-DD
func (a *App) showTrialBalance(w http.ResponseWriter, r *http.Request) error {
	v, err := a.companyView(r, "Trial balance", "trial-balance")
	if err != nil {
		return err
	}
	body, err := a.trialBalance(r)
	if err != nil {
		return err
	}
	v.Body = body
	a.render(w, r, http.StatusOK, "trial-balance.html", v)
	return nil
}
