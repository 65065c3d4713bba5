package portal

import (
	"encoding/csv"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"postern"
	"postern/coordinator"
)

// An audit is what the audit log's page is made from.
type audit struct {
	Tenants []postern.Tenant
	Titles  titles
	Query   coordinator.AuditQuery
	Entries []auditEntry
	Older   template.URL // the query of the next page; empty: there is none
	Export  template.URL // the query of what is shown and all like it
	Paged   bool         // not the first page
}

type auditEntry struct {
	postern.AuditEntry
	Who  string // the actor, by login if that is a user
	Whom string // login of the target, if that is a user
}

// auditPageSize is how many entries a page shows.
const auditPageSize = 50

func auditQuery(q url.Values) coordinator.AuditQuery {
	before, _ := strconv.ParseUint(q.Get("before"), 10, 64)
	return coordinator.AuditQuery{
		Before: before, Newest: true, Tenant: q.Get("tenant"), Actor: strings.TrimSpace(q.Get("actor")),
		Action: strings.TrimSpace(q.Get("action")), Limit: auditPageSize,
	}
}

// filterOf returns the parameters that ask for q's entries, but the page.
func filterOf(q coordinator.AuditQuery) url.Values {
	v := url.Values{}
	for key, value := range map[string]string{"tenant": q.Tenant, "actor": q.Actor, "action": q.Action} {
		if value != "" {
			v.Set(key, value)
		}
	}
	return v
}

func (p *Portal) auditPage(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	v := audit{Query: auditQuery(r.URL.Query())}
	v.Paged = v.Query.Before != 0
	var err error
	if v.Tenants, err = o.Tenants(r.Context()); err != nil {
		p.fail(w, r, err)
		return
	}
	v.Titles = titlesOf(v.Tenants)
	logins, err := loginsOf(r, o)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	query := v.Query
	query.Actor = actorOf(query.Actor, logins)
	entries, err := o.Audit(r.Context(), query)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	for _, e := range entries {
		v.Entries = append(v.Entries, auditEntry{e, whoIs(e.Actor, logins), logins[e.Target]})
	}
	filter := filterOf(v.Query)
	v.Export = template.URL(filter.Encode())
	if len(entries) == auditPageSize {
		filter.Set("before", strconv.FormatUint(entries[len(entries)-1].Seq, 10))
		v.Older = template.URL(filter.Encode())
	}
	p.render(w, r, http.StatusOK, "audit", v)
}

// loginsOf returns the logins of the users whom o sees, by id.
func loginsOf(r *http.Request, o *coordinator.Operator) (map[string]string, error) {
	users, err := o.Users(r.Context(), "")
	logins := make(map[string]string, len(users))
	for _, u := range users {
		logins[u.ID] = u.Login
	}
	return logins, err
}

func whoIs(actor string, logins map[string]string) string {
	if id, ok := strings.CutPrefix(actor, "user:"); ok && logins[id] != "" {
		return logins[id]
	}
	return actor
}

// actorOf returns the actor whom a person calls s: by login, or as the log does.
func actorOf(s string, logins map[string]string) string {
	for id, login := range logins {
		if strings.EqualFold(s, login) {
			return coordinator.ActorUser(id)
		}
	}
	return s
}

// exportAudit sends all entries that the filter picks, the oldest first, however
// many there are.
func (p *Portal) exportAudit(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	format := r.URL.Query().Get("format")
	if format != "csv" && format != "json" {
		p.refuse(w, r, postern.NewProblem(http.StatusBadRequest, postern.CodeInvalid, "the log is exported as csv or json", "choose one of the two"))
		return
	}
	logins, err := loginsOf(r, o)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	q := auditQuery(r.URL.Query())
	q.Before, q.Newest, q.Limit = 0, false, 1000
	q.Actor = actorOf(q.Actor, logins)
	entries, err := o.Audit(r.Context(), q)
	if err != nil {
		p.fail(w, r, err)
		return
	}
	out := newExport(w, format, logins, p.cfg.Now())
	for {
		http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute)) // for each thousand
		if err == nil {
			err = out.add(entries)
		}
		if err != nil || len(entries) < q.Limit {
			break
		}
		q.After = entries[len(entries)-1].Seq
		entries, err = o.Audit(r.Context(), q)
	}
	if err == nil {
		err = out.end()
	}
	if err != nil {
		p.log.Warn("audit log not exported whole", "err", err)
		panic(http.ErrAbortHandler) // so that nobody takes the part for the whole
	}
}

// An export writes entries in one of two formats.
type export struct {
	w      http.ResponseWriter
	logins map[string]string // by users' ids
	csv    *csv.Writer       // nil: JSON
	comma  bool
}

// An exported entry has logins beside ids.
type exported struct {
	postern.AuditEntry
	ActorLogin  string `json:"actor_login,omitempty"`
	TargetLogin string `json:"target_login,omitempty"`
}

func newExport(w http.ResponseWriter, format string, logins map[string]string, now time.Time) *export {
	h := w.Header()
	h.Set("Content-Disposition", `attachment; filename="audit-`+now.UTC().Format("2006-01-02")+"."+format+`"`)
	if format == "json" {
		h.Set("Content-Type", "application/json")
		return &export{w: w, logins: logins}
	}
	h.Set("Content-Type", "text/csv; charset=utf-8")
	e := &export{w: w, logins: logins, csv: csv.NewWriter(w)}
	e.csv.Write([]string{"seq", "time", "actor", "action", "tenant", "target", "detail", "actor_login", "target_login"}) // its error comes with the next
	return e
}

func (x *export) add(entries []postern.AuditEntry) error {
	for _, entry := range entries {
		e := exported{entry, x.logins[strings.TrimPrefix(entry.Actor, "user:")], x.logins[entry.Target]}
		if x.csv != nil {
			x.csv.Write([]string{
				strconv.FormatUint(e.Seq, 10), e.Time.Format(time.RFC3339), cell(e.Actor), cell(e.Action), cell(e.Tenant), cell(e.Target), cell(e.Detail),
				cell(e.ActorLogin), cell(e.TargetLogin),
			})
			continue
		}
		line, err := json.Marshal(e)
		if err != nil {
			return err
		}
		start := "[\n"
		if x.comma {
			start = ",\n"
		}
		x.comma = true
		if _, err := x.w.Write(append([]byte(start), line...)); err != nil {
			return err
		}
	}
	if x.csv != nil {
		x.csv.Flush()
		return x.csv.Error()
	}
	return nil
}

func (x *export) end() error {
	if x.csv != nil {
		return nil
	}
	end := "\n]\n"
	if !x.comma {
		end = "[]\n"
	}
	_, err := x.w.Write([]byte(end))
	return err
}

// cell keeps spreadsheets from taking s, which may be a stranger's text, for a
// formula.
func cell(s string) string {
	if s != "" && strings.ContainsRune("=+-@\t\r", rune(s[0])) {
		return "'" + s
	}
	return s
}
