//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"

	cdpfetch "github.com/chromedp/cdproto/fetch"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// person returns a tab whose cookies are no other's, as if it were somebody else's
// browser.
func (b *browser) person(t testing.TB) *browser {
	t.Helper()
	tab, closeTab := chromedp.NewContext(b.tab, chromedp.WithNewBrowserContext())
	t.Cleanup(closeTab)
	if err := chromedp.Do(tab); err != nil {
		t.Fatalf("another person's tab: %v", err)
	}
	return &browser{tab}
}

// authenticator gives the tab an authenticator that holds passkeys, and whose owner
// is always there and verified.
func (b *browser) authenticator(t testing.TB) {
	t.Helper()
	if _, err := chromedp.Call(b.within(t), webauthn.Enable, webauthn.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	_, err := chromedp.Call(b.within(t), webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{
		Options: &webauthn.VirtualAuthenticatorOptions{
			Protocol: webauthn.AuthenticatorProtocolCtap2, Transport: webauthn.AuthenticatorTransportInternal,
			HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// fill types text into an input in place of what stands there.
func (b *browser) fill(t testing.TB, selector, text string) {
	t.Helper()
	err := chromedp.Do(b.within(t), chromedp.WaitVisible(chromedp.CSS(selector)),
		chromedp.Evaluate[chromedp.Void](fmt.Sprintf("document.querySelector(%q).value = ''", selector)),
		chromedp.SendKeys(chromedp.CSS(selector), text))
	if err != nil {
		t.Fatalf("type into %s: %v; the page is %s", selector, err, b.text(t, "body"))
	}
}

// toFront shows the tab: one in the background draws nothing to aim at, and hears no keys.
func (b *browser) toFront(t testing.TB) {
	t.Helper()
	if _, err := chromedp.Call(b.within(t), cdppage.BringToFront, struct{}{}); err != nil {
		t.Fatalf("bring the tab to the front: %v", err)
	}
}

// click clicks what the selector leads to, once it can be seen.
func (b *browser) click(t testing.TB, selector string) {
	t.Helper()
	b.toFront(t)
	if err := chromedp.Do(b.within(t), chromedp.Click(chromedp.CSS(selector))); err != nil {
		t.Fatalf("click %s: %v; the page is %s", selector, err, b.text(t, "body"))
	}
}

// press presses keys, as a keyboard does. A character that a page prevents when its key
// goes down is not typed, which chromedp.KeyEvent would do all the same.
func (b *browser) press(t testing.TB, keys string) {
	t.Helper()
	b.toFront(t)
	for _, r := range keys {
		for _, event := range kb.Encode(r) {
			switch event.Type {
			case kb.KeyChar:
				continue
			case kb.KeyDown:
				event.Text = kb.Keys[r].Text
			}
			if _, err := chromedp.Call(b.within(t), input.DispatchKeyEvent, *event); err != nil {
				t.Fatalf("press %q: %v", r, err)
			}
		}
	}
}

// stops clicks what the selector leads to, as click does, and keeps the tab on the page
// that answers, when that goes on to what matches pattern by itself.
func (b *browser) stops(t testing.TB, selector, pattern string) {
	t.Helper()
	b.toFront(t)
	params := cdpfetch.EnableParams{Patterns: []*cdpfetch.RequestPattern{{URLPattern: pattern}}}
	if _, err := chromedp.Call(b.within(t), cdpfetch.Enable, params); err != nil {
		t.Fatal(err)
	}
	on, err := chromedp.Run(b.within(t), chromedp.WaitEvent(cdpfetch.RequestPaused, nil, chromedp.Click(chromedp.CSS(selector))))
	if err != nil {
		t.Fatalf("click %s: no page goes on to %s: %v; the page is %s", selector, pattern, err, b.text(t, "body"))
	}
	abort := cdpfetch.FailRequestParams{RequestID: on.RequestID, ErrorReason: network.ErrorReasonAborted}
	if _, err := chromedp.Call(b.within(t), cdpfetch.FailRequest, abort); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(b.within(t), cdpfetch.Disable, struct{}{}); err != nil {
		t.Fatal(err)
	}
}

// arrives waits until the tab is at a URL that begins so, and the page says words.
func (b *browser) arrives(t testing.TB, url, words string) {
	t.Helper()
	eventually(t, pageTime, func() error { return b.at(url, words) })
}

// at reports whether the tab is at a URL that begins so, on a page that says words.
func (b *browser) at(url, words string) error {
	now, err := chromedp.Run(b.tab, chromedp.Evaluate[struct{ URL, Text string }](
		`({URL: location.href, Text: document.readyState == "complete" ? document.body.innerText : ""})`))
	switch {
	case err != nil:
		return err
	case !strings.HasPrefix(now.URL, url) || !strings.Contains(now.Text, words):
		return fmt.Errorf("the tab is at %s, want %s and %q; the page says: %s", now.URL, url, words, now.Text)
	}
	return nil
}
