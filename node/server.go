package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"postern"
	"postern/internal/datadir"
)

// serverConfig is what a server is made from. All is required that does not say otherwise.
type serverConfig struct {
	// certificate returns what browsers are shown at host.
	certificate func(host string) (*certificate, error)

	// challenge returns what a certificate authority is shown that looks whether
	// host is ours (RFC 8737), nil if none is expected. It may be nil.
	challenge func(host string) *tls.Certificate

	// redeem changes a code of the portal for tokens.
	redeem redeemFunc

	dir     *datadir.Dir     // of what is kept of sign-ins; nil: nothing is
	now     func() time.Time // nil: time.Now
	version string
	drain   time.Duration
	log     *slog.Logger

	// tell is told of each request when it is over. It must not block. If nil,
	// nobody is.
	tell func(access)

	grantWait time.Duration // see gateConfig
}

// A table is what the newest map says of gateways, host names and people. It does not
// change once it is made.
type table struct {
	gateways map[netip.Addr]string // names, by address
	hosts    map[string]*service   // nil: the route's service is not one of ours

	tenant string // empty: no map has come yet
	people map[string]*postern.Person
	ended  map[string]bool // ids of sessions at the portal
	portal *portal         // nil: there is none, so that nobody can sign in
	port   uint16          // of browsers; zero: 443
	base   string          // domain of the deployment; empty: no map has come yet

	judged *sync.Map // *certificate to what exclusive said of it

	replaced chan struct{} // closed when another table is in force
}

// origin returns the origin that host is to browsers.
func (t *table) origin(host string) string { return originOf(host, t.port) }

// A server is the HTTPS server of one node. It needs no WireGuard: connections
// come from whatever listener serve is given.
type server struct {
	serverConfig
	entrance *entrance
	gate     *gate
	proofs   *proofs
	tabling  sync.Mutex // held while table changes
	table    atomic.Pointer[table]
	refusal  *tls.Config
	tickets  tickets
	own      http.Handler // under ownPath

	// inflight is held for reading by each request under way.
	inflight sync.RWMutex
	draining atomic.Bool
}

const (
	readHeaderTimeout = 10 * time.Second // the TLS handshake's too
	idleTimeout       = 120 * time.Second
	maxHeaderBytes    = 64 << 10

	// Of one HTTP/2 connection (RFC 9113): requests at once, and bytes of their
	// bodies that nobody has read yet. A connection that is silent for pingAfter is
	// asked whether it lives, and one that takes no byte for stuckTimeout does not.
	maxStreams   = 128
	maxUpload    = 1 << 20
	pingAfter    = 45 * time.Second
	pingTimeout  = 15 * time.Second
	stuckTimeout = 60 * time.Second

	// lingerTimeout bounds how long what was answered last may take to arrive.
	lingerTimeout = 10 * time.Second

	// lastWords is how long the other ends have to learn that all is over, when
	// there is no time for more.
	lastWords = 500 * time.Millisecond
)

func newServer(cfg serverConfig) (*server, error) {
	s := &server{serverConfig: cfg, entrance: newEntrance(cfg.log)}
	var err error
	if s.gate, err = newGate(gateConfig{table: s.table.Load, redeem: cfg.redeem, now: cfg.now, log: cfg.log, grantWait: cfg.grantWait}, cfg.dir); err != nil {
		return nil, err
	}
	if s.proofs, err = newProofs(s.gate, cfg.dir); err != nil {
		return nil, err
	}
	s.gate.ways = s.proofs.ways()
	// A handshake without certificate ends in unrecognized_name. Tickets must be
	// off, or a resumed session would need none.
	s.refusal = &tls.Config{
		MinVersion:             tls.VersionTLS12,
		SessionTicketsDisabled: true,
		GetCertificate:         func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, nil },
	}
	s.tickets.end()
	s.own = ownResource(s)
	s.table.Store(&table{replaced: make(chan struct{}), judged: new(sync.Map)})
	return s, nil
}

