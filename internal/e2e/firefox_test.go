//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// A firefox is a Firefox with one tab, driven over WebDriver BiDi (W3C Working
// Draft). One goroutine uses it.
type firefox struct {
	t    testing.TB
	conn *websocket.Conn
	tab  string
	last int // command
}

// firefoxPrefs are all that differs from a Firefox as it is installed: it asks
// nobody anything by itself.
const firefoxPrefs = `user_pref("app.normandy.enabled", false);
user_pref("app.update.enabled", false);
user_pref("browser.contentblocking.report.lockwise.enabled", false);
user_pref("browser.newtabpage.enabled", false);
user_pref("browser.region.update.enabled", false);
user_pref("browser.safebrowsing.update.enabled", false);
user_pref("browser.search.update", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("browser.startup.page", 0);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("extensions.update.enabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("services.settings.server", "data:,none");
user_pref("toolkit.telemetry.enabled", false);
`

// newFirefox starts a Firefox that trusts caFiles beside the CAs that it came with.
func newFirefox(t testing.TB, caFiles ...string) *firefox {
	t.Helper()
	profile := t.TempDir()
	writeFile(t, filepath.Join(profile, "user.js"), firefoxPrefs)
	trust(t, profile, caFiles)
	p := start(t, "firefox", []string{"HOME=" + profile, "MOZ_HEADLESS=1"},
		"firefox-esr", "--no-remote", "--profile", profile, "--remote-debugging-port", "0", "about:blank")
	var url string
	eventually(t, time.Minute, func() error {
		if p.ended() {
			t.Fatalf("firefox ended: %s", p.out.tail(2000))
		}
		_, rest, _ := strings.Cut(p.out.String(), "WebDriver BiDi listening on ")
		var whole bool
		if url, _, whole = strings.Cut(rest, "\n"); !whole {
			return errors.New("firefox does not listen")
		}
		return nil
	})
	conn, _, err := websocket.Dial(t.Context(), strings.TrimSpace(url)+"/session", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.CloseNow() })
	conn.SetReadLimit(64 << 20)
	f := &firefox{t: t, conn: conn}
	f.must("session.new", map[string]any{"capabilities": map[string]any{}}, nil)
	var tree struct {
		Contexts []struct{ Context string }
	}
	f.must("browsingContext.getTree", map[string]any{}, &tree)
	f.tab = tree.Contexts[0].Context
	return f
}

// do sends a command and decodes its result into out, if not nil.
func (f *firefox) do(method string, params, out any) error {
	ctx, cancel := context.WithTimeout(f.t.Context(), pageTime)
	defer cancel()
	f.last++
	command, err := json.Marshal(map[string]any{"id": f.last, "method": method, "params": params})
	if err != nil {
		return err
	}
	if err := f.conn.Write(ctx, websocket.MessageText, command); err != nil {
		return fmt.Errorf("firefox: %s: %w", method, err)
	}
	for {
		_, data, err := f.conn.Read(ctx)
		if err != nil {
			return fmt.Errorf("firefox: %s: %w", method, err)
		}
		var answer struct {
			ID             int
			Type           string
			Result         json.RawMessage
			Error, Message string
		}
		if err := json.Unmarshal(data, &answer); err != nil {
			return err
		}
		switch {
		case answer.ID != f.last: // an event
		case answer.Type != "success":
			return fmt.Errorf("firefox: %s: %s: %s", method, answer.Error, answer.Message)
		case out == nil:
			return nil
		default:
			return json.Unmarshal(answer.Result, out)
		}
	}
}

// must is do for what has to work.
func (f *firefox) must(method string, params, out any) {
	f.t.Helper()
	if err := f.do(method, params, out); err != nil {
		f.t.Fatal(err)
	}
}

// open goes to url and waits until the page is there.
func (f *firefox) open(url string) error {
	return f.do("browsingContext.navigate", map[string]any{"context": f.tab, "url": url, "wait": "complete"}, nil)
}

// eval returns the value of a JavaScript expression, which is a string, or
// promises one.
func (f *firefox) eval(expression string) (string, error) {
	var got struct {
		Type             string
		Result           struct{ Type, Value string }
		ExceptionDetails struct{ Text string }
	}
	err := f.do("script.evaluate", map[string]any{
		"expression": expression, "target": map[string]any{"context": f.tab}, "awaitPromise": true,
	}, &got)
	if err == nil && (got.Type != "success" || got.Result.Type != "string") {
		err = fmt.Errorf("firefox: got a %s %s", got.Result.Type, got.ExceptionDetails.Text)
	}
	return got.Result.Value, err
}
