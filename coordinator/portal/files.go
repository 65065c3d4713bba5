package portal

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"path"
	"strings"
	"sync"
	"time"
)

//go:embed static/*.css static/*.js static/*.svg static/vendor/*.js icons/*.svg templates/*.html
var embedded embed.FS

// A file is something that browsers fetch and keep: its version follows from what
// is in it.
type file struct {
	data    []byte
	media   string
	version string
}

func newFile(data []byte, media string) file {
	sum := sha256.Sum256(data)
	return file{data, media, hex.EncodeToString(sum[:6])}
}

// static are the files below /static/, by name.
var staticFiles = sync.OnceValue(func() map[string]file {
	all := map[string]file{}
	for _, dir := range []string{"static", "static/vendor"} {
		entries, err := embedded.ReadDir(dir)
		if err != nil {
			panic("portal: embedded files: " + err.Error())
		}
		for _, e := range entries {
			if e.IsDir() {
				continue
			}
			data, err := embedded.ReadFile(path.Join(dir, e.Name()))
			if err != nil {
				panic("portal: embedded files: " + err.Error())
			}
			all[e.Name()] = newFile(data, mediaTypes[path.Ext(e.Name())])
		}
	}
	return all
})

var mediaTypes = map[string]string{
	".css": "text/css; charset=utf-8",
	".js":  "text/javascript; charset=utf-8",
	".svg": "image/svg+xml",
}

// staticURL returns the path of the static file called name.
func staticURL(name string) (string, error) {
	f, ok := staticFiles()[name]
	if !ok {
		return "", errors.New("no static file " + name)
	}
	return "/static/" + f.version + "/" + name, nil
}

func (p *Portal) static(w http.ResponseWriter, r *http.Request) {
	f, ok := staticFiles()[r.PathValue("name")]
	if !ok {
		p.nothingHere(w, r)
		return
	}
	f.serve(w, r, r.PathValue("version"))
}

// serve answers r, which asked for a version of f. Who asks for another one, as
// pages do that were open while the program was replaced, gets this one, and
// does not keep it.
func (f file) serve(w http.ResponseWriter, r *http.Request, version string) {
	h := w.Header()
	h.Set("Content-Type", f.media)
	if version == f.version {
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.data))
}

// MaxLogo bounds a logo, in bytes.
const MaxLogo = 1 << 20

// logoFile returns data as a file, or Postern's own logo.
func logoFile(data []byte) (file, error) {
	switch start := bytes.TrimSpace(data[:min(len(data), 1024)]); {
	case len(data) == 0:
		return staticFiles()["logo.svg"], nil
	case len(data) > MaxLogo:
		return file{}, fmt.Errorf("the logo has more than %d bytes", MaxLogo)
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return newFile(data, "image/png"), nil
	case bytes.HasPrefix(start, []byte("<")) && bytes.Contains(start, []byte("<svg")):
		return newFile(data, "image/svg+xml"), nil
	}
	return file{}, errors.New("the logo is neither SVG nor PNG")
}

func (p *Portal) serveLogo(w http.ResponseWriter, r *http.Request) {
	// Whoever opens it by its own address sees a picture, whatever is in it.
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'")
	p.logo.serve(w, r, r.URL.Query().Get("v"))
}

// icons are the pictures by name, as elements to be put into a page.
var icons = sync.OnceValue(func() map[string]template.HTML {
	entries, err := embedded.ReadDir("icons")
	if err != nil {
		panic("portal: embedded icons: " + err.Error())
	}
	all := map[string]template.HTML{}
	for _, e := range entries {
		data, err := embedded.ReadFile("icons/" + e.Name())
		if err != nil {
			panic("portal: embedded icons: " + err.Error())
		}
		_, rest, opened := strings.Cut(string(data), "<svg")
		_, rest, tagged := strings.Cut(rest, ">")
		shapes, _, closed := strings.Cut(rest, "</svg>")
		if !opened || !tagged || !closed {
			panic("portal: icon " + e.Name() + " is no picture")
		}
		all[strings.TrimSuffix(e.Name(), ".svg")] = template.HTML(
			`<svg class="icon" viewBox="0 0 24 24" aria-hidden="true" focusable="false">` + strings.Join(strings.Fields(shapes), " ") + `</svg>`)
	}
	return all
})

// icon returns the picture called name. A service may have one that this program
// does not know, and gets the globe; our own buttons may not.
func icon(name string) (template.HTML, error) {
	svg, ok := icons()[name]
	if !ok && strings.HasPrefix(name, "ui-") {
		return "", errors.New("no icon " + name)
	}
	if !ok {
		svg = icons()["globe"]
	}
	return svg, nil
}
