package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"postern"
	"postern/internal/connect"
)

// A lookout looks at our host names from outside, through every gateway that
// says where browsers reach it, and compares the certificate shown there with
// the one held here: nobody in between can show ours without its key. Its
// methods are safe for concurrent use.
type lookout struct {
	certificate func(host string) (*certificate, error)
	changed     func()        // called after what is seen became different; does not wait
	proxy       connect.Proxy // by which gateways are reached
	log         *slog.Logger
	poke        chan struct{}

	mu       sync.Mutex
	gateways []postern.Gateway
	ca       []byte              // PEM
	keys     map[string][]string // SHA-256 of SubjectPublicKeyInfos that other nodes show, by host
	hosts    map[string]*sight
}

// A sight is what was seen of one host. run alone changes it, under the
// lookout's lock.
type sight struct {
	view
	looked   string // SHA-256 of our certificate at that time
	failures int
	next     time.Time
}

// A view is the outcome of one look at a host through all gateways.
type view struct {
	state  string // one of the RouteXxx; empty: not looked yet
	tls    string // version
	sha256 string
	at     time.Time
	note   string
	err    error
}

const (
	lookAgain   = 10 * time.Minute // when all is well
	lookMaxWait = time.Minute      // when it is not
	lookTimeout = 10 * time.Second
	lookAtOnce  = 4 // hosts
)

func newLookout(certificate func(string) (*certificate, error), changed func(), proxy connect.Proxy, log *slog.Logger) *lookout {
	return &lookout{certificate: certificate, changed: changed, proxy: proxy, log: log, poke: make(chan struct{}, 1), hosts: map[string]*sight{}}
}

// want makes hosts the names to look at, through gateways. Certificates of ca, and
// those with one of the host's keys, may be another node's of the same route.
func (l *lookout) want(hosts []string, gateways []postern.Gateway, ca []byte, keys map[string][]string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	same := slices.Equal(gateways, l.gateways)
	next := make(map[string]*sight, len(hosts))
	for _, host := range hosts {
		s := l.hosts[host]
		if s == nil {
			s = &sight{}
		}
		if !same || !slices.Equal(keys[host], l.keys[host]) {
			s.next = time.Time{}
		}
		next[host] = s
	}
	l.hosts, l.gateways, l.ca, l.keys = next, gateways, ca, keys
	wake(l.poke)
}

// again looks at once at every host whose certificate changed.
func (l *lookout) again() { wake(l.poke) }

// get returns what was last seen of host.
func (l *lookout) get(host string) view {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.hosts[host]; s != nil {
		return s.view
	}
	return view{}
}

// run looks until ctx is done.
func (l *lookout) run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-l.poke:
		case <-timer.C:
		}
		due, wait := l.due(time.Now())
		if len(due) > 0 {
			var g errgroup.Group
			g.SetLimit(lookAtOnce)
			for host, s := range due {
				g.Go(func() error { l.look(ctx, host, s); return nil })
			}
			g.Wait()
			_, wait = l.due(time.Now())
		}
		timer.Reset(wait)
	}
}

// due returns the hosts to look at now, or how long there is none.
func (l *lookout) due(now time.Time) (due map[string]*sight, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	due, wait = map[string]*sight{}, lookAgain
	for host, s := range l.hosts {
		cert, err := l.certificate(host)
		switch {
		case err != nil:
			wait = min(wait, lookMaxWait)
		case cert.sha256 != s.looked || !s.next.After(now):
			due[host] = s
			wait = 0
		default:
			wait = min(wait, s.next.Sub(now))
		}
	}
	return due, wait
}

// look brings s, the sight of host, up to date.
func (l *lookout) look(ctx context.Context, host string, s *sight) {
	cert, err := l.certificate(host)
	if err != nil {
		return
	}
	l.mu.Lock()
	gateways, ours := l.gateways, ours{cert, l.ca, l.keys[host]}
	l.mu.Unlock()
	v := through(ctx, l.proxy, gateways, host, ours)
	if ctx.Err() != nil {
		return
	}
	l.mu.Lock()
	was := s.view
	s.view, s.looked = v, cert.sha256
	if v.state == RouteReady {
		s.failures, s.next = 0, time.Now().Add(lookAgain)
	} else {
		s.next = time.Now().Add(backoff(s.failures, lookMaxWait))
		s.failures++
	}
	l.mu.Unlock()
	l.tell(host, was, v)
}

