//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// screens is where pictures of what the browser showed go.
var screens = filepath.Join(reports, "screens")

// pageTime bounds how long a page may take.
const pageTime = 30 * time.Second

// TestBrowserLedgers opens both tenants' books in Chromium, posts a voucher in
// one, and finds it there and not in the other.
func TestBrowserLedgers(t *testing.T) {
	d := newDeployment(t)
	for _, tenant := range []string{"acme", "globex"} {
		d.node(d.tenant(tenant), tenant+"-office", d.startLedger(tenant))
	}
	b := newBrowser(t, d.caFile())
	owners := map[string]string{"acme": "Acme", "globex": "Globex"}
	for tenant, owner := range owners {
		t.Run(tenant, func(t *testing.T) {
			page := b.open(t, d.url(tenant, "/"))
			if page.Status != 200 || page.Protocol != "h2" {
				t.Errorf("got status %d over %s, want 200 over h2", page.Status, page.Protocol)
			}
			text := b.text(t, "body")
			host := fmt.Sprintf("%s.%s:%d", tenant, base, d.https)
			for _, want := range []string{owner, "127.0.0.1", "https", host} {
				if !strings.Contains(text, want) {
					t.Errorf("the page lacks %q: %s", want, text)
				}
			}
			for other, name := range owners {
				if other != tenant && strings.Contains(text, name) {
					t.Errorf("the page of %s tells of %s: %s", tenant, other, text)
				}
			}
			b.screenshot(t, tenant+"-companies")
			b.open(t, d.url(tenant, "/companies/1"))
			b.screenshot(t, tenant+"-overview")
			if text := b.text(t, "body"); strings.Contains(text, "was posted") {
				t.Errorf("the page tells of a voucher that nobody posted: %s", text)
			}
		})
	}
	t.Run("post a voucher", func(t *testing.T) { d.testPosting(t, b) })
}

// testPosting fills in the form for a voucher as a person does.
func (d *deployment) testPosting(t *testing.T, b *browser) {
	const words = "Oak boards through the tunnel"
	b.open(t, d.url("acme", "/companies/1/vouchers/new"))
	row := func(n int, field string) chromedp.CSS {
		return chromedp.CSS(fmt.Sprintf("table.entry tbody tr:nth-child(%d) [name=%s]", n, field))
	}
	account := func(n int) string { // the value of the n-th account that can be chosen
		t.Helper()
		value, err := chromedp.Run(b.within(t), chromedp.Evaluate[string](
			fmt.Sprintf("document.querySelector('[name=account]').options[%d].value", n)))
		if err != nil || value == "" {
			t.Fatalf("no account to choose: %q, %v", value, err)
		}
		return value
	}
	err := chromedp.Do(b.within(t),
		chromedp.SendKeys(chromedp.ID("text"), words),
		chromedp.SetValue(row(1, "account"), account(1)),
		chromedp.SendKeys(row(1, "debit"), "123.45"),
		chromedp.SetValue(row(2, "account"), account(2)),
		chromedp.SendKeys(row(2, "credit"), "123.45"),
	)
	if err != nil {
		t.Fatal(err)
	}
	b.screenshot(t, "acme-voucher-form")
	// No name: the second button is for more lines.
	submit := chromedp.CSS("#voucher button[type=submit]:not([name])")
	if _, err := chromedp.RunResponse(b.within(t), chromedp.Click(submit)); err != nil {
		t.Fatal(err)
	}
	if text := b.text(t, "main"); !strings.Contains(text, words) || !strings.Contains(text, "Posted as") {
		t.Errorf("what follows the form does not tell of the voucher: %s", text)
	}
	b.screenshot(t, "acme-voucher-posted")
	for tenant, want := range map[string]bool{"acme": true, "globex": false} {
		b.open(t, d.url(tenant, "/companies/1"))
		if text := b.text(t, "body"); strings.Contains(text, words) != want {
			t.Errorf("%s shows the voucher: %v, want %v; the page is %s", tenant, !want, want, text)
		}
	}
}

