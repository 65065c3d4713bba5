package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"
)

// newTestApp is an App over books with one company, of id 1, and one voucher.
func newTestApp(t *testing.T) *App {
	t.Helper()
	s := openTest(t)
	c := found(t, s)
	if _, err := s.Post(t.Context(), c.ID, rent(), testTime); err != nil {
		t.Fatal(err)
	}
	return NewApp(Config{Store: s, Title: "Books & more", Now: func() time.Time { return testTime }})
}

// send has the App answer one request; header holds names and values in turn.
func send(t *testing.T, a *App, method, target, body string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	a.Handler().ServeHTTP(w, r)
	return w
}

func TestAPI(t *testing.T) {
	const balanced = `[{"account":"1000","debit_cents":500},{"account":"4000","credit_cents":500}]`
	const two = `"date":"2026-04-01","text":"Sale over the counter","lines":`
	for _, tt := range []struct {
		name   string
		method string
		target string
		body   string
		status int
		want   string // in the answer, white space aside
	}{
		{"companies", "GET", "/api/companies", "", 200, `{"companies":[{"id":1,"name":"Test\u0026Sons","currency":"EUR","vouchers":1,"last_voucher":"2026-03-01"}]}`},
		{"company", "GET", "/api/companies/1", "", 200, `"currency":"EUR"`},
		{"no company", "GET", "/api/companies/9", "", 404, `"status":404,"detail":"company9:notfound"`},
		{"company 0", "GET", "/api/companies/0", "", 404, `notfound`},
		{"company by word", "GET", "/api/companies/x", "", 404, `notfound`},
		{"found", "POST", "/api/companies", `{"name":"New","currency":"GBP","chart":"standard"}`, 201, `"id":2`},
		{"found without name", "POST", "/api/companies", `{"currency":"XXX"}`, 422, `{"pointer":"#/name","detail":"thenameismissing"},{"pointer":"#/currency"`},
		{"accounts", "GET", "/api/companies/1/accounts", "", 200, `{"number":"1000","name":"Cashonhand","kind":"asset"}`},
		{"add account", "POST", "/api/companies/1/accounts", `{"number":"1010","name":"Till","kind":"asset"}`, 201, `"Till"`},
		{"account taken", "POST", "/api/companies/1/accounts", `{"number":"1000","name":"Till","kind":"asset"}`, 422, `account1000existsalready`},
		{"account unsound", "POST", "/api/companies/1/accounts", `{"number":"1","name":"","kind":"x"}`, 422, `"#/kind"`},
		{"account of no company", "POST", "/api/companies/9/accounts", `{"number":"1010","name":"Till","kind":"asset"}`, 404, `notfound`},
		{"vouchers", "GET", "/api/companies/1/vouchers", "", 200, `"number":"2026-0001"`},
		{"vouchers of a span", "GET", "/api/companies/1/vouchers?from=2026-03-02&to=2026-12-31", "", 200, `{"vouchers":[]}`},
		{"vouchers without limit", "GET", "/api/companies/1/vouchers?limit=0", "", 400, `limitmustbe1to1000`},
		{"vouchers from nowhere", "GET", "/api/companies/1/vouchers?from=yesterday", "", 400, `notadate`},
		{"voucher", "GET", "/api/companies/1/vouchers/1", "", 200, `"account":"6200","name":"Rent","debit_cents":100000`},
		{"no voucher", "GET", "/api/companies/1/vouchers/2", "", 404, `notfound`},
		{"post", "POST", "/api/companies/1/vouchers", `{` + two + balanced + `}`, 201, `"number":"2026-0002"`},
		{"post unbalanced", "POST", "/api/companies/1/vouchers", `{` + two + `[{"account":"1000","debit_cents":500},{"account":"4000","credit_cents":400}]}`, 422, `"pointer":"#/lines","detail":"thevoucherdoesnotbalance`},
		{"post a fraction", "POST", "/api/companies/1/vouchers", `{` + two + `[{"account":"1000","debit_cents":0.5}]}`, 400, `nosuchJSON`},
		{"post an unknown member", "POST", "/api/companies/1/vouchers", `{"amount":1}`, 400, `unknownfield`},
		{"post two values", "POST", "/api/companies/1/vouchers", `{} {}`, 400, `morethanonevalue`},
		{"post nothing", "POST", "/api/companies/1/vouchers", ``, 400, `EOF`},
		{"post to no company", "POST", "/api/companies/9/vouchers", `{` + two + balanced + `}`, 404, `notfound`},
		{"post too much", "POST", "/api/companies", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 413, `RequestEntityTooLarge`},
		{"trial balance", "GET", "/api/companies/1/trial-balance", "", 200, `"at":"2026-03-01"`},
		{"trial balance of a day", "GET", "/api/companies/1/trial-balance?at=2026-12-31", "", 200, `"totals":{"debit_cents":120000,"credit_cents":120000,"debit_balance_cents":120000,"credit_balance_cents":120000}`},
		{"trial balance before", "GET", "/api/companies/1/trial-balance?at=2026-02-28", "", 200, `"rows":[],"totals":{"debit_cents":0`},
		{"trial balance of no day", "GET", "/api/companies/1/trial-balance?at=2026-02-29", "", 400, `notadate`},
		{"nowhere", "GET", "/api/nowhere", "", 404, `nothingatthisaddress`},
		{"wrong method", "DELETE", "/api/companies/1", "", 405, `DELETEisnotpossiblehere`},
		{"visitor", "GET", "/api/visitor", "", 200, `{"address":"192.0.2.1","scheme":"http","host":"example.com"}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := send(t, newTestApp(t), tt.method, tt.target, tt.body, "Content-Type", "application/json")
			if w.Code != tt.status {
				t.Errorf("got status %d, want %d: %s", w.Code, tt.status, w.Body)
			}
			kind := "application/json"
			if tt.status >= 400 {
				kind = "application/problem+json"
			}
			if got := w.Header().Get("Content-Type"); got != kind {
				t.Errorf("got Content-Type %q, want %q", got, kind)
			}
			if !json.Valid(w.Body.Bytes()) {
				t.Errorf("got no JSON: %s", w.Body)
			}
			if got := strings.Join(strings.Fields(w.Body.String()), ""); !strings.Contains(got, tt.want) {
				t.Errorf("got %s, want it to hold %s", got, tt.want)
			}
		})
	}
}

func TestAPIHeaders(t *testing.T) {
	a := newTestApp(t)
	if w := send(t, a, "POST", "/api/companies", `{}`, "Content-Type", "text/plain"); w.Code != http.StatusUnsupportedMediaType {
		t.Errorf("a body of another type: got status %d", w.Code)
	}
	w := send(t, a, "POST", "/api/companies", `{"name":"New","currency":"GBP"}`, "Content-Type", "application/json; charset=utf-8")
	if got, want := w.Header().Get("Location"), "/api/companies/2"; got != want {
		t.Errorf("got Location %q, want %q", got, want)
	}
	w = send(t, a, "PUT", "/api/companies/1/vouchers", "")
	if got, want := w.Header().Get("Allow"), "GET, POST"; got != want {
		t.Errorf("got Allow %q, want %q", got, want)
	}
	w = send(t, a, "POST", "/companies/1/trial-balance", "")
	if got, want := w.Header().Get("Allow"), "GET"; got != want || w.Code != http.StatusMethodNotAllowed {
		t.Errorf("got status %d and Allow %q, want 405 and %q", w.Code, got, want)
	}
}

func TestAPIVouchersPageByPage(t *testing.T) {
	a := newTestApp(t)
	for range 4 {
		if _, err := a.store.Post(t.Context(), 1, rent(), testTime); err != nil {
			t.Fatal(err)
		}
	}
	var numbers []string
	target := "/api/companies/1/vouchers?limit=2"
	for {
		var page struct {
			Vouchers []Voucher
			Next     int64
		}
		if err := json.Unmarshal(send(t, a, "GET", target, "").Body.Bytes(), &page); err != nil {
			t.Fatal(err)
		}
		for _, v := range page.Vouchers {
			numbers = append(numbers, v.Number)
		}
		if page.Next == 0 {
			break
		}
		target = fmt.Sprintf("/api/companies/1/vouchers?limit=2&after=%d", page.Next)
	}
	if got, want := strings.Join(numbers, " "), "2026-0001 2026-0002 2026-0003 2026-0004 2026-0005"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// inlineCode finds what the content security policy would refuse.
var inlineCode = regexp.MustCompile(`(?i)<style|<script>|<script[^>]*>[^<]|\sstyle=|\son[a-z]+=|(src|href)="(https?:)?//`)

func TestPages(t *testing.T) {
	a := newTestApp(t)
	empty := NewApp(Config{Store: openTest(t)})
	if _, err := a.store.AddCompany(t.Context(), NewCompany{Name: "Bare", Currency: "CHF"}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		app    *App
		target string
		status int
		want   []string
	}{
		{"no companies", empty, "/", 200, []string{"There are no books yet", "<title>Companies · Ledger</title>"}},
		{"companies", a, "/", 200, []string{"Test &amp; Sons", "Books &amp; more", "2026-03-01", `data-newest="1"`}},
		{"new company", a, "/companies/new", 200, []string{"Currency of the books", "<option selected>EUR"}},
		{"overview", a, "/companies/1", 200, []string{"Result to date", "−1,000.00", "Rent March", "2026 by month", `data-company="1"`}},
		{"overview, empty", a, "/companies/2", 200, []string{"Nothing is posted yet"}},
		{"journal", a, "/companies/1/vouchers", 200, []string{"Vouchers, March 2026", "1 voucher,", "Rent March", "R-1", "1,200.00"}},
		{"journal, another month", a, "/companies/1/vouchers?month=2026-07", 200, []string{"No vouchers in July 2026", `title="March 2026"`}},
		{"journal, no month", a, "/companies/1/vouchers?month=2026", 400, []string{"not a month"}},
		{"voucher", a, "/companies/1/vouchers/1", 200, []string{"Voucher 2026-0001", "1 March 2026", "31 March 2026, 09:30 UTC", "reverse=1"}},
		{"voucher just posted", a, "/companies/1/vouchers/1?posted", 200, []string{"Posted as <b>2026-0001</b>"}},
		{"no voucher", a, "/companies/1/vouchers/8", 404, []string{"Not Found"}},
		{"new voucher", a, "/companies/1/vouchers/new", 200, []string{`value="2026-03-31"`, "1100 Bank current account", "Debit EUR"}},
		{"new voucher, reversal", a, "/companies/1/vouchers/new?reverse=1", 200, []string{"Reversal of 2026-0001", `<option value="6200" selected>`, `name="credit" value="1,000.00"`, `name="debit" value="1,200.00"`}},
		{"new voucher, no accounts", a, "/companies/2/vouchers/new", 200, []string{"no accounts to post on"}},
		{"accounts", a, "/companies/1/accounts", 200, []string{"Bank current account", "−1,200.00", "Add an account"}},
		{"accounts, empty", a, "/companies/2/accounts", 200, []string{"The chart of accounts is empty"}},
		{"account", a, "/companies/1/accounts/1100", 200, []string{"Rent March", "Turnover", "−1,200.00"}},
		{"account, carried forward", a, "/companies/1/accounts/1100?year=2027", 200, []string{"Carried forward", ">2026</a>"}},
		{"account, nothing booked", a, "/companies/1/accounts/4000", 200, []string{"Nothing was booked"}},
		{"account, no year", a, "/companies/1/accounts/4000?year=soon", 400, []string{"There is no year"}},
		{"no account", a, "/companies/1/accounts/4711", 404, []string{"Not Found"}},
		{"trial balance", a, "/companies/1/trial-balance", 200, []string{"at the end of 1 March 2026", "1,200.00"}},
		{"trial balance, empty", a, "/companies/2/trial-balance", 200, []string{"Nothing was posted up to 31 March 2026"}},
		{"nowhere", a, "/nowhere", 404, []string{"nothing at this address"}},
		{"no company", a, "/companies/77", 404, []string{"Not Found"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := send(t, tt.app, "GET", tt.target, "")
			if w.Code != tt.status {
				t.Errorf("got status %d, want %d", w.Code, tt.status)
			}
			page := w.Body.String()
			for _, want := range append(tt.want, "You came from <b>192.0.2.1</b>", "</html>") {
				if !strings.Contains(page, want) {
					t.Errorf("the page lacks %q", want)
				}
			}
			if bad := inlineCode.FindString(page); bad != "" {
				t.Errorf("the page holds %q", bad)
			}
			if policy := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(policy, "default-src 'none'") || strings.Contains(policy, "unsafe") {
				t.Errorf("got the policy %q", policy)
			}
		})
	}
}

func TestAssets(t *testing.T) {
	a := newTestApp(t)
	links := regexp.MustCompile(`/static/[^"]+`).FindAllString(send(t, a, "GET", "/", "").Body.String(), -1)
	if len(links) != 3 {
		t.Fatalf("got the assets %q, want three", links)
	}
	for _, link := range links {
		w := send(t, a, "GET", strings.ReplaceAll(link, "&amp;", "&"), "")
		if w.Code != http.StatusOK || w.Body.Len() == 0 || !strings.Contains(w.Header().Get("Cache-Control"), "immutable") {
			t.Errorf("%s: got status %d, %d bytes, Cache-Control %q", link, w.Code, w.Body.Len(), w.Header().Get("Cache-Control"))
		}
	}
	if w := send(t, a, "GET", "/static/nothing.css?v=1", ""); w.Code != http.StatusNotFound {
		t.Errorf("an asset that is none: got status %d", w.Code)
	}
}

func TestVisitor(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header []string
		want   string
	}{
		{"straight", nil, "from <b>192.0.2.1</b> over <b>http</b> and asked for <b>example.com</b>"},
		{"through a proxy", []string{"X-Forwarded-For", "2001:db8::7", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "acme.apps.example.com"},
			"from <b>2001:db8::7</b> over <b>https</b> and asked for <b>acme.apps.example.com</b>"},
		{"with a forged address in front", []string{"X-Forwarded-For", "6.6.6.6, 198.51.100.4"}, "from <b>198.51.100.4</b>"},
		{"with a forged header in front", []string{"X-Forwarded-For", "6.6.6.6", "X-Forwarded-For", "198.51.100.4"}, "from <b>198.51.100.4</b>"},
		{"with markup", []string{"X-Forwarded-For", "<i>"}, "from <b>&lt;i&gt;</b>"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := send(t, newTestApp(t), "GET", "/", "", tt.header...).Body.String(); !strings.Contains(got, tt.want) {
				t.Errorf("the page lacks %q", tt.want)
			}
		})
	}
}

// submit sends a form as a browser on the same site does.
func submit(t *testing.T, a *App, target string, form url.Values) *httptest.ResponseRecorder {
	t.Helper()
	return send(t, a, "POST", target, form.Encode(), "Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
}

func TestSubmitVoucher(t *testing.T) {
	form := func() url.Values {
		return url.Values{
			"date": {"2026-04-02"}, "text": {"Sale <b>"}, "reference": {"Q-9"},
			"account": {"1000", "", "4000", ""}, "debit": {"1,250.50", "", "", ""}, "credit": {"", "", "1250,5", ""},
		}
	}
	t.Run("sound", func(t *testing.T) {
		a := newTestApp(t)
		w := submit(t, a, "/companies/1/vouchers/new", form())
		if got, want := w.Header().Get("Location"), "/companies/1/vouchers/2?posted"; w.Code != http.StatusSeeOther || got != want {
			t.Fatalf("got status %d to %q, want 303 to %q", w.Code, got, want)
		}
		v, err := a.store.Voucher(t.Context(), 1, 2)
		if err != nil {
			t.Fatal(err)
		}
		if v.Text != "Sale <b>" || v.Total() != 1_250_50 || len(v.Lines) != 2 {
			t.Errorf("got %+v", v)
		}
	})
	for _, tt := range []struct {
		name   string
		change func(url.Values)
		status int
		want   []string
	}{
		{"unbalanced", func(f url.Values) { f["credit"][2] = "1,250.00" }, 422,
			[]string{"a difference of 0.50", "Nothing was saved", `name="credit" value="1,250.00"`, `value="Sale &lt;b&gt;"`, `value="Q-9"`, `<option value="4000" selected>`}},
		{"an amount that is none", func(f url.Values) { f["debit"][0] = "much" }, 422,
			[]string{`line 1: the debit &#34;much&#34; is not an amount`, `name="debit" value="much"`, `aria-invalid="true"`}},
		{"an account that is none", func(f url.Values) { f["account"][2] = "4711" }, 422, []string{`line 2: there is no account`}},
		{"no date", func(f url.Values) { f.Set("date", "") }, 422, []string{"not a date", `name="date" type="date" value="" required aria-invalid`}},
		{"nothing at all", func(f url.Values) { clear(f) }, 422, []string{"the text is missing", "this one has 0"}},
		{"more lines", func(f url.Values) { f.Set("action", "more"); f["credit"][2] = "" }, 200, []string{`value="1,250.50"`, "Debit, line 8"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newTestApp(t)
			f := form()
			tt.change(f)
			w := submit(t, a, "/companies/1/vouchers/new", f)
			if w.Code != tt.status {
				t.Errorf("got status %d, want %d", w.Code, tt.status)
			}
			for _, want := range tt.want {
				if !strings.Contains(w.Body.String(), want) {
					t.Errorf("the page lacks %q", want)
				}
			}
			if n, err := a.store.Newest(t.Context()); n != 1 || err != nil {
				t.Errorf("got a newest voucher of %d, %v, want 1: nothing posted", n, err)
			}
		})
	}
}

func TestSubmitCompanyAndAccounts(t *testing.T) {
	a := newTestApp(t)
	if w := submit(t, a, "/companies/new", url.Values{"name": {""}, "currency": {"EUR"}}); w.Code != 422 || !strings.Contains(w.Body.String(), "the name is missing") {
		t.Errorf("a company without name: got status %d", w.Code)
	}
	w := submit(t, a, "/companies/new", url.Values{"name": {"Second"}, "currency": {"EUR"}})
	if got, want := w.Header().Get("Location"), "/companies/2"; w.Code != 303 || got != want {
		t.Fatalf("got status %d to %q, want 303 to %q", w.Code, got, want)
	}
	add := url.Values{"number": {"1000"}, "name": {"Safe"}, "kind": {"asset"}}
	if w := submit(t, a, "/companies/2/accounts", add); w.Code != 303 {
		t.Errorf("add an account: got status %d", w.Code)
	}
	if w := submit(t, a, "/companies/2/accounts", add); w.Code != 422 || !strings.Contains(w.Body.String(), "account 1000 exists already: Safe") {
		t.Errorf("add it again: got status %d", w.Code)
	}
	if w := submit(t, a, "/companies/2/accounts/standard", nil); w.Code != 303 {
		t.Errorf("take the standard chart: got status %d", w.Code)
	}
	list, err := a.store.Accounts(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if len(list) != len(standardChart) || list[0].Name != "Safe" {
		t.Errorf("got %d accounts, the first %+v, want %d and the own one kept", len(list), list[0], len(standardChart))
	}
}

func TestCrossOriginRefused(t *testing.T) {
	for _, tt := range []struct {
		name   string
		header []string
		status int
	}{
		{"another site's page", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"a sibling's page", []string{"Sec-Fetch-Site", "same-site"}, 403},
		{"an old browser on another site", []string{"Origin", "https://evil.example"}, 403},
		{"an old browser here", []string{"Origin", "https://example.com"}, 303},
		{"no browser", nil, 303},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newTestApp(t)
			header := append([]string{"Content-Type", "application/x-www-form-urlencoded"}, tt.header...)
			w := send(t, a, "POST", "/companies/new", "name=Evil&currency=EUR", header...)
			if w.Code != tt.status {
				t.Errorf("got status %d, want %d", w.Code, tt.status)
			}
			list, err := a.store.Companies(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if saved := len(list) == 2; saved != (tt.status == 303) {
				t.Errorf("got %d companies", len(list))
			}
		})
	}
}

// TestEvents reads the stream as it grows, and again from where it broke off.
func TestEvents(t *testing.T) {
	a := newTestApp(t)
	if _, err := a.store.AddCompany(t.Context(), NewCompany{Name: "Other", Currency: "EUR", Chart: "standard"}); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(a.Handler())
	defer srv.Close()
	defer a.endStreams()

	stream := openEvents(t, srv, "/api/events?company=1", "")
	for _, company := range []int64{2, 1, 1} {
		if _, err := a.store.Post(t.Context(), company, rent(), testTime); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []int64{3, 4} {
		if v := nextEvent(t, stream); v.ID != want || v.Company != 1 {
			t.Fatalf("got voucher %d of company %d, want %d of 1", v.ID, v.Company, want)
		}
	}
	if v := nextEvent(t, openEvents(t, srv, "/api/events?company=1", "3")); v.ID != 4 {
		t.Errorf("after Last-Event-ID 3: got voucher %d, want 4", v.ID)
	}
	if v := nextEvent(t, openEvents(t, srv, "/api/events?after=1", "")); v.ID != 2 {
		t.Errorf("after 1: got voucher %d, want 2", v.ID)
	}
	if w := send(t, a, "GET", "/api/events?after=x", ""); w.Code != http.StatusBadRequest {
		t.Errorf("after nonsense: got status %d", w.Code)
	}
}

func openEvents(t *testing.T, srv *httptest.Server, target, lastID string) *bufio.Reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, "GET", srv.URL+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	if lastID != "" {
		r.Header.Set("Last-Event-ID", lastID)
	}
	res, err := srv.Client().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	if got, want := res.Header.Get("Content-Type"), "text/event-stream"; got != want {
		t.Fatalf("got Content-Type %q, want %q", got, want)
	}
	return bufio.NewReader(res.Body)
}

// nextEvent reads the next event of the stream, wanting a voucher.
func nextEvent(t *testing.T, stream *bufio.Reader) (v Voucher) {
	t.Helper()
	for {
		line, err := stream.ReadString('\n')
		if err != nil {
			t.Fatalf("the stream ended: %v", err)
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			if err := json.Unmarshal([]byte(data), &v); err != nil {
				t.Fatal(err)
			}
			return v
		}
	}
}

// TestOwnFaultIsNotTold wants a broken store to be logged, and not shown.
func TestOwnFaultIsNotTold(t *testing.T) {
	var logged strings.Builder
	a := newTestApp(t)
	broken := NewApp(Config{Store: a.store, Log: slog.New(slog.NewTextHandler(&logged, nil))})
	if err := a.store.db.Close(); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/", "/api/companies"} {
		w := send(t, broken, "GET", target, "")
		if w.Code != http.StatusInternalServerError || strings.Contains(w.Body.String(), "database") {
			t.Errorf("%s: got status %d: %s", target, w.Code, w.Body)
		}
	}
	if !strings.Contains(logged.String(), "database is closed") {
		t.Errorf("got the log %q", logged.String())
	}
}

// Where TLS ends in the program there is no proxy to believe.
func TestVisitorOverTLS(t *testing.T) {
	r := httptest.NewRequest("GET", "https://acme.test/", nil)
	r.RemoteAddr = "203.0.113.7:4711"
	r.Header.Set("X-Forwarded-For", "192.0.2.1")
	r.Header.Set("X-Forwarded-Host", "evil.example")
	if got, want := visitorOf(r), (Visitor{Address: "203.0.113.7", Scheme: "https", Host: "acme.test"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// Who posted a voucher is who the node says that it is, if it is to be believed.
func TestUsers(t *testing.T) {
	const voucher = `{"date":"2026-04-01","text":"Sale","lines":[{"account":"1000","debit_cents":500},{"account":"4000","credit_cents":500}]}`
	ann := []string{"Postern-User", "ann@acme.test", "Postern-Name", "Ann M%C3%BCller", "Postern-Role", "admin"}
	for _, tt := range []struct {
		name   string
		user   func(*http.Request) (User, bool)
		header []string
		by     string // empty: nobody
	}{
		{"believed", headerUser, ann, "ann@acme.test"},
		{"believed, nobody", headerUser, nil, ""},
		{"believed, half an escape", headerUser, []string{"Postern-User", "%2"}, ""},
		{"not believed", nil, ann, ""},
		{"a node of its own, nobody", nodeUser, ann, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := newTestApp(t)
			if tt.user != nil {
				a.user = tt.user
			}
			answer := send(t, a, "POST", "/api/companies/1/vouchers", voucher, append(tt.header, "Content-Type", "application/json")...).Body.String()
			var posted Voucher
			if err := json.Unmarshal([]byte(answer), &posted); err != nil || posted.PostedBy != tt.by {
				t.Fatalf("posted by %q, %v: %s", posted.PostedBy, err, answer)
			}
			form := url.Values{
				"date": {"2026-04-02"}, "text": {"By form"},
				"account": {"1000", "4000"}, "debit": {"5", ""}, "credit": {"", "5"},
			}
			w := send(t, a, "POST", "/companies/1/vouchers/new", form.Encode(), append(tt.header, "Content-Type", "application/x-www-form-urlencoded")...)
			page := send(t, a, "GET", w.Header().Get("Location"), "", tt.header...).Body.String()
			if strings.Contains(page, " by ann@acme.test<") != (tt.by != "") || strings.Contains(page, "Signed in as <b>Ann Müller</b>, admin.") != (tt.by != "") {
				t.Errorf("the voucher's page is %s", page)
			}
			visitor := send(t, a, "GET", "/api/visitor", "", tt.header...).Body.String()
			if strings.Contains(visitor, `"name": "Ann Müller"`) != (tt.by != "") || strings.Contains(visitor, `"user"`) != (tt.by != "") {
				t.Errorf("the visitor is %s", visitor)
			}
		})
	}
}
