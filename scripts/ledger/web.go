package main

import (
	"bytes"
	"embed"
	"fmt"
	"hash/fnv"
	"html/template"
	"io/fs"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
)

var (
	//go:embed templates
	templateFiles embed.FS
	//go:embed static
	staticFiles embed.FS
)

// Config is what an App is made of.
type Config struct {
	Store *Store           // the books; not closed by the App
	Title string           // at the head of every page. If empty, "Ledger".
	Log   *slog.Logger     // If nil, nothing is logged.
	Now   func() time.Time // If nil, time.Now.

	// User tells who is signed in, if somebody is. If nil, nobody is ever known.
	User func(*http.Request) (User, bool)
}

// App is the ledger's pages and API.
type App struct {
	store  *Store
	title  string
	log    *slog.Logger
	now    func() time.Time
	user   func(*http.Request) (User, bool)
	pages  map[string]*template.Template // by file name, immutable
	ending chan struct{}                 // closed when event streams must end

	endOnce sync.Once
}

// NewApp makes an App. It panics if its own templates are broken.
func NewApp(cfg Config) *App {
	a := &App{store: cfg.Store, title: cfg.Title, log: cfg.Log, now: cfg.Now, user: cfg.User, ending: make(chan struct{})}
	if a.title == "" {
		a.title = "Ledger"
	}
	if a.log == nil {
		a.log = slog.New(slog.DiscardHandler)
	}
	if a.now == nil {
		a.now = time.Now
	}
	if a.user == nil {
		a.user = func(*http.Request) (User, bool) { return User{}, false }
	}
	a.pages = parsePages()
	return a
}

// endStreams ends the event streams, for good.
func (a *App) endStreams() { a.endOnce.Do(func() { close(a.ending) }) }

// action answers a request, or returns an error having answered nothing.
type action func(http.ResponseWriter, *http.Request) error

// Handler is all that the App serves.
func (a *App) Handler() http.Handler {
	mux := http.NewServeMux()
	for pattern, do := range map[string]action{
		"GET /api/companies":                              a.getCompanies,
		"POST /api/companies":                             a.postCompany,
		"GET /api/companies/{company}":                    a.getCompany,
		"GET /api/companies/{company}/accounts":           a.getAccounts,
		"POST /api/companies/{company}/accounts":          a.postAccount,
		"GET /api/companies/{company}/vouchers":           a.getVouchers,
		"POST /api/companies/{company}/vouchers":          a.postVoucher,
		"GET /api/companies/{company}/vouchers/{voucher}": a.getVoucher,
		"GET /api/companies/{company}/trial-balance":      a.getTrialBalance,
		"GET /api/events":                                 a.events,
		"GET /api/visitor":                                a.getVisitor,
		"/api/":                                           noSuchThing(mux, "/api/"),
	} {
		mux.HandleFunc(pattern, a.api(do))
	}
	for pattern, do := range map[string]action{
		"GET /{$}":                                    a.showCompanies,
		"GET /companies/new":                          a.showCompanyForm,
		"POST /companies/new":                         a.foundCompany,
		"GET /companies/{company}":                    a.showOverview,
		"GET /companies/{company}/vouchers":           a.showJournal,
		"GET /companies/{company}/vouchers/new":       a.showVoucherForm,
		"POST /companies/{company}/vouchers/new":      a.submitVoucher,
		"GET /companies/{company}/vouchers/{voucher}": a.showVoucher,
		"GET /companies/{company}/accounts":           a.showAccounts,
		"POST /companies/{company}/accounts":          a.submitAccount,
		"POST /companies/{company}/accounts/standard": a.adoptChart,
		"GET /companies/{company}/accounts/{account}": a.showAccount,
		"GET /companies/{company}/trial-balance":      a.showTrialBalance,
		"/":                                           noSuchThing(mux, "/"),
	} {
		mux.HandleFunc(pattern, a.page(do))
	}
	mux.HandleFunc("GET /static/{file}", serveAsset)

	crossOrigin := http.NewCrossOriginProtection()
	crossOrigin.SetDenyHandler(a.page(func(http.ResponseWriter, *http.Request) error {
		return statusError{http.StatusForbidden, "This was sent from another site's page. Nothing was saved."}
	}))
	return secure(crossOrigin.Handler(mux))
}