// TestBrowserErrors shows in Chromium what goes wrong on the way.
func TestBrowserErrors(t *testing.T) {
	r := newRoad(t)
	b := newBrowser(t, r.caFile())
	t.Run("unknown name", func(t *testing.T) {
		b.fails(t, r.url("nobody", "/"), "net::ERR_SSL_UNRECOGNIZED_NAME_ALERT")
		b.screenshot(t, "unknown-name")
	})
	t.Run("application down", func(t *testing.T) {
		r.acme.stop()
		if page := b.open(t, r.url("acme", "/")); page.Status != 502 {
			t.Errorf("got status %d, want 502", page.Status)
		}
		if text := b.text(t, "body"); !strings.Contains(text, "not answering") {
			t.Errorf("the page does not say what is wrong: %s", text)
		}
		b.screenshot(t, "application-down")
		r.acme.again(t)
		if b.open(t, r.url("acme", "/")); b.text(t, "body") != "acme" {
			t.Error("the application is back and not seen")
		}
	})
	t.Run("node away", func(t *testing.T) {
		r.globexNode.stop()
		begin := time.Now()
		b.fails(t, r.url("globex", "/"), "net::ERR_SSL_PROTOCOL_ERROR")
		noteFigure(t, "browser", "error page of an absent node", time.Since(begin).Seconds(), "s")
		b.screenshot(t, "node-away")
	})
	t.Run("certificate not trusted", func(t *testing.T) {
		newBrowser(t).fails(t, r.url("acme", "/"), "net::ERR_CERT_AUTHORITY_INVALID")
	})
}

// startLedger starts the demo's bookkeeping program with sample books and
// returns its URL.
func (d *deployment) startLedger(sample string) string {
	d.t.Helper()
	p := start(d.t, sample+" ledger", nil, program("ledger"), "-listen", "127.0.0.1:0",
		"-data", d.data(sample+".db"), "-sample", sample, "-title", sample+" books", "-trust-postern")
	var url string
	eventually(d.t, 20*time.Second, func() error {
		_, rest, ok := strings.Cut(p.out.String(), "ledger: listening on ")
		var whole bool
		if url, _, whole = strings.Cut(rest, "\n"); !ok || !whole {
			return errors.New("the ledger does not listen")
		}
		return nil
	})
	return url
}

// A browser is a Chromium with one tab.
type browser struct{ tab context.Context }

// newBrowser starts a Chromium with a home of its own, where it trusts caFiles
// beside the CAs that it came with.
func newBrowser(t *testing.T, caFiles ...string) *browser {
	t.Helper()
	home := t.TempDir()
	trust(t, filepath.Join(home, ".pki", "nssdb"), caFiles)
	ctx, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.DisableGPU,
		chromedp.Env("HOME="+home), chromedp.UserDataDir(filepath.Join(home, "profile")),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.WindowSize(1200, 900),
	)...)
	t.Cleanup(stop)
	tab, closeTab := chromedp.NewContext(ctx)
	t.Cleanup(closeTab)
	if err := chromedp.Do(tab); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return &browser{tab}
}

// trust makes the database of the CAs that a browser trusts.
func trust(t testing.TB, db string, caFiles []string) {
	t.Helper()
	if err := os.MkdirAll(db, 0o700); err != nil {
		t.Fatal(err)
	}
	must(t, "certutil", "-d", "sql:"+db, "-N", "--empty-password")
	for _, file := range caFiles {
		must(t, "certutil", "-d", "sql:"+db, "-A", "-n", file, "-t", "C,,", "-i", file)
	}
}

// within returns the tab for as long as a page may take.
func (b *browser) within(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(b.tab, pageTime)
	t.Cleanup(cancel)
	return ctx
}

// A page is how a page came.
type page struct {
	Status   int64
	Protocol string
}

// open goes to url and waits until the page is there.
func (b *browser) open(t testing.TB, url string) page {
	t.Helper()
	resp, err := chromedp.Run(b.within(t), chromedp.NavigateResponse(url))
	if err != nil {
		t.Fatalf("open %s: %v", url, err)
	}
	return page{resp.Status, resp.Protocol}
}

// fails goes to url, which must end in Chromium's error want.
func (b *browser) fails(t testing.TB, url, want string) {
	t.Helper()
	err := chromedp.Do(b.within(t), chromedp.Navigate(url))
	var failed *chromedp.LoadError
	if !errors.As(err, &failed) || failed.ErrorText != want {
		t.Errorf("open %s: got %v, want %s", url, err, want)
	}
}

// text returns what can be read in the element.
func (b *browser) text(t testing.TB, selector string) string {
	t.Helper()
	return settled(b, t, chromedp.Text(chromedp.CSS(selector)))
}

// settled does what fails while the tab still changes from one page to the next,
// until it works.
func settled[T any](b *browser, t testing.TB, action chromedp.Action[T]) (result T) {
	t.Helper()
	ctx := b.within(t)
	eventually(t, pageTime, func() (err error) {
		result, err = chromedp.Run(ctx, action)
		return err
	})
	return result
}

// screenshot keeps what the tab shows as a picture for people.
func (b *browser) screenshot(t testing.TB, name string) {
	t.Helper()
	png := settled(b, t, chromedp.FullScreenshot(100))
	keepScreen(t, name, png)
}

// keepScreen keeps a picture for people.
func keepScreen(t testing.TB, name string, png []byte) {
	t.Helper()
	if err := os.MkdirAll(screens, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(screens, name+".png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}
