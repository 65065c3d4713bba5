package member

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"postern"
	"postern/internal/connect"
	"postern/internal/datadir"
	"postern/internal/identity"
)

// A Client speaks with the coordinator as a member. Its methods are safe for
// concurrent use. Whatever the coordinator refuses is a *postern.Problem.
type Client struct {
	dir *datadir.Dir
	log *slog.Logger
	tls *tls.Config

	proxy connect.Proxy

	changing sync.Mutex // held while id is read or changed, but for what never changes
	id       Identity   // as on disk

	cert atomic.Pointer[tls.Certificate]
	url  atomic.Int64 // index in id.URLs of the one that answered last
	link atomic.Pointer[Link]
	told atomic.Pointer[reading] // nil: never

	lease *lease

	backoff func(failures int) time.Duration // between streams

	http  atomic.Pointer[connections]             // to the coordinator
	again chan struct{}                           // holds one token when a stream is wanted now
	stop  atomic.Pointer[context.CancelCauseFunc] // ends the present stream; nil: there was none yet
}

// A Link is the state of a member's control stream.
type Link struct {
	Up    bool
	Since time.Time // when it became so
	Err   error     // why it is not up; nil while it has not been tried
}

// callTimeout bounds a call that is not the map stream.
const callTimeout = 30 * time.Second

// NewClient returns a client for the membership id in dir, which it does not
// change. It reaches the coordinator by proxy, the environment's if that is nil. A
// nil log discards.
func NewClient(dir *datadir.Dir, id *Identity, proxy connect.Proxy, log *slog.Logger) (*Client, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cert, err := id.Certificate()
	if err != nil {
		return nil, err
	}
	c := &Client{dir: dir, log: log, id: *id, proxy: proxy, backoff: backoff, again: make(chan struct{}, 1), lease: openLease(dir, log, time.Now())}
	c.cert.Store(cert)
	c.link.Store(&Link{})
	c.tls = identity.ClientConfig(id.Root, nil)
	c.tls.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	c.tls.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return c.cert.Load(), nil
	}
	c.http.Store(c.connect())
	return c, nil
}

// Close drops idle connections.
func (c *Client) Close() { c.hc().CloseIdleConnections() }

// A reading is the coordinator's clock at a moment of this machine's.
type reading struct{ theirs, ours time.Time }

// Now returns the coordinator's time, as it last told it, and this machine's before
// that. Between it runs with this machine's clock, but is not set with it.
func (c *Client) Now() time.Time {
	r := c.told.Load()
	if r == nil {
		return time.Now()
	}
	return r.theirs.Add(time.Since(r.ours))
}

// Skew returns how much this machine's clock is ahead of the coordinator's; zero if that
// has not told its own.
func (c *Client) Skew() time.Duration {
	if c.told.Load() == nil {
		return 0
	}
	return time.Now().Round(0).Sub(c.Now().Round(0))
}

// Link returns the state of the control stream.
func (c *Client) Link() Link { return *c.link.Load() }

// Publish tells the coordinator all that this node publishes.
func (c *Client) Publish(ctx context.Context, p postern.Publication) (postern.Published, error) {
	var out postern.Published
	return out, c.call(ctx, http.MethodPut, postern.PathServices, p, &out)
}

// Certificate has the deployment's private CA sign csr, in DER.
func (c *Client) Certificate(ctx context.Context, csr []byte) (postern.Certificate, error) {
	var out postern.Certificate
	return out, c.call(ctx, http.MethodPost, postern.PathCertificates, postern.CertificateRequest{CSR: csr}, &out)
}

// Challenge tells the coordinator where an ACME authority's handshakes are awaited.
func (c *Client) Challenge(ctx context.Context, req postern.ChallengeRequest) error {
	return c.call(ctx, http.MethodPost, postern.PathChallenges, req, nil)
}

// SetGateway tells the coordinator where this gateway is reached.
func (c *Client) SetGateway(ctx context.Context, endpoint, public string) error {
	return c.call(ctx, http.MethodPut, postern.PathGateway, postern.Gateway{Endpoint: endpoint, Public: public}, nil)
}

