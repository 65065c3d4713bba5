//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// axeFile is axe-core, as scripts/install-e2e puts it.
var axeFile = filepath.Join("..", "..", "build", "axe-core", "axe.min.js")

// axeSource is what axeFile holds.
var axeSource = sync.OnceValues(func() (string, error) {
	data, err := os.ReadFile(axeFile)
	return string(data), err
})

// axeRun judges the page by every rule of WCAG 2.2, levels A and AA.
const axeRun = `axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]}).then(r => ({
	passed: r.passes.length,
	violations: r.violations.flatMap(v => v.nodes.map(n => v.id + ": " + n.target.join(" ") + ": " + n.failureSummary)),
}))`

// A verdict is what axeRun found.
type verdict struct {
	Passed     int      `json:"passed"` // rules
	Violations []string `json:"violations"`
}

// tooWide lists what reaches out of the window, but for what scrolls in a parent.
const tooWide = `(() => {
	const scrolls = e => e && (getComputedStyle(e).overflowX != "visible" || scrolls(e.parentElement));
	return [...document.querySelectorAll("body *")]
		.filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !scrolls(getComputedStyle(e).position == "absolute" ? e.offsetParent : e.parentElement))
		.map(e => e.cloneNode().outerHTML.slice(0, 120));
})()`

// Widths, in CSS pixels, that every page has to be good at.
var lookWidths = []int64{360, 1280}

// look keeps pictures of the page at two widths, light and dark, and holds it to
// WCAG 2.2 AA in each: axe-core finds nothing, and nothing is wider than the
// window. It returns how many rules were passed.
func (b *browser) look(t testing.TB, name string) int {
	t.Helper()
	axe, err := axeSource()
	if err != nil {
		t.Fatalf("%v; scripts/install-e2e brings it", err)
	}
	ctx := b.within(t)
	passed := 0
	for _, scheme := range []string{"light", "dark"} {
		media := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		}}
		if _, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, media); err != nil {
			t.Fatal(err)
		}
		for _, width := range lookWidths {
			at := fmt.Sprintf("%s-%d-%s", name, width, scheme)
			if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, 900)); err != nil {
				t.Fatal(err)
			}
			b.screenshot(t, at)
			if wide := eval[int64](b, t, "document.documentElement.scrollWidth"); wide > width {
				t.Errorf("%s: the page is %d pixels wide, by %s", at, wide, eval[[]string](b, t, tooWide))
			}
			// Evaluated from outside, so that the page's CSP does not mind.
			eval[chromedp.Void](b, t, axe)
			v := eval[verdict](b, t, axeRun)
			if len(v.Violations) > 0 {
				t.Errorf("%s: WCAG: %s", at, strings.Join(v.Violations, "\n"))
			}
			if v.Passed == 0 {
				t.Errorf("%s: axe judged nothing", at)
			}
			passed += v.Passed
		}
	}
	for _, reset := range []func() error{
		func() error { return chromedp.Do(ctx, chromedp.ResetViewport()) },
		func() error {
			_, err := chromedp.Call(ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{})
			return err
		},
	} {
		if err := reset(); err != nil {
			t.Fatal(err)
		}
	}
	return passed
}

// eval returns the value of a JavaScript expression in the page, also a promised one.
func eval[T any](b *browser, t testing.TB, expression string) T {
	t.Helper()
	v, err := evaluate[T](b.within(t), expression)
	if err != nil {
		t.Fatalf("%.200s: %v", expression, err)
	}
	return v
}

// evaluate is eval that may fail, as it does while one page makes way for the next.
func evaluate[T any](tab context.Context, expression string) (T, error) {
	return chromedp.Run(tab, chromedp.Evaluate[T](expression, func(p *runtime.EvaluateParams) { p.AwaitPromise = new(true) }))
}

// TestLoginLook shows look something that it must not let pass.
func TestLoginLook(t *testing.T) {
	b := newBrowser(t)
	t.Cleanup(func() { // nothing for people to see
		files, _ := filepath.Glob(filepath.Join(screens, "wrong-*.png"))
		for _, f := range files {
			os.Remove(f)
		}
	})
	for name, page := range map[string]string{
		"image without a text": `<html lang=en><title>t</title><main><img src="data:,"></main>`,
		"grey on white":        `<html lang=en><title>t</title><main><p style="color: #ccc; background: #fff">words</p></main>`,
		"grey in the dark": `<html lang=en><title>t</title><style>p {color: #000; background: #fff}
			@media (prefers-color-scheme: dark) {p {color: #444; background: #222}}</style><main><p>words</p></main>`,
		"too wide": `<html lang=en><title>t</title><main><p style="width: 500px">words</p></main>`,
	} {
		t.Run(name, func(t *testing.T) {
			b.open(t, "data:text/html,"+strings.ReplaceAll(page, "#", "%23"))
			complaints := &complaints{TB: t}
			b.look(complaints, "wrong")
			if complaints.n == 0 {
				t.Error("nothing was found")
			}
		})
	}
}

// complaints is a test whose errors are counted in place of being reported.
type complaints struct {
	testing.TB
	n int
}

func (c *complaints) Errorf(string, ...any) { c.n++ }
