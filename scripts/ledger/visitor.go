package main

import (
	"net"
	"net/http"
	"strings"
)

// Visitor is where a request came from, as far as the program learns it: from
// the X-Forwarded headers of the proxy in front, else from the connection.
type Visitor struct {
	Address string `json:"address"` // an IP address; "" over a unix socket without proxy
	Scheme  string `json:"scheme"`  // "https" or "http"
	Host    string `json:"host"`    // the host name that was asked for, with its port if there was one
}

// visitorOf tells r's visitor. Of several forwarded values the last is taken:
// that one was written by the proxy nearest to us. They are shown and never
// decided on, since without a proxy anybody can send them. Where TLS ends here,
// there is no proxy, and they are not looked at.
func visitorOf(r *http.Request) Visitor {
	if r.TLS != nil {
		address, _, _ := net.SplitHostPort(r.RemoteAddr)
		return Visitor{Address: address, Scheme: "https", Host: r.Host}
	}
	v := Visitor{
		Address: last(r.Header, "X-Forwarded-For"),
		Scheme:  last(r.Header, "X-Forwarded-Proto"),
		Host:    last(r.Header, "X-Forwarded-Host"),
	}
	if v.Address == "" {
		// Over a unix socket there is no address, and none is told.
		v.Address, _, _ = net.SplitHostPort(r.RemoteAddr)
	}
	if v.Scheme == "" {
		v.Scheme = "http"
	}
	if v.Host == "" {
		v.Host = r.Host
	}
	return v
}

// last is the last element of a header that is a list, "" if it is absent.
func last(h http.Header, key string) string {
	values := h.Values(key)
	if len(values) == 0 {
		return ""
	}
	list := values[len(values)-1]
	return strings.TrimSpace(list[strings.LastIndexByte(list, ',')+1:])
}
