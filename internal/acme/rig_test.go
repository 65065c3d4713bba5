package acme

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"log/slog"
	"maps"
	"math/big"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"postern"
	"postern/internal/acme/acmetest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction(acmetest.Leaked))
}

var quick = timing{
	poll: 5 * time.Millisecond, request: 3 * time.Second, attempt: 20 * time.Second, await: 10 * time.Second,
	down: 20 * time.Millisecond, refused: 20 * time.Millisecond, urgent: usual.urgent,
}

// A rig is a Manager, and the way to it: a listener that authorities connect to.
type rig struct {
	t        *testing.T
	dir      string
	timing   timing
	ln       net.Listener
	hijacked atomic.Bool  // handshakes of authorities meet somebody else
	shift    atomic.Int64 // of the clock, in nanoseconds
	log      lockedBuffer

	await   func(ctx context.Context, host string) error
	awaited atomic.Int32
	settled atomic.Int32

	m    *Manager // of the present run
	mp   atomic.Pointer[Manager]
	end  func() // the run
	news chan struct{}
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{
		t: t, dir: t.TempDir() + "/acme", timing: quick, news: make(chan struct{}, 1), end: func() {},
		await: func(context.Context, string) error { return nil },
	}
	evil := selfSigned(t, "evil.example")
	inner, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.ln = tls.NewListener(inner, &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		m := r.mp.Load()
		if slices.Equal(hello.SupportedProtos, []string{"acme-tls/1"}) {
			cert, ok := m.Challenge(hello.ServerName)
			if r.hijacked.Load() {
				cert, ok = evil, true
			}
			if !ok {
				return nil, errors.New("nobody expects this")
			}
			return &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: []string{"acme-tls/1"}}, nil
		}
		cert, err := m.Get(hello.ServerName)
		if err != nil {
			return nil, err
		}
		return &tls.Config{Certificates: []tls.Certificate{*cert}}, nil
	}})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := r.ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(10 * time.Second))
				c.(*tls.Conn).Handshake()
			})
		}
	})
	t.Cleanup(func() {
		r.end()
		r.ln.Close()
		wg.Wait()
		if t.Failed() {
			t.Log(r.log.String())
		}
	})
	return r
}

func (r *rig) port() int { return r.ln.Addr().(*net.TCPAddr).Port }

// ca starts an authority that connects to r.
func (r *rig) ca(o acmetest.Options) *acmetest.CA {
	o.Port = r.port()
	return acmetest.Start(r.t, o)
}

// run starts a Manager over r's directory, in place of the last one.
func (r *rig) run() *Manager {
	r.t.Helper()
	r.end()
	m, err := New(Config{
		Dir: r.dir,
		Await: func(ctx context.Context, host string) error {
			r.awaited.Add(1)
			return r.await(ctx, host)
		},
		Settled: func(string) { r.settled.Add(1) },
		Changed: func() {
			select {
			case r.news <- struct{}{}:
			default:
			}
		},
		Logger: slog.New(slog.NewTextHandler(&r.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		clock:  func() time.Time { return time.Now().Add(time.Duration(r.shift.Load())) },
		timing: r.timing,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	r.end = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			r.t.Errorf("Run: %v", err)
		}
		if a, s := r.awaited.Load(), r.settled.Load(); a != s {
			r.t.Errorf("%d handshakes were awaited, %d settled", a, s)
		}
	})
	r.m = m
	r.mp.Store(m)
	return m
}

// until waits for ok.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	timeout := time.NewTimer(20 * time.Second)
	defer timeout.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-r.news:
		case <-tick.C:
		case <-timeout.C:
			states := map[string]State{}
			r.m.mu.Lock()
			for _, name := range slices.Sorted(maps.Keys(r.m.hosts)) {
				states[name] = r.m.state(r.m.hosts[name], r.m.cfg.clock())
			}
			r.m.mu.Unlock()
			r.t.Fatalf("waited in vain: %s\n%v", what, states)
		}
	}
}

// ready waits until host has a certificate and no error.
func (r *rig) ready(host string) *tls.Certificate {
	r.t.Helper()
	r.until("certificate for "+host, func() bool {
		st := r.m.State(host)
		return st.Certificate != nil && st.Err == nil && st.Waiting == ""
	})
	return r.m.State(host).Certificate
}

// holds starts a Manager that has a certificate for books from ca.
func (r *rig) holds(ca *acmetest.CA) (*Manager, *tls.Certificate) {
	r.t.Helper()
	m := r.run()
	m.Want([]string{books}, []Issuer{issuer(ca)})
	return m, r.ready(books)
}

// shows checks that old is what is shown at books.
func (r *rig) shows(old *tls.Certificate) {
	r.t.Helper()
	if cert, err := r.m.Get(books); err != nil || !cert.Leaf.Equal(old.Leaf) {
		r.t.Errorf("the old certificate is not shown: %v", err)
	}
}

// failed waits until host has an error.
func (r *rig) failed(host string) State {
	r.t.Helper()
	r.until("an error for "+host, func() bool { return r.m.State(host).Err != nil })
	return r.m.State(host)
}

// replaced waits until host has another certificate than old.
func (r *rig) replaced(host string, old *tls.Certificate) *tls.Certificate {
	r.t.Helper()
	r.until("another certificate for "+host, func() bool {
		st := r.m.State(host)
		return st.Certificate != nil && st.Certificate.Leaf.SerialNumber.Cmp(old.Leaf.SerialNumber) != 0
	})
	return r.ready(host)
}

// dial shakes hands with the listener as a browser that trusts roots does.
func (r *rig) dial(host string, roots []byte) error {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	c, err := tls.Dial("tcp4", r.ln.Addr().String(), &tls.Config{ServerName: host, RootCAs: pool})
	if err != nil {
		return err
	}
	return c.Close()
}

func issuer(c *acmetest.CA) Issuer {
	return Issuer{ACMEIssuer: postern.ACMEIssuer{Directory: c.URL, Roots: c.Roots}, Email: "ops@example.com"}
}

func selfSigned(t *testing.T, host string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{host},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
