//go:build e2e

package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"postern"
)

// joinsIn has somebody take an invitation in a browser of their own.
func (e *estate) joinsIn(t *testing.T, chrome *browser, login, tenant string, grant postern.GrantRequest) *browser {
	t.Helper()
	link := e.invite(login, login)
	e.grant(login, tenant, grant)
	p := chrome.person(t)
	p.open(t, link)
	p.fill(t, "#password", annPassword)
	p.click(t, "#accept > button")
	p.arrives(t, e.portal("/"), "Services")
	return p
}

// curl runs curl against a page of acme, and returns what it was answered and the
// status.
func (e *estate) curl(t *testing.T, path string, args ...string) (string, string) {
	t.Helper()
	out := must(t, slices.Concat([]string{"curl", "-sS", "--cacert", e.caFile(), "-w", "\n%{http_code}"}, args, []string{e.url("acme", path)})...)
	at := strings.LastIndex(out, "\n")
	return out[:at], out[at+1:]
}

// TestLoginPrograms speaks to acme by programs: with a personal token, and with what
// postern login prints.
func TestLoginPrograms(t *testing.T) {
	e := newEstate(t, nil, map[string]string{"acme": membersOnly, "globex": membersOnly})
	chrome := newBrowser(t, e.caFile())
	ann := e.joinsIn(t, chrome, "ann", "acme", postern.GrantRequest{})
	t.Run("nobody", func(t *testing.T) {
		body, status := e.curl(t, "/seen", "-D", "-")
		if status != "401" || !strings.Contains(strings.ToLower(body), "www-authenticate: bearer") || !strings.Contains(body, `"unauthorized"`) {
			t.Errorf("status %s, %s", status, body)
		}
	})
	t.Run("personal token", func(t *testing.T) { e.personalToken(t, ann) })
	t.Run("device", func(t *testing.T) { e.device(t, ann) })
}

// personalToken has ann make a token on her page at the node.
func (e *estate) personalToken(t *testing.T, ann *browser) {
	ann.open(t, e.url("acme", "/"))
	ann.arrives(t, e.url("acme", "/"), "acme")
	ann.open(t, e.url("acme", "/.well-known/postern/tokens"))
	ann.fill(t, "#name", "monthly report")
	ann.click(t, "main form button")
	ann.shows(t, "main", "This is the new token")
	token := eval[string](ann, t, "document.querySelector('.secret code').innerText")
	ann.look(t, "login-node-token-made")
	bearer := []string{"-H", "Authorization: Bearer " + token}

	body, status := e.curl(t, "/seen", bearer...)
	var got seen
	if err := json.Unmarshal([]byte(body), &got); err != nil || status != "200" {
		t.Fatalf("status %s: %s", status, body)
	}
	if got.Header.Get("Postern-User") != "ann" || got.Header.Get("Authorization") != "" {
		t.Errorf("the application was told %v", got.Header)
	}
	if _, status := e.curl(t, "/bytes", append(bearer, "-X", "PUT", "--data", "x")...); status != "403" {
		t.Errorf("writing with a token for reading: status %s", status)
	}
	wrong := []byte(token)
	wrong[len(wrong)-1] ^= 1
	if _, status := e.curl(t, "/seen", "-H", "Authorization: Bearer "+string(wrong)); status != "401" {
		t.Errorf("a token that is nearly right: status %s", status)
	}
	ann.open(t, e.url("acme", "/.well-known/postern/tokens"))
	if text := ann.text(t, "main"); !strings.Contains(text, "last used") || strings.Contains(text, token) {
		t.Errorf("the page says %s", text)
	}
	ann.click(t, "form[action$='/revoke'] button")
	ann.shows(t, "main", "You have none")
	if _, status := e.curl(t, "/seen", bearer...); status != "401" {
		t.Errorf("the revoked token: status %s", status)
	}
}

// device has ann let a program in that shows her a code.
func (e *estate) device(t *testing.T, ann *browser) {
	host := strings.TrimPrefix(e.url("acme", ""), "https://")
	login := []string{program("postern"), "login", host, "--ca", e.caFile(), "--data", e.data("logins")}
	out := e.data("access-token")
	p := start(t, "login", nil, slices.Concat([]string{"sh", "-c", `out=$1; shift; "$@" >"$out"`, "sh", out}, login)...)
	link := regexp.MustCompile(`https://portal\S+`)
	code := regexp.MustCompile(`the code +(\S+)`)
	var at, shown string
	eventually(t, pageTime, func() error {
		at = link.FindString(p.out.String())
		if m := code.FindStringSubmatch(p.out.String()); m != nil {
			shown = m[1]
		}
		if at == "" || shown == "" {
			return fmt.Errorf("postern login says %s", p.out.String())
		}
		return nil
	})
	ann.open(t, e.portal("/device"))
	ann.look(t, "login-device")
	ann.fill(t, "#user_code", "BCDF-GHJK")
	ann.click(t, "main form button")
	ann.shows(t, "main .note", "code")
	ann.look(t, "login-device-wrong")
	ann.open(t, at)
	ann.shows(t, "main", shown)
	ann.look(t, "login-device-asks")
	ann.click(t, "button[value=allow]")
	ann.shows(t, "main", "The program is let in")
	ann.look(t, "login-device-done")
	select {
	case <-p.done:
	case <-time.After(pageTime):
		t.Fatalf("postern login does not end: %s", p.out.String())
	}
	data, err := os.ReadFile(out)
	token := strings.TrimSpace(string(data))
	if err != nil || token == "" {
		t.Fatalf("postern login printed %q, %v: %s", token, err, p.out.String())
	}
	body, status := e.curl(t, "/seen", "-H", "Authorization: Bearer "+token)
	if status != "200" || !strings.Contains(body, `"ann"`) {
		t.Errorf("status %s: %s", status, body)
	}
	if got := e.visitor(t).ask("GET", e.url("globex", "/seen"), nil, asProgram("Bearer "+token)); got.status != http.StatusUnauthorized {
		t.Errorf("at another host: status %d", got.status)
	}
	// Again, without asking; and no more once the session was ended.
	again := strings.TrimSpace(must(t, login...))
	if _, status := e.curl(t, "/seen", "-H", "Authorization: Bearer "+again); status != "200" {
		t.Errorf("the next token: status %s", status)
	}
	ann.open(t, e.portal("/account"))
	ann.shows(t, "main", "device")
	begin := time.Now()
	eval[bool](ann, t, "[...document.querySelectorAll('.rows li')].find(l => l.innerText.includes('device')).querySelector('form[action$=\"/end\"] button').click(), true")
	eventually(t, pageTime, func() error {
		if _, status := e.curl(t, "/seen", "-H", "Authorization: Bearer "+again); status != "401" {
			return errors.New("the program's token still works: status " + status)
		}
		return nil
	})
	took := time.Since(begin)
	noteFigure(t, "login", "program out after its session was ended", took.Seconds(), "s")
	if took > revocationTime+revocationSlack {
		t.Errorf("it took %v", took)
	}
}
