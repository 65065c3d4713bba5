package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	dialTimeout = 5 * time.Second

	// answerTimeout bounds the wait for an answer's header once the request is
	// sent. It is long: a year's closing may be computed while the browser waits.
	answerTimeout = 10 * time.Minute

	// continueTimeout is how long an application may think about an Expect:
	// 100-continue before the body is sent anyway (RFC 9110, section 10.1.1).
	continueTimeout = 5 * time.Second

	idleUpstreamConns = 64

	// flushDelay is how long a part of an answer may wait for the next, so that the
	// header and a short body are one TLS record and one packet. Event streams and
	// answers of unknown length do not wait.
	flushDelay = 5 * time.Millisecond
)

// newTransport returns the way to an http, https or unix upstream; cfg is for
// https alone.
func newTransport(up upstream, cfg *tls.Config) *http.Transport {
	return &http.Transport{
		DialContext:           up.dial,
		TLSClientConfig:       cfg.Clone(),
		DisableCompression:    true, // what the application and the browser agreed on, stays
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   idleUpstreamConns,
		IdleConnTimeout:       90 * time.Second,
		TLSHandshakeTimeout:   dialTimeout,
		ResponseHeaderTimeout: answerTimeout,
		ExpectContinueTimeout: continueTimeout,
	}
}

// upstreamTLS returns the TLS settings for s' upstream, nil if it is not https.
func upstreamTLS(up upstream, s Service) (*tls.Config, error) {
	if up.url == nil || up.url.Scheme != "https" {
		if s.UpstreamCA != "" || s.UpstreamInsecure {
			return nil, fmt.Errorf("upstream %q: a CA, or its absence, is for https:// only", up)
		}
		return nil, nil
	}
	cfg := &tls.Config{ServerName: up.url.Hostname(), InsecureSkipVerify: s.UpstreamInsecure} // as the operator says
	if s.UpstreamCA == "" {
		return cfg, nil
	}
	pem, err := os.ReadFile(s.UpstreamCA)
	if err != nil {
		return nil, fmt.Errorf("CA of upstream %q: %w", up, err)
	}
	cfg.RootCAs = x509.NewCertPool()
	if !cfg.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("CA of upstream %q: no certificate in %s", up, s.UpstreamCA)
	}
	return cfg, nil
}

// dial connects to the application; addr counts for nothing but TCP.
func (u upstream) dial(ctx context.Context, network, addr string) (net.Conn, error) {
	d := net.Dialer{Timeout: dialTimeout, KeepAlive: 30 * time.Second}
	if u.socket != "" {
		return d.DialContext(ctx, "unix", u.socket)
	}
	return d.DialContext(ctx, network, addr)
}

// target returns the URL that requests are rewritten to.
func (u upstream) target() *url.URL {
	if u.socket != "" {
		return &url.URL{Scheme: "http", Host: "localhost"}
	}
	return u.url
}

// newProxy returns a reverse proxy to s' upstream that streams both ways, and has no
// limit on bodies.
func newProxy(s *service, log *slog.Logger) http.Handler {
	target := s.upstream.target()
	p := &httputil.ReverseProxy{
		Transport:      s.transport,
		Rewrite:        func(pr *httputil.ProxyRequest) { rewrite(pr, target) },
		FlushInterval:  flushDelay,
		BufferPool:     copyBuffers,
		ErrorLog:       slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		ModifyResponse: s.answered,
		ErrorHandler:   s.failed,
	}
	if strings.Trim(target.Path, "/") == "" {
		return p
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if climbs(r.URL.Path) { // and out of what is published
			writePage(w, r, noFile.of(s))
			return
		}
		p.ServeHTTP(w, r)
	})
}

// climbs reports whether an application may take a segment of path for "..".
// Some part segments at a backslash too, or overlook what follows a semicolon
// (RFC 3986, section 3.3). Browsers send none (section 5.2.4).
func climbs(path string) bool {
	for segment := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		if name, _, _ := strings.Cut(segment, ";"); name == ".." {
			return true
		}
	}
	return false
}

// answered notes that the application answered. TLS ends here, so what is said
// to browsers about it is said here, not there.
func (s *service) answered(resp *http.Response) error {
	s.health.set(nil)
	resp.Header.Del("Strict-Transport-Security")
	resp.Header.Del("Alt-Svc")
	refuseCookies(resp.Header)
	return nil
}

func rewrite(pr *httputil.ProxyRequest, target *url.URL) {
	pr.SetURL(target)
	pr.Out.Host = pr.In.Host // applications build their URLs from it
	// Nothing is decided here by the query, so the application gets it verbatim.
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery
	// Inside another protocol, such as HTTP/2 (h2c), requests would get past the
	// checks and the headers of this node.
	if !strings.EqualFold(pr.Out.Header.Get("Upgrade"), "websocket") {
		pr.Out.Header.Del("Upgrade")
		pr.Out.Header.Del("Connection")
	}
	// The body's trailers are filled in at its end, in this very map.
	pr.Out.Trailer = pr.In.Trailer
	// A Connection header may have named ours away.
	for _, name := range slices.Concat(forwarded, identityHeaders) {
		if values, ok := pr.In.Header[name]; ok {
			pr.Out.Header[name] = values
		}
	}
	if user := target.User; user != nil {
		password, _ := user.Password()
		pr.Out.SetBasicAuth(user.Username(), password)
	}
}

// failed answers a request that the application did not.
func (s *service) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the browser went away
	}
	if unreachable(err) {
		s.health.set(err)
	}
	s.health.log.Debug("request failed", "server_name", r.Host, "id", r.Header.Get(headerRequestID), "err", err)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		writePage(w, r, tooSlow.of(s))
		return
	}
	writePage(w, r, notAnswering.of(s))
}

// unreachable reports whether err says that no request whatever would have got
// through. Other errors may be the request's own, or the browser's.
func unreachable(err error) bool {
	var op *net.OpError
	var cert *tls.CertificateVerificationError
	return errors.As(err, &op) && op.Op == "dial" || errors.As(err, &cert)
}

// copyBuffers are shared by all proxies.
var copyBuffers = new(bufferPool)

type bufferPool struct{ pool sync.Pool }

const copyBufferSize = 32 << 10

func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[copyBufferSize]byte); ok {
		return b[:]
	}
	return make([]byte, copyBufferSize)
}

func (p *bufferPool) Put(b []byte) { p.pool.Put((*[copyBufferSize]byte)(b)) }
