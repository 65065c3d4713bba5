package portal

import (
	"cmp"
	"fmt"
	"html/template"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"rsc.io/qr"

	"postern"
	"postern/coordinator"
	"postern/internal/accept"
)

// A tokens is what the tokens' page is made from. Who operates the whole deployment adds
// companies there, too: a token is the next that each needs.
type tokens struct {
	All     bool   // who looks does
	Acme    string // where a company called acme would publish
	Tenants []postern.Tenant
	Titles  titles
	Tokens  []postern.IssuedToken
	Form    tokenForm
	Problem *postern.Problem

	Company        postern.TenantRequest // that was filled in
	CompanyProblem *postern.Problem
}

// A tokenForm is what was filled in to make a token.
type tokenForm struct{ For, Uses, Days, Note string }

var newTokenForm = tokenForm{Uses: "1", Days: "1"}

// forGateway is a tokenForm's For of a token for a gateway; no tenant has that name.
const forGateway = "gateway"

func (p *Portal) tokensPage(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	p.showTokens(w, r, o, tokens{Form: newTokenForm})
}

// showTokens answers with v, which has what was filled in and what was wrong with it.
func (p *Portal) showTokens(w http.ResponseWriter, r *http.Request, o *coordinator.Operator, v tokens) {
	overview, err := o.Status(r.Context())
	if err != nil {
		p.fail(w, r, err)
		return
	}
	v.All, v.Acme = o.All(), p.c.HostURL("acme."+overview.Base)
	if v.Tenants, err = o.Tenants(r.Context()); err != nil {
		p.fail(w, r, err)
		return
	}
	v.Titles = titlesOf(v.Tenants)
	if v.Tokens, err = o.Tokens(r.Context(), ""); err != nil {
		p.fail(w, r, err)
		return
	}
	slices.SortFunc(v.Tokens, func(a, b postern.IssuedToken) int { return b.Created.Compare(a.Created) })
	status := http.StatusOK
	if problem := cmp.Or(v.Problem, v.CompanyProblem); problem != nil {
		status = problem.Status
	}
	p.render(w, r, status, "tokens", v)
}

// addCompany adds a tenant.
func (p *Portal) addCompany(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	req := postern.TenantRequest{Name: label(r.PostFormValue("name")), Title: strings.TrimSpace(r.PostFormValue("title"))}
	_, err := o.AddTenant(r.Context(), req)
	switch problem := problemIn(err); {
	case err == nil:
		p.done(w, r, "/admin/tokens", "company")
	case problem != nil && o.All() && accept.HTML(r):
		p.showTokens(w, r, o, tokens{Form: newTokenForm, Company: req, CompanyProblem: problem})
	default:
		p.fail(w, r, err)
	}
}

// request returns what f asks for.
func (f tokenForm) request() (postern.TokenRequest, *postern.Problem) {
	req := postern.TokenRequest{Tenant: f.For, Note: f.Note}
	if f.For == forGateway {
		req.Tenant, req.Role = "", postern.RoleGateway
	}
	uses, err := strconv.Atoi(strings.TrimSpace(f.Uses))
	if err != nil || uses < 1 {
		return req, postern.NewProblem(http.StatusUnprocessableEntity, postern.CodeInvalid, "the number of machines is no number above 0", "1 is what most need")
	}
	days, err := strconv.Atoi(strings.TrimSpace(f.Days))
	if err != nil || days < 1 || days > 30 {
		return req, postern.NewProblem(http.StatusUnprocessableEntity, postern.CodeInvalid, "the number of days is not between 1 and 30", "1 is what most need")
	}
	req.Uses, req.TTL = uses, postern.Duration(time.Duration(days)*24*time.Hour)
	return req, nil
}

// A madeToken is what the page is made from that shows a token, once.
type madeToken struct {
	postern.CreatedToken
	Title   string // the tenant's; empty: a gateway's
	Command string
	Picture template.HTML
}

func (p *Portal) createToken(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	form := tokenForm{For: r.PostFormValue("for"), Uses: r.PostFormValue("uses"), Days: r.PostFormValue("days"), Note: r.PostFormValue("note")}
	req, problem := form.request()
	if problem != nil {
		p.showTokens(w, r, o, tokens{Form: form, Problem: problem})
		return
	}
	created, err := o.CreateToken(r.Context(), req)
	if problem := problemIn(err); problem != nil {
		p.showTokens(w, r, o, tokens{Form: form, Problem: problem})
		return
	}
	if err != nil {
		p.fail(w, r, err)
		return
	}
	tenants, err := o.Tenants(r.Context())
	if err != nil {
		p.log.Warn("titles of tenants not known", "err", err)
	}
	picture, err := picture(created.Secret)
	if err != nil {
		p.log.Warn("no picture of a token", "err", err)
	}
	p.render(w, r, http.StatusOK, "token", madeToken{created, titlesOf(tenants).Of(created.Tenant), joinCommand(created), picture})
}

// joinCommand returns what to type on the machine that is to join. The token goes
// to standard input: what is on a command line, others on the machine can read.
func joinCommand(t postern.CreatedToken) string {
	command := "postern node join --publish http://localhost:9000 --token-file -"
	if t.Role == postern.RoleGateway {
		command = "postern gateway join --coordinator https://COORDINATOR:8443 --token-file -"
	}
	return command + " <<'END'\n" + t.Secret + "\nEND"
}

// picture returns s as a QR code (ISO/IEC 18004) with its quiet zone.
func picture(s string) (template.HTML, error) {
	code, err := qr.Encode(s, qr.L)
	if err != nil {
		return "", fmt.Errorf("QR code: %w", err)
	}
	const quiet = 4
	var path strings.Builder
	for y := range code.Size {
		for x := 0; x < code.Size; x++ {
			start := x
			for x < code.Size && code.Black(x, y) {
				x++
			}
			if x > start {
				fmt.Fprintf(&path, "M%d %dh%dv1h-%dz", start+quiet, y+quiet, x-start, x-start)
			}
		}
	}
	size := code.Size + 2*quiet
	return template.HTML(fmt.Sprintf(`<svg class="qr" viewBox="0 0 %d %d" role="img" aria-label="The token as a QR code" shape-rendering="crispEdges"><rect width="%d" height="%d" fill="#fff"/><path d="%s" fill="#000"/></svg>`,
		size, size, size, size, path.String())), nil
}

func (p *Portal) revokeToken(w http.ResponseWriter, r *http.Request, _ coordinator.User, o *coordinator.Operator) {
	var id postern.TokenID
	if err := id.UnmarshalText([]byte(r.PathValue("id"))); err != nil {
		p.nothingHere(w, r)
		return
	}
	if err := o.RevokeToken(r.Context(), id); err != nil {
		p.fail(w, r, err)
		return
	}
	p.done(w, r, "/admin/tokens", "untoken")
}
