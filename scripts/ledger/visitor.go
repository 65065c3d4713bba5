package main

import (
	"net"
	"net/http"
	"net/url"
	"strings"

	"postern/node"
)

// Visitor is where a request came from, as far as the program learns it: from
// the X-Forwarded headers of the proxy in front, else from the connection.
type Visitor struct {
	Address string `json:"address"`        // an IP address; "" over a unix socket without proxy
	Scheme  string `json:"scheme"`         // "https" or "http"
	Host    string `json:"host"`           // the host name that was asked for, with its port if there was one
	User    *User  `json:"user,omitempty"` // nil: nobody is signed in, or nobody says who
}

// User is somebody whom Postern has signed in.
type User struct {
	Login string `json:"login"`
	Name  string `json:"name,omitempty"`
	Role  string `json:"role"`
}

// String is what people call the user.
func (u User) String() string {
	if u.Name != "" {
		return u.Name
	}
	return u.Login
}

// nodeUser tells the user of a request that a node in this process let through.
func nodeUser(r *http.Request) (User, bool) {
	u, ok := node.UserOf(r.Context())
	return User{u.Login, u.Name, u.Role}, ok
}

// headerUser tells the user of a request that a node in front sent. Whoever reaches
// this program past the node can say that they are anybody.
func headerUser(r *http.Request) (User, bool) {
	var u User
	for name, field := range map[string]*string{"Postern-User": &u.Login, "Postern-Name": &u.Name, "Postern-Role": &u.Role} {
		text, err := url.PathUnescape(r.Header.Get(name))
		if err != nil {
			return User{}, false
		}
		*field = text
	}
	return u, u.Login != ""
}

// visitor tells r's visitor, and who they are.
func (a *App) visitor(r *http.Request) Visitor {
	v := visitorOf(r)
	if u, ok := a.user(r); ok {
		v.User = &u
	}
	return v
}

// login is that of r's user, "" if nobody is signed in.
func (a *App) login(r *http.Request) string {
	u, _ := a.user(r)
	return u.Login
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
