package node

import (
	"io/fs"
	"net/http"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"strings"
)

// A folder serves the files below its upstream's folder, and nothing outside it: symbolic links
// and .. lead no further than os.Root lets them. Names that start with a dot are
// not there, except .well-known (RFC 8615). A directory is its index.html, or
// not there. The folder is looked up anew for each request, so it may be
// replaced whole while it is served.
type folder struct{ *service }

const indexFile = "index.html"

func (f folder) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		writePage(w, r, readOnly.of(f.service))
		return
	}
	root, err := os.OpenRoot(f.upstream.folder)
	f.health.set(err)
	if err != nil {
		writePage(w, r, noFolder.of(f.service))
		return
	}
	defer root.Close()
	files := visible{root}
	name, err := files.find(r.URL.Path)
	if err != nil {
		writePage(w, r, noFile.of(f.service))
		return
	}
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache") // may be kept, must be asked about
	if t, ok := contentTypes[strings.ToLower(path.Ext(name))]; ok {
		h.Set("Content-Type", t)
	}
	http.FileServerFS(files).ServeHTTP(w, r)
}

// contentTypes are those that browsers are strict about. The system's own table
// may lack them or, on Windows, have others.
var contentTypes = map[string]string{
	".css":         "text/css; charset=utf-8",
	".csv":         "text/csv; charset=utf-8",
	".htm":         "text/html; charset=utf-8",
	".html":        "text/html; charset=utf-8",
	".ico":         "image/x-icon",
	".js":          "text/javascript; charset=utf-8",
	".json":        "application/json",
	".md":          "text/markdown; charset=utf-8",
	".mjs":         "text/javascript; charset=utf-8",
	".pdf":         "application/pdf",
	".svg":         "image/svg+xml",
	".txt":         "text/plain; charset=utf-8",
	".wasm":        "application/wasm",
	".webmanifest": "application/manifest+json",
	".webp":        "image/webp",
	".woff":        "font/woff",
	".woff2":       "font/woff2",
	".xml":         "application/xml",
}

// visible is what of a root is shown.
type visible struct{ root *os.Root }

// find returns the name of the file that is shown at urlPath.
func (v visible) find(urlPath string) (string, error) {
	name := strings.TrimPrefix(path.Clean("/"+urlPath), "/")
	if name == "" {
		name = "."
	}
	info, err := v.stat(name)
	if err == nil && info.IsDir() {
		name = path.Join(name, indexFile)
	}
	return name, err
}

// stat describes the file called name. What is not shown is fs.ErrNotExist.
func (v visible) stat(name string) (fs.FileInfo, error) {
	// Where a backslash parts names too, as on Windows, one in a name could lead
	// to what is hidden; such names cannot be localized.
	if _, err := filepath.Localize(name); err != nil || hidden(name) {
		return nil, fs.ErrNotExist
	}
	info, err := v.root.Stat(name)
	if err != nil || info.Mode().IsRegular() {
		return info, err
	}
	// A pipe, which would block when it is opened, has no index either.
	index, err := v.root.Stat(path.Join(name, indexFile))
	if err == nil && !index.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	return info, err
}

// Open opens the file called name, as fs.FS wants it. Directories do not tell
// what is in them.
func (v visible) Open(name string) (fs.File, error) {
	info, err := v.stat(name)
	if err != nil {
		return nil, err
	}
	f, err := v.root.Open(name)
	if err == nil && info.IsDir() {
		return struct{ fs.File }{f}, nil
	}
	return f, err
}

func hidden(name string) bool {
	for element := range strings.SplitSeq(name, "/") {
		if strings.HasPrefix(element, ".") && element != "." && element != ".well-known" ||
			runtime.GOOS == "windows" && isShort(element) {
			return true
		}
	}
	return false
}

// isShort reports whether name may be the second one, such as GIT~1, that
// Windows gives to a file with a longer one, such as .git.
func isShort(name string) bool {
	tilde := strings.LastIndexByte(name, '~')
	return tilde >= 0 && tilde+1 < len(name) && name[tilde+1] >= '0' && name[tilde+1] <= '9'
}