// setTable makes t the truth, which nobody has seen before. Connections of gateways
// that it lacks are closed, and requests that it does not allow are cut off.
func (s *server) setTable(t *table) {
	t.replaced, t.judged = make(chan struct{}), new(sync.Map)
	s.tabling.Lock()
	defer s.tabling.Unlock()
	before := s.table.Swap(t)
	close(before.replaced)
	if revokes(before.people, t.people) {
		s.tickets.end()
	}
	s.entrance.setGateways(t.gateways)
	s.gate.recheck()
}

// service returns what answers at host, nil if that is no longer there, and
// whether host is ours at all.
func (s *server) service(host string) (svc *service, ours bool) {
	svc, ours = s.table.Load().hosts[host]
	return svc, ours
}

// serve serves what comes to ln until ctx is done. Then requests under way may
// end, for as long as the drain lasts or until hard is done. It closes ln, and
// returns when every handler has returned. It is to be called once.
func (s *server) serve(ctx, hard context.Context, ln net.Listener) error {
	// Handlers outlive ctx, not serve.
	base, abandon := context.WithCancel(context.WithoutCancel(ctx))
	defer abandon()
	hs := &http.Server{
		Handler:           s,
		TLSConfig:         s.tlsConfig(),
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return base },
		ConnContext:       withConn,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: maxStreams, MaxReceiveBufferPerConnection: maxUpload,
			SendPingTimeout: pingAfter, PingTimeout: pingTimeout, WriteByteTimeout: stuckTimeout,
		},
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	failed := make(chan error, 1)
	wg.Go(func() { failed <- s.entrance.run(ln) })
	wg.Go(func() { hs.ServeTLS(s.entrance, "", "") }) // it ends with the entrance

	var err error
	select {
	case <-ctx.Done():
	case <-hard.Done():
	case err = <-failed:
	}
	s.draining.Store(true)
	s.shutdown(hs, hard)
	abandon()
	s.finish(hard)
	s.inflight.Lock() // never unlocked: no request begins after this
	return err
}

// finish sees the last answers off, and the connections.
func (s *server) finish(hard context.Context) {
	ctx, cancel := context.WithTimeout(hard, lingerTimeout)
	if hard.Err() != nil {
		ctx, cancel = context.WithTimeout(context.WithoutCancel(hard), lastWords)
	}
	defer cancel()
	s.entrance.finish(ctx)
}

// shutdown ends hs as gently as the drain and hard allow. WebSockets are cut
// when all else is done.
func (s *server) shutdown(hs *http.Server, hard context.Context) {
	ctx, cancel := context.WithTimeout(hard, s.drain)
	defer cancel()
	if err := hs.Shutdown(ctx); err != nil {
		s.log.Warn("requests under way are cut off", "err", err)
		hs.Close()
	}
}

// tlsConfig returns the settings for all our names. A client that names none of
// them, or another than its gateway routed by, is refused.
func (s *server) tlsConfig() *tls.Config {
	cfg := &tls.Config{
		MinVersion:         tls.VersionTLS12,
		NextProtos:         []string{"h2", "http/1.1"},
		Time:               s.now, // crypto/tls makes a new ticket key a day and keeps each for a week
		GetConfigForClient: s.configForClient,
		GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
			cert, err := s.certificate(strings.ToLower(hello.ServerName))
			if err != nil {
				return nil, err
			}
			return &cert.Certificate, nil
		},
	}
	s.tickets.mark(cfg)
	return cfg
}

// errNotOurs says that a host name has no route to this node.
var errNotOurs = errors.New("no route of this host name leads here")

func (s *server) configForClient(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	c := hello.Conn.(*conn)
	name := strings.ToLower(hello.ServerName)
	err := errNotOurs
	if _, ours := s.service(name); ours {
		if name == c.header.Authority {
			return s.challengeConfig(name, hello.SupportedProtos), nil
		}
		err = fmt.Errorf("the gateway routed by %q", c.header.Authority)
	}
	s.log.Debug("server name refused", "server_name", fmt.Sprintf("%q", name), "gateway", c.gateway,
		"remote", c.header.Src, "id", c.id, "err", err)
	return s.refusal, nil
}