// secure sets the headers that every answer carries.
func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "+
			"connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cache-Control", "private, no-cache")
		next.ServeHTTP(w, r)
	})
}

// api serves do; its errors become problem documents.
func (a *App) api(do action) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := do(w, r); err != nil {
			writeProblem(w, a.problemOf(r.Context(), err))
		}
	}
}

// page serves do; its errors become pages.
func (a *App) page(do action) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if err := do(w, r); err != nil {
			p := a.problemOf(r.Context(), err)
			a.render(w, r, p.Status, "error.html", view{Heading: p.Title, Body: p})
		}
	}
}

// noSuchThing stands behind the pattern that catches what no other matches in
// mux, and tells a wrong method from a wrong path (RFC 9110, section 15.5.6).
func noSuchThing(mux *http.ServeMux, catchAll string) action {
	return func(w http.ResponseWriter, r *http.Request) error {
		var allowed []string
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			if _, pattern := mux.Handler(&http.Request{Method: method, URL: r.URL, Host: r.Host}); pattern != catchAll {
				allowed = append(allowed, method)
			}
		}
		if len(allowed) > 0 {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			return statusError{http.StatusMethodNotAllowed, fmt.Sprintf("%s is not possible here", r.Method)}
		}
		return statusError{http.StatusNotFound, "There is nothing at this address."}
	}
}

// view is what a page is rendered from.
type view struct {
	Site    string
	Heading string   // names the page, also in the window's title
	Section string   // the entry of the navigation that the page belongs to
	Company *Company // nil outside a company
	Visitor Visitor
	Live    bool  // whether the page is fetched anew when a voucher is posted
	Newest  int64 // the newest voucher that a live page knows of
	Body    any   // the page's own data
}

// render answers with the page of that file name.
func (a *App) render(w http.ResponseWriter, r *http.Request, status int, name string, v view) {
	v.Site, v.Visitor = a.title, a.visitor(r)
	var page bytes.Buffer
	if err := a.pages[name].ExecuteTemplate(&page, "layout.html", v); err != nil {
		a.log.ErrorContext(r.Context(), "render page", "page", name, "err", err)
		http.Error(w, "The ledger could not show this page.", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	_, _ = page.WriteTo(w) // an error means that the client is gone
}

// parsePages parses the layout together with each page.
func parsePages() map[string]*template.Template {
	funcs := template.FuncMap{"asset": assetPath, "amount": amount, "signed": signed, "inc": func(i int) int { return i + 1 }}
	layout := template.Must(template.New("").Funcs(funcs).ParseFS(templateFiles, "templates/layout.html"))
	names, err := fs.Glob(templateFiles, "templates/*.html")
	if err != nil {
		panic("list templates: " + err.Error())
	}
	pages := make(map[string]*template.Template)
	for _, path := range names {
		page := template.Must(template.Must(layout.Clone()).ParseFS(templateFiles, path))
		pages[strings.TrimPrefix(path, "templates/")] = page
	}
	return pages
}

// amount formats c for a column of amounts, where nothing stands for zero.
func amount(c Cents) string {
	if c == 0 {
		return ""
	}
	return c.String()
}

// signed formats c as a cell that shows a negative amount as one.
func signed(c Cents) template.HTML {
	if c < 0 {
		return template.HTML(`<span class="negative">` + c.String() + `</span>`)
	}
	return template.HTML(c.String())
}

// assetPath is where a static file is served. It changes with the content, so
// that a browser may keep the file for good.
func assetPath(name string) (string, error) {
	data, err := staticFiles.ReadFile("static/" + name)
	if err != nil {
		return "", err
	}
	sum := fnv.New64a()
	sum.Write(data)
	return fmt.Sprintf("/static/%s?v=%x", name, sum.Sum64()), nil
}

// serveAsset: GET /static/{file}
func serveAsset(w http.ResponseWriter, r *http.Request) {
	if r.URL.Query().Has("v") {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeFileFS(w, r, staticFiles, "static/"+r.PathValue("file"))
}