// tell logs what became different.
func (l *lookout) tell(host string, was, now view) {
	if was.state == now.state && was.sha256 == now.sha256 {
		return
	}
	l.changed()
	switch now.state {
	case RouteReady:
		l.log.Info("seen from the gateway", "server_name", host, "tls", now.tls, "sha256", now.sha256)
	case RouteAlarm:
		l.log.Error("a gateway shows another certificate: somebody may be reading along", "server_name", host,
			"sha256", now.sha256, "err", now.err)
	case RouteClosed:
		l.log.Info("not to be seen from this machine", "server_name", host, "err", now.err)
	default:
		l.log.Debug("not seen from the gateway yet", "server_name", host, "err", now.err)
	}
}

var errNoGateway = errors.New("no gateway has said yet where browsers reach it")

// through looks at host through each of gateways, and returns the worst alarm,
// or else the best view.
func through(ctx context.Context, proxy connect.Proxy, gateways []postern.Gateway, host string, o ours) view {
	best := view{state: RouteWaiting, at: time.Now(), err: errNoGateway}
	gateways = slices.DeleteFunc(slices.Clone(gateways), func(g postern.Gateway) bool { return g.Public == "" })
	views := make([]view, len(gateways))
	var wg sync.WaitGroup
	for i, g := range gateways {
		wg.Go(func() { views[i] = compare(ctx, proxy, g, host, o) }) // one that is dead takes its time
	}
	wg.Wait()
	for _, v := range views {
		if v.state == RouteAlarm {
			return v
		}
		if best.state != RouteReady && (best.state != RouteClosed || v.state == RouteReady) {
			best = v
		}
	}
	return best
}

// ours is what may be seen of a host: our certificate or another node's, which has one
// of keys or leads to ca.
type ours struct {
	cert *certificate
	ca   []byte // PEM
	keys []string
}

// compare looks at host through g.
func compare(ctx context.Context, proxy connect.Proxy, g postern.Gateway, host string, o ours) view {
	v := view{state: RouteWaiting, at: time.Now()}
	state, err := handshake(ctx, proxy, g.Public, host)
	if isAlert(err, alertAccessDenied) {
		v.state = RouteClosed
		v.err = fmt.Errorf("gateway %q lets in only whom the tenant admits, which this machine's address is not; "+
			"to have this checked, it has to be allowed: postern tenants admission", g.Name)
		return v
	}
	if err != nil {
		v.err = fmt.Errorf("through gateway %q: %w", g.Name, err)
		return v
	}
	leaf := state.PeerCertificates[0]
	v.tls, v.sha256 = tls.VersionName(state.Version), hexSHA256(leaf.Raw)
	switch {
	case hexSHA256(leaf.RawSubjectPublicKeyInfo) == o.cert.spki:
		v.state = RouteReady // the key is what counts: the certificate may have been renewed just now
	case slices.Contains(o.keys, hexSHA256(leaf.RawSubjectPublicKeyInfo)),
		o.cert.source == SourceCA && verifyChain(leaf, rest(state.PeerCertificates), host, o.ca, time.Now()) == nil:
		// Each node has its own key. The private CA signs only for nodes that
		// the route leads to, and a gateway is none.
		v.state, v.note = RouteReady, "another node of this route answered"
	case slices.Contains(o.keys, ""):
		v.err = fmt.Errorf("gateway %q showed another certificate, SHA-256 %s; this route has another node, and what that one shows is not known yet", g.Name, v.sha256)
	default:
		v.state = RouteAlarm
		v.err = fmt.Errorf("gateway %q showed another certificate, from %s, SHA-256 %s", g.Name, postern.IssuerName(leaf), v.sha256)
	}
	return v
}

// alertAccessDenied is a TLS alert (RFC 8446, section 6.2).
const alertAccessDenied = tls.AlertError(49)

// isAlert reports whether err is that the other side of a TLS handshake sent alert.
func isAlert(err error, alert tls.AlertError) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "remote error" && op.Err.Error() == alert.Error()
}

func rest(chain []*x509.Certificate) [][]byte {
	var der [][]byte
	for _, c := range chain[1:] {
		der = append(der, c.Raw)
	}
	return der
}

// handshake does a TLS handshake with host at addr, reached by proxy, and returns what it showed.
func handshake(ctx context.Context, proxy connect.Proxy, addr, host string) (tls.ConnectionState, error) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	raw, err := proxy.Dial(ctx, addr)
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer raw.Close()
	c := tls.Client(raw, &tls.Config{
		ServerName: host,
		// The check is the comparison with our own certificate, which is
		// stricter than any chain.
		InsecureSkipVerify: true,
	})
	if err := c.HandshakeContext(ctx); err != nil {
		return tls.ConnectionState{}, err
	}
	c.Close()
	return c.ConnectionState(), nil
}
