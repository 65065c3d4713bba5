package portal_test

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"postern"
	"postern/coordinator/portal"
)

// inline is what the content policy would not let a browser do.
var inline = regexp.MustCompile(`(?i)<style|\sstyle=|<script(?:[^>]*)>[^<]|\son[a-z]+=|javascript:|hx-on|hx-vals`)

// TestEveryPage: whoever sees it, each page has its headers, its landmarks, and
// nothing inside it that its policy forbids.
func TestEveryPage(t *testing.T) {
	d := deploy(t, nil)
	acme := newCompany(d, "acme", "Acme AG", ledger)
	u := d.operator("root")
	_, err := d.Local().Grant(t.Context(), u.ID, "acme", postern.GrantRequest{Role: postern.TenantOwner})
	must(t, err)
	guest, err := d.Local().AddUser(t.Context(), postern.UserRequest{Login: "guest"})
	must(t, err)
	d.typist("ada")
	in, out := d.signedIn("root"), d.browser()
	sure, key := d.holder("carl")
	sure.ask("/account/confirm/passkey/finish", key.get(sure.begin("/account/confirm/passkey")), nil).want(200)
	offline := in.get("/open/acme/default")
	acme.come()
	pages := []*answer{
		offline, out.get("/sign-in"), out.get("/invite/" + d.invitation(guest.ID)), out.get("/invite/nonsense"), out.get("/nowhere"),
		out.post("/sign-in", "login", "x", "password", "y"), d.browser().post("/sign-in", "login", "ada", "password", password, "next", "/continue?id=1"),
		in.get("/"), in.get("/nowhere"), in.get("/account"), sure.get("/account"), in.get("/open/nobody/nothing"), in.get("/admin/people"), in.get("/admin/people/" + u.ID),
		in.get("/admin/nodes"), in.get("/admin/routes"), in.get("/admin/tokens"), in.get("/admin/audit"),
		in.post("/admin/people/" + guest.ID + "/invite"), in.post("/admin/tokens", "for", "acme", "uses", "1", "days", "1"),
	}
	for _, a := range pages {
		t.Run(a.what, func(t *testing.T) {
			for name, want := range map[string]string{
				"Content-Type": "text/html; charset=utf-8", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store",
				"Cross-Origin-Opener-Policy": "same-origin", "Referrer-Policy": "same-origin",
				"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
			} {
				if got := a.header.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
			if !strings.Contains(a.header.Get("Permissions-Policy"), "camera=()") {
				t.Errorf("Permissions-Policy is %q", a.header.Get("Permissions-Policy"))
			}
			if bad := inline.FindString(a.body); bad != "" {
				t.Errorf("something inline: %q", bad)
			}
			for _, element := range []string{"<main", "<h1", "<title>", `lang="en"`} {
				if n := strings.Count(a.body, element); n < 1 || n > 1 && element == "<main" {
					t.Errorf("%d times %s", n, element)
				}
			}
			if strings.Contains(a.body, "ZgotmplZ") || strings.Contains(a.body, "<no value>") {
				t.Error("a value was not put into the page")
			}
		})
	}
}

// TestCellsOnPhones: where a table's head has no room, each cell says what column it is
// of, but for what people press.
func TestCellsOnPhones(t *testing.T) {
	files, err := filepath.Glob("templates/*.html")
	must(t, err)
	tables := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		for _, table := range regexp.MustCompile(`(?s)<table.*?</table>`).FindAllString(string(text), -1) {
			tables++
			for _, cell := range regexp.MustCompile(`(?s)<td([^>]*)>(.*?)</td>`).FindAllStringSubmatch(table, -1) {
				_, label, ok := strings.Cut(cell[1], `data-label="`)
				label, _, _ = strings.Cut(label, `"`)
				switch {
				case ok && !strings.Contains(table, `<th scope="col">`+label+`</th>`):
					t.Errorf("%s: there is no column %q", file, label)
				case !ok && cell[2] != "" && !strings.Contains(cell[2], "<button"):
					t.Errorf("%s: of which column is %q?", file, cell[0])
				}
			}
		}
	}
	if tables < 6 {
		t.Errorf("there are only %d tables", tables)
	}
}

func TestFiles(t *testing.T) {
	d := deploy(t, nil)
	b := d.browser()
	page := b.get("/sign-in").want(200)
	files := regexp.MustCompile(`(?:href|src)="(/(?:static|logo)[^"]*)"`).FindAllStringSubmatch(page.body, -1)
	if len(files) < 6 {
		t.Fatalf("the page has only %q", files)
	}
	for _, f := range files {
		a := b.get(f[1]).want(200)
		if got := a.header.Get("Cache-Control"); got != "public, max-age=31536000, immutable" {
			t.Errorf("%s: Cache-Control is %q", f[1], got)
		}
		if strings.HasPrefix(a.header.Get("Content-Type"), "text/plain") || len(a.body) < 100 {
			t.Errorf("%s is %q, %d bytes", f[1], a.header.Get("Content-Type"), len(a.body))
		}
	}
	old := b.get("/static/000000000000/portal.css").want(200)
	if got := old.header.Get("Cache-Control"); got != "no-store" {
		t.Errorf("another version is kept: %q", got)
	}
	b.get("/static/x/nothing.js").want(404)
	b.get("/static/x/..%2f..%2fportal.go").want(404)
	b.get("/health").want(200, "ok")
}

func TestBranding(t *testing.T) {
	const logo = `<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>`
	d := deploy(t, func(cfg *portal.Config) { cfg.Name, cfg.Logo = "Acme <Cloud>", []byte(logo) })
	b := d.browser()
	a := b.get("/sign-in").want(200, "Acme <Cloud>").wantNot("Postern")
	got := b.get(a.find(`<img src="(/logo[^"]*)"`)).want(200)
	if got.body != logo || got.header.Get("Content-Type") != "image/svg+xml" {
		t.Errorf("the logo is %q, %q", got.body, got.header.Get("Content-Type"))
	}
	if policy := got.header.Get("Content-Security-Policy"); !strings.Contains(policy, "default-src 'none'") || !strings.Contains(policy, "sandbox") {
		t.Errorf("the logo may do what %q lets it", policy)
	}
	for name, data := range map[string][]byte{"HTML": []byte("<html>"), "text": []byte("logo"), "huge": make([]byte, 2<<20)} {
		if _, err := portal.New(portal.Config{Coordinator: d.Coordinator, Logo: data}); err == nil {
			t.Errorf("%s was taken for a logo", name)
		}
	}
	if _, err := portal.New(portal.Config{Coordinator: d.Coordinator, Logo: []byte("\x89PNG\r\n\x1a\n")}); err != nil {
		t.Error(err)
	}
}

// TestIcons: each icon that a service may have is there.
func TestIcons(t *testing.T) {
	d := deploy(t, nil)
	var services []postern.Service
	for _, icon := range postern.Icons {
		services = append(services, postern.Service{Name: icon, Icon: icon})
	}
	services = append(services, postern.Service{Name: "none"})
	newCompany(d, "acme", "Acme", services...)
	d.member("ada", "acme", postern.TenantMember)
	a := d.signedIn("ada").get("/").want(http.StatusOK)
	pictures := map[string]bool{}
	for _, m := range regexp.MustCompile(`<span class="sign">(<svg.*?</svg>)</span>`).FindAllStringSubmatch(a.body, -1) {
		pictures[m[1]] = true
	}
	if len(pictures) != len(postern.Icons) {
		t.Errorf("%d pictures for %d icons", len(pictures), len(postern.Icons))
	}
}
