package node

import (
	"io"
	"maps"
	"net/http"
	"strings"
)

// Headers by which an application learns who asked.
const (
	headerFor       = "X-Forwarded-For"
	headerHost      = "X-Forwarded-Host"
	headerProto     = "X-Forwarded-Proto"
	headerRealIP    = "X-Real-Ip"
	headerRequestID = "X-Request-Id"
)

var forwarded = []string{headerFor, headerHost, headerProto, headerRealIP, headerRequestID}

// setForwarded takes out of r's header what the browser claimed about itself or
// in our name, and puts in what the PROXY header says.
func setForwarded(r *http.Request) {
	c := connOf(r)
	dropOurs(r.Header)
	if r.Trailer != nil {
		dropOurs(r.Trailer)
		r.Body = trailed{r.Body, r.Trailer}
	}
	addr := c.header.Src.Addr().String()
	r.Header.Set(headerFor, addr)
	r.Header.Set(headerRealIP, addr)
	r.Header.Set(headerHost, r.Host)
	r.Header.Set(headerProto, "https")
	r.Header.Set(headerRequestID, c.nextRequest())
}

// A trailed is the body of a request with trailers, which are filled in at its end, and
// not only with those that were announced (RFC 9110, section 6.5).
type trailed struct {
	io.ReadCloser
	trailer http.Header
}

func (b trailed) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err != nil {
		dropOurs(b.trailer)
	}
	return n, err
}

func (b trailed) Close() error {
	err := b.ReadCloser.Close()
	dropOurs(b.trailer)
	return err
}

func dropOurs(h http.Header) {
	maps.DeleteFunc(h, func(name string, _ []string) bool { return isOurs(name) })
}

// isOurs reports whether only this node may send the header called name to an
// application.
func isOurs(name string) bool {
	name = foldName(name)
	switch name {
	case "forwarded", "x-real-ip", "x-request-id":
		return true
	}
	return strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "postern-")
}

// foldName returns one spelling of all that applications may take for the header called
// name. Many see _ and - as one (RFC 3875, section 4.1.18), PHP a dot as well, and some
// servers all that is neither letter nor digit.
func foldName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		}
		return '-'
	}, name)
}
