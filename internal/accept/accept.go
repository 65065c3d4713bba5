// Package accept reads in what form a client of HTTP wants its answer.
package accept

import (
	"net/http"
	"strings"
)

// HTML reports whether r, by its Accept header (RFC 9110, section 12.5.1), comes from a
// browser's address bar, or from what behaves alike: fetch() and API clients do not ask
// for HTML by name. Of HTML and JSON the one that stands first counts, whatever weight
// is behind it.
func HTML(r *http.Request) bool {
	for _, accept := range r.Header["Accept"] {
		for part := range strings.SplitSeq(accept, ",") {
			mediaType, _, _ := strings.Cut(part, ";")
			switch strings.ToLower(strings.TrimSpace(mediaType)) {
			case "text/html", "application/xhtml+xml":
				return true
			case "application/json", "application/problem+json":
				return false
			}
		}
	}
	return false
}