// challengeConfig returns the settings for a certificate authority that looks whether
// name is ours, nil if protos are no authority's or none is expected. No request comes of
// such a connection: net/http closes one whose protocol it does not know.
func (s *server) challengeConfig(name string, protos []string) *tls.Config {
	if s.challenge == nil || len(protos) != 1 || protos[0] != postern.ACMEProtocol {
		return nil
	}
	cert := s.challenge(name)
	if cert == nil {
		return nil
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: protos, SessionTicketsDisabled: true, Certificates: []tls.Certificate{*cert},
	}
}

type connKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, connKey{}, c.(*tls.Conn).NetConn().(*conn))
}

// connOf returns the connection that r came over, nil if that is not one of ours.
func connOf(r *http.Request) *conn {
	if c, ok := r.Context().Value(connKey{}).(*conn); ok {
		return c
	}
	addr, _ := r.Context().Value(http.LocalAddrContextKey).(localAddr)
	return addr.conn
}

// ServeHTTP answers any request of any of our host names.
func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.answer(w, r, (*service).serve)
}

// answer is ServeHTTP with what does for a service.
func (s *server) answer(w http.ResponseWriter, r *http.Request, with func(*service, http.ResponseWriter, *http.Request)) {
	if !s.inflight.TryRLock() {
		panic(http.ErrAbortHandler)
	}
	defer s.inflight.RUnlock()

	setForwarded(r)
	if s.tell != nil {
		var l *listened
		l, r = listenTo(w, r, s.tell)
		defer l.done()
		s.admit(l, r, with)
		l.finished = true
		return
	}
	s.admit(w, r, with)
}

// admit answers r, whose header says what is true.
func (s *server) admit(w http.ResponseWriter, r *http.Request, with func(*service, http.ResponseWriter, *http.Request)) {
	host := strings.ToLower(r.TLS.ServerName)
	if requestHost(r) != host {
		// Browsers send requests for other names that they believe this server
		// to have (RFC 9110, section 7.4; RFC 9113, section 9.1.2).
		writePage(w, r, misdirected)
		return
	}
	setHSTS(w.Header(), s.pinnable(host))
	r = r.WithContext(context.WithValue(r.Context(), presentedKey{}, s.gate.present(r, host)))
	switch {
	case isOwn(r.URL.Path):
		s.own.ServeHTTP(w, r)
	case r.Method == http.MethodConnect:
		writePage(w, r, noTunnels)
	default:
		s.gate.serve(w, r, host, with)
	}
}

// requestHost returns the host that r asks for, in lower case, without port. It is empty if
// that cannot be said: a target that is opaque, as in "GET a:http://other/", names another
// host to an application, and so may what stands in a port's place.
func requestHost(r *http.Request) string {
	host, port, _ := strings.Cut(r.Host, ":")
	if r.URL.Opaque != "" || strings.Trim(port, "0123456789") != "" {
		return ""
	}
	return strings.ToLower(host)
}

// pinnable reports whether browsers may be told to insist on HTTPS at host. Not
// under the private CA: it serves demos and intranets, and a name there, such as
// one below .localhost, may serve plain HTTP tomorrow.
func (s *server) pinnable(host string) bool {
	cert, err := s.certificate(host)
	return err == nil && cert.source != SourceCA
}

// setHSTS tells browsers to use HTTPS alone for a year (RFC 6797), if pin, and
// otherwise nothing. Names below the host may belong to others, so they are not
// included.
func setHSTS(h http.Header, pin bool) {
	if pin {
		h.Set("Strict-Transport-Security", "max-age=31536000")
	} else {
		h.Del("Strict-Transport-Security")
	}
}
