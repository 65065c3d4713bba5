package gateway

import (
	"fmt"
	"io"
	"net"
	"time"
)

// A Reason says why a connection was turned away.
type Reason uint8

const (
	SourceRate   Reason = iota // too many new connections from one source
	SourceConns                // too many open ones
	SourceHellos               // too many hellos of one source pending, this one the longest
	HelloShed                  // too many of all
	HelloTimeout               // no whole hello in time
	HelloGone                  // the client left before its hello was whole
	Garbage                    // neither TLS nor HTTP
	PlainHTTP                  // HTTP without TLS
	BadHello                   // TLS, but no well-formed hello
	ProxyHeader                // no PROXY header from where one is required
	UnknownName                // no server name, or one that leads nowhere
	NotAdmitted                // from where the tenant does not admit
	TenantRate                 // too many new connections to one tenant
	TenantConns                // too many open ones
	TenantDials                // too many waiting for one tenant's nodes
	Offline                    // no node answered
	reasons                    // how many there are
)

var reasonNames = [reasons]string{
	"source_rate", "source_conns", "source_hellos", "hello_shed", "hello_timeout", "hello_gone", "garbage", "plain_http",
	"bad_hello", "proxy_header", "unknown_name", "not_admitted", "tenant_rate", "tenant_conns", "tenant_dials", "offline",
}

func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// Limit reports whether r says that one of Limits was reached.
func (r Reason) Limit() bool {
	switch r {
	case SourceRate, SourceConns, SourceHellos, HelloShed, TenantRate, TenantConns, TenantDials:
		return true
	}
	return false
}

// MarshalText returns r's name.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText sets r to the reason that text names.
func (r *Reason) UnmarshalText(text []byte) error {
	for i, name := range reasonNames {
		if name == string(text) {
			*r = Reason(i)
			return nil
		}
	}
	return fmt.Errorf("no reason is called %q", text)
}

// An alert is a TLS alert's description (RFC 8446, section 6). Zero, which would
// be close_notify, stands for none.
type alert uint8

const (
	alertUnexpectedMessage alert = 10
	alertRecordOverflow    alert = 22
	alertAccessDenied      alert = 49
	alertDecodeError       alert = 50
	alertProtocolVersion   alert = 70
	alertInternalError     alert = 80
	alertUnrecognizedName  alert = 112
)

// A refusal is why a connection goes no further, and what the client is told.
type refusal struct {
	reason Reason
	alert  alert  // zero: none
	detail string // for the log; empty: the reason says it all
}

func (r refusal) Error() string {
	if r.detail == "" {
		return r.reason.String()
	}
	return r.reason.String() + ": " + r.detail
}

// errUnknownName refuses a well-formed name that leads nowhere.
var errUnknownName = refusal{reason: UnknownName, alert: alertUnrecognizedName}

// errNotAdmitted refuses a client from where its tenant does not admit.
var errNotAdmitted = refusal{reason: NotAdmitted, alert: alertAccessDenied}

const httpAnswer = "HTTP/1.1 400 Bad Request\r\n" +
	"Content-Type: text/plain; charset=utf-8\r\n" +
	"Connection: close\r\n" +
	"\r\n" +
	"This port speaks HTTPS only.\n"

// tell says r to the client on c, if it is told anything. It takes at most
// lingerTimeout. Closing c stays with the caller.
func (r refusal) tell(c net.Conn) {
	switch {
	case r.reason == PlainHTTP:
		lastWords(c, []byte(httpAnswer))
	case r.alert != 0:
		// A record of version TLS 1.2, level fatal (RFC 8446, sections 5.1 and 6).
		lastWords(c, []byte{recordAlert, 3, 3, 0, 2, 2, byte(r.alert)})
	case r.reason == SourceRate, r.reason == SourceConns, r.reason == SourceHellos, r.reason == HelloShed:
		reset(c)
	}
}

const lingerTimeout = time.Second

// lastWords writes b, ends our half of c and reads what the client still sends,
// for at most lingerTimeout: a close with unread bytes would send a reset, which
// can overtake b.
func lastWords(c net.Conn, b []byte) {
	c.SetDeadline(time.Now().Add(lingerTimeout))
	if _, err := c.Write(b); err != nil {
		return
	}
	if h, ok := c.(interface{ CloseWrite() error }); ok {
		h.CloseWrite()
		io.Copy(io.Discard, c)
	}
}

// reset closes c with a reset, which leaves nothing of it behind in the kernel.
func reset(c net.Conn) {
	noLinger(c)
	c.Close()
}

// noLinger makes a later Close of c a reset.
func noLinger(c net.Conn) {
	if l, ok := c.(interface{ SetLinger(sec int) error }); ok {
		l.SetLinger(0)
	}
}
