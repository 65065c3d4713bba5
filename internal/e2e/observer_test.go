//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"postern"
	"postern/gateway"
	"postern/internal/datadir"
	"postern/internal/member"
	"postern/internal/splice"
	"postern/netstack"
)

// observerEnv holds an observer, in JSON.
const observerEnv = "POSTERN_E2E_OBSERVER"

// An observer is a gateway made of the same parts as the real one, by the same
// plan, that keeps a record of every byte on the conns that it handles: the
// browsers', those into the overlay, and the edge pipes. What its sockets carry
// besides, datagrams and control, is tapped outside of it.
type observer struct {
	Data      string // data directory, joined
	Listen    string // for browsers
	UDP       uint16
	Advertise string // where nodes find UDP
	Public    string // where browsers find Listen
	Record    string // the recorder's file

	// Intercept makes it end TLS with a certificate of its own, whose CA it
	// writes to this file, and begin TLS anew towards the node. If empty, it
	// does not.
	Intercept string
}

// becomeObserver starts o in the gateway's place.
func (d *deployment) becomeObserver(o observer) {
	d.t.Helper()
	config, err := json.Marshal(o)
	if err != nil {
		d.t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		d.t.Fatal(err)
	}
	d.gateway = start(d.t, "observer", []string{childEnv + "=observer", observerEnv + "=" + string(config)}, self)
}

// observe is the observer as a process.
func observe() error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	var o observer
	if err := json.Unmarshal([]byte(os.Getenv(observerEnv)), &o); err != nil {
		return err
	}
	return o.run(ctx)
}

func (o *observer) run(ctx context.Context) error {
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	rec, err := newRecorder(o.Record)
	if err != nil {
		return err
	}
	dir, err := datadir.Open(o.Data, postern.RoleGateway)
	if err != nil {
		return err
	}
	defer dir.Close()
	id, err := member.LoadIdentity(dir)
	if err != nil {
		return err
	}
	client, err := member.NewClient(dir, id, nil, log)
	if err != nil {
		return err
	}
	defer client.Close()
	overlay, err := netstack.New(netstack.Config{PrivateKey: id.WireGuard, Address: id.Enrollment.Address, Port: o.UDP, Logger: log})
	if err != nil {
		return err
	}
	defer overlay.Close()
	ln, err := net.Listen("tcp", o.Listen)
	if err != nil {
		return err
	}
	ln = recordedListener{ln, rec}
	g, ctx := errgroup.WithContext(ctx)
	if o.Intercept != "" {
		i, err := newInterceptor(ln, o.Intercept, rec)
		if err != nil {
			return err
		}
		g.Go(func() error { return i.run(ctx) })
		ln = i
	}
	gw := gateway.New(gateway.Config{
		Dial: func(ctx context.Context, dst netip.AddrPort) (net.Conn, error) {
			return rec.dialed(overlay.DialContext(ctx, dst))
		},
		DialCoordinator: func(ctx context.Context) (net.Conn, error) { return rec.dialed(client.DialEdge(ctx)) },
		Limits:          gateway.Limits{SourceRate: -1, SourceBurst: -1, SourceConns: -1, TenantRate: -1, TenantBurst: -1, TenantConns: -1},
		DrainTimeout:    time.Second,
		Logger:          log,
	})
	apply := func(m postern.Map) {
		if err := overlay.SetPeers(member.NodePeers(m)); err != nil {
			log.Error("set tunnels", "err", err)
		}
		gw.SetRoutes(gateway.NewTable(m))
	}
	held := client.Resume(apply)
	g.Go(func() error { return client.Follow(ctx, held, apply) })
	g.Go(func() error { return o.tell(ctx, client) })
	g.Go(func() error { return gw.Serve(ctx, ln) })
	return g.Wait()
}