// Report tells the coordinator how this member does.
func (c *Client) Report(ctx context.Context, s postern.Status) error {
	return c.call(ctx, http.MethodPost, postern.PathStatus, s, nil)
}

// reportGap is how long reports lie apart at least: news comes in heaps, such as each
// step of each of a hundred orders, and a member may ask only so often.
const reportGap = time.Second

// ReportEvery reports what status returns, at once, then every interval and soon after
// there is news, while the control stream is up, until ctx is done.
func (c *Client) ReportEvery(ctx context.Context, interval time.Duration, news <-chan struct{}, status func() postern.Status) {
	reportEvery(ctx, interval, news, func() {
		if !c.Link().Up {
			return
		}
		if err := c.Report(ctx, status()); err != nil && ctx.Err() == nil {
			c.log.Debug("report to the coordinator", "err", err)
		}
	})
}

func reportEvery(ctx context.Context, interval time.Duration, news <-chan struct{}, report func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		report()
		select {
		case <-ctx.Done():
			return
		case <-time.After(reportGap):
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-news:
		}
	}
}

// DialEdge opens an edge pipe: a connection to the coordinator that takes a
// PROXY v2 header and then one browser's bytes. Gateways only.
func (c *Client) DialEdge(ctx context.Context) (net.Conn, error) {
	cfg := c.tls.Clone()
	cfg.NextProtos = []string{postern.EdgeProtocol}
	conn, err := dialTLS(ctx, c.proxy, c.base(), cfg)
	if err != nil {
		return nil, err
	}
	if got := conn.ConnectionState().NegotiatedProtocol; got != postern.EdgeProtocol {
		conn.Close()
		return nil, fmt.Errorf("edge pipe: the coordinator chose protocol %q", got)
	}
	return conn, nil
}

// base returns the URL that answered last.
func (c *Client) base() string {
	return c.id.URLs[int(c.url.Load())%len(c.id.URLs)]
}

func (c *Client) call(ctx context.Context, method, path string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return call(ctx, c.hc(), method, c.base()+path, nil, in, out)
}

// renew asks for a new certificate when less than a third of the present one's
// life is left. Dates are not enforced on the control channel, so a failure is
// no more than a log line.
func (c *Client) renew(ctx context.Context, now time.Time) {
	leaf, err := x509.ParseCertificate(c.cert.Load().Certificate[0])
	if err == nil {
		life := leaf.NotAfter.Sub(leaf.NotBefore)
		if now.After(leaf.NotBefore.Add(-time.Minute)) && now.Before(leaf.NotAfter.Add(-life/3)) {
			return
		}
		err = c.renewNow(ctx)
	}
	if err != nil {
		c.log.Warn("renew the member's certificate", "err", err)
	}
}

func (c *Client) renewNow(ctx context.Context) error {
	var e postern.Enrollment
	if err := c.call(ctx, http.MethodPost, postern.PathRenew, nil, &e); err != nil {
		return err
	}
	if e.ID != c.id.Enrollment.ID {
		return errors.New("the coordinator answered with another member's certificate")
	}
	next := c.identity()
	next.Enrollment.Certificate = e.Certificate
	cert, err := next.Certificate()
	if err != nil {
		return err
	}
	if err := c.updateIdentity(func(id *Identity) { id.Enrollment.Certificate = e.Certificate }); err != nil {
		return err
	}
	c.cert.Store(cert)
	c.log.Info("renewed the member's certificate")
	return nil
}

// identity returns the membership as it is now.
func (c *Client) identity() Identity {
	c.changing.Lock()
	defer c.changing.Unlock()
	return c.id
}

// WireGuard returns the private key of the member's tunnels, and since when it is used by
// the coordinator's clock.
func (c *Client) WireGuard() (key postern.WireGuardPrivate, since time.Time) {
	id := c.identity()
	return id.WireGuard, id.WireGuardSince
}

// updateIdentity changes the membership, and returns when it is on disk. It is changed
// here even if the disk does not take it.
func (c *Client) updateIdentity(change func(*Identity)) error {
	c.changing.Lock()
	defer c.changing.Unlock()
	change(&c.id)
	return c.id.save(c.dir)
}
