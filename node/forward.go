package node

import (
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
	for name := range r.Header {
		if isOurs(name) {
			delete(r.Header, name)
		}
	}
	addr := c.header.Src.Addr().String()
	r.Header.Set(headerFor, addr)
	r.Header.Set(headerRealIP, addr)
	r.Header.Set(headerHost, r.Host)
	r.Header.Set(headerProto, "https")
	r.Header.Set(headerRequestID, c.nextRequest())
}

// isOurs reports whether only this node may send the header called name to an
// application. Many applications see _ and - as one (RFC 3875, section 4.1.18).
func isOurs(name string) bool {
	name = strings.ToLower(strings.ReplaceAll(name, "_", "-"))
	switch name {
	case "forwarded", "x-real-ip", "x-request-id":
		return true
	}
	return strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "postern-")
}