// tell tells the coordinator where this gateway is, until it has heard.
func (o *observer) tell(ctx context.Context, client *member.Client) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		if client.Link().Up && client.SetGateway(ctx, o.Advertise, o.Public) == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// An interceptor is what a gateway must not be: it ends each connection's TLS
// and begins it anew. As a listener it hands out the far ends, which look to the
// gateway behind it like browsers.
type interceptor struct {
	net.Listener
	recorder *recorder
	key      *ecdsa.PrivateKey // of the CA and all that it signs
	ca       *x509.Certificate
	ready    chan net.Conn
	done     chan struct{} // closed when run is to return
}

func newInterceptor(ln net.Listener, caFile string, rec *recorder) (*interceptor, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	i := &interceptor{Listener: ln, recorder: rec, key: key, ready: make(chan net.Conn), done: make(chan struct{})}
	if i.ca, err = i.sign(&x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}); err != nil {
		return nil, err
	}
	return i, datadir.Write(caFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.ca.Raw}))
}

// sign completes the template and signs it; the first is signed by itself.
func (i *interceptor) sign(template *x509.Certificate) (*x509.Certificate, error) {
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent := i.ca
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, i.key.Public(), i.key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

func (i *interceptor) certificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	cert, err := i.sign(&x509.Certificate{DNSNames: []string{hello.ServerName}})
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: i.key}, nil
}

// run intercepts what the listener accepts until ctx ends.
func (i *interceptor) run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { i.Close() })()
	var g errgroup.Group
	defer g.Wait()
	defer close(i.done)
	for {
		c, err := i.Listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return err
		}
		g.Go(func() error { i.intercept(ctx, c); return nil })
	}
}

// intercept reads along on browser's connection until it ends. What is for the
// coordinator it lets through: members pin its key, and would be warned.
func (i *interceptor) intercept(ctx context.Context, browser net.Conn) {
	name, browser := peekServerName(browser)
	if strings.HasPrefix(name, "control.") {
		i.hand(ctx, browser)
		return
	}
	defer browser.Close()
	server := tls.Server(browser, &tls.Config{GetCertificate: i.certificate, NextProtos: []string{"h2", "http/1.1"}})
	if server.HandshakeContext(ctx) != nil {
		return
	}
	near, far := net.Pipe()
	i.hand(ctx, guise{far, browser})
	state := server.ConnectionState()
	cfg := &tls.Config{ServerName: state.ServerName, InsecureSkipVerify: true}
	if state.NegotiatedProtocol != "" {
		cfg.NextProtos = []string{state.NegotiatedProtocol}
	}
	client := tls.Client(near, cfg)
	splice.Conns(ctx, i.recorder.conn(server), i.recorder.conn(client))
}

// hand gives c to Accept, or closes it.
func (i *interceptor) hand(ctx context.Context, c net.Conn) {
	select {
	case i.ready <- c:
	case <-ctx.Done():
		c.Close()
	}
}

// Accept returns the next conn of hand.
func (i *interceptor) Accept() (net.Conn, error) {
	select {
	case c := <-i.ready:
		return c, nil
	case <-i.done:
		return nil, net.ErrClosed
	}
}

// A guise is a conn that shows another's addresses.
type guise struct {
	net.Conn
	shown net.Conn
}

func (g guise) LocalAddr() net.Addr  { return g.shown.LocalAddr() }
func (g guise) RemoteAddr() net.Addr { return g.shown.RemoteAddr() }

// peekServerName returns the server name in the ClientHello that c begins with,
// and a conn that begins with it again.
func peekServerName(c net.Conn) (name string, again net.Conn) {
	var raw bytes.Buffer
	tls.Server(&replay{Conn: deaf{c}, Reader: io.TeeReader(c, &raw)}, &tls.Config{
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			name = hello.ServerName
			return nil, errPeeked
		},
	}).Handshake()
	return name, &replay{Conn: c, Reader: io.MultiReader(&raw, c)}
}

var errPeeked = errors.New("peeked")

// deaf is a conn to which nothing can be said.
type deaf struct{ net.Conn }

func (deaf) Write([]byte) (int, error) { return 0, errPeeked }

// replay is a conn that reads from elsewhere.
type replay struct {
	net.Conn
	io.Reader
}

func (r *replay) Read(b []byte) (int, error) { return r.Reader.Read(b) }
