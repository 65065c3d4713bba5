//go:build e2e

package e2e

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/crypto/blake2s"

	"postern"
)

// sceneEnv holds the scene of a child, in JSON.
const sceneEnv = "POSTERN_E2E_SCENE"

// A scene is where a child visits, or floods.
type scene struct {
	HTTPS, UDP int                     // ports of the gateway
	Key        postern.WireGuardPublic // its own
	CA         string                  // file
	Flood      string                  // one of floods
}

// sceneOfChild returns the scene of this child, and a client for it.
func sceneOfChild() (s scene, hc *http.Client, err error) {
	if err := json.Unmarshal([]byte(os.Getenv(sceneEnv)), &s); err != nil {
		return s, nil, err
	}
	roots, err := poolOf(s.CA)
	if err != nil {
		return s, nil, err
	}
	return s, clientOf(s.HTTPS, roots, "http/1.1"), nil
}

func (s scene) url(tenant, path string) string {
	return fmt.Sprintf("https://%s.%s:%d%s", tenant, base, s.HTTPS, path)
}

// bigSite is a child: an application whose page /big does not end, and which reads what it
// is sent. It says where it listens.
func bigSite() error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	return http.Serve(ln, http.HandlerFunc(serveBig))
}

func serveBig(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body) // as much as there is
	piece := make([]byte, 2<<10)
	for {
		if _, err := w.Write(piece); err != nil || r.URL.Path != "/big" {
			return
		}
	}
}

// visits is a child: it asks for pages of globex, one after the other, and says how long
// they took, in nanoseconds: the 50th and the 99th percentile. None may fail.
func visits() error {
	s, hc, err := sceneOfChild()
	if err != nil {
		return err
	}
	var took []time.Duration
	tick := time.NewTicker(3 * time.Millisecond)
	defer tick.Stop()
	for begin := time.Now(); time.Since(begin) < floodTime; <-tick.C {
		start := time.Now()
		if status, _, err := get(hc, s.url("globex", "/")); status != http.StatusOK {
			return fmt.Errorf("the quiet tenant is not served: %d, %v", status, err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	fmt.Println(int64(took[len(took)/2]), int64(took[len(took)*99/100]))
	return nil
}

// flood is a child: it floods until it is asked to end, for a minute at most, and says
// what came of that.
func flood() error {
	s, hc, err := sceneOfChild()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGTERM)
	defer stop()
	said, err := floods[s.Flood](ctx, s, hc)
	fmt.Println(said)
	return err
}

const (
	floodRate  = 5                     // new connections a second that one tenant may have; a flood tries a hundred times as many
	floodPulse = 10 * time.Millisecond // a pulse's worth of a flood comes at once
)

// floods are what gateways are flooded with, until ctx ends.
var floods = map[string]func(ctx context.Context, s scene, hc *http.Client) (string, error){
	"what does not come to the gateway": func(ctx context.Context, _ scene, _ *http.Client) (string, error) {
		elsewhere := httptest.NewTLSServer(http.HandlerFunc(serveBig))
		defer elsewhere.Close()
		var flows sync.WaitGroup
		var moved counter
		for range 2 * floodRate {
			flows.Go(func() {
				download(ctx, elsewhere.Client(), elsewhere.URL+"/big", func(body io.Reader) { _, _ = io.Copy(&moved, body) }) // until ctx ends
			})
		}
		flows.Wait()
		return fmt.Sprintf("%d MiB", moved.Load()>>20), nil
	},
	"connections of one tenant": func(ctx context.Context, s scene, _ *http.Client) (string, error) {
		var flows sync.WaitGroup
		defer flows.Wait()
		n := each(ctx, 100*floodRate, func(i int) {
			if c, err := s.dialFrom(i); err == nil {
				flows.Go(func() {
					defer c.Close()
					_ = tls.Client(c, &tls.Config{ServerName: "acme." + base}).HandshakeContext(ctx) // most are refused
				})
			}
		})
		return fmt.Sprintf("%d connections", n), nil
	},
	"bytes of one tenant": func(ctx context.Context, s scene, hc *http.Client) (string, error) {
		var flows sync.WaitGroup
		var moved counter
		for range floodRate {
			flows.Go(func() {
				keep(ctx, func() {
					download(ctx, hc, s.url("acme", "/big"), func(body io.Reader) { _, _ = io.Copy(&moved, body) }) // until ctx ends
				})
			})
			flows.Go(func() { keep(ctx, func() { s.upload(ctx, hc, &moved) }) })
		}
		flows.Wait()
		return fmt.Sprintf("%d MiB", moved.Load()>>20), nil
	},
	"handshakes of nobody": func(ctx context.Context, s scene, _ *http.Client) (string, error) {
		key, err := ecdh.X25519().NewPublicKey(s.Key[:])
		if err != nil {
			return "", err
		}
		c, err := net.Dial("udp", loopback(s.UDP))
		if err != nil {
			return "", err
		}
		defer c.Close()
		n := each(ctx, 5000, func(int) { _, _ = c.Write(nobodysHello(&party{peer: key})) }) // as good as lost
		return fmt.Sprintf("%d handshakes", n), nil
	},
	"hellos that do not come": func(ctx context.Context, s scene, _ *http.Client) (string, error) {
		var conns []net.Conn
		defer func() {
			for _, c := range conns {
				c.Close()
			}
		}()
		n := each(ctx, 1000, func(i int) {
			if c, err := s.dialFrom(i % 20); err == nil {
				conns = append(conns, c)
				_, _ = c.Write([]byte{22, 3, 1, 2, 0}) // it may be reset by now
			}
		})
		return fmt.Sprintf("%d connections", n), nil
	},
	"clients that do not read": func(ctx context.Context, s scene, hc *http.Client) (string, error) {
		var clients sync.WaitGroup
		defer clients.Wait()
		n := each(ctx, 100, func(int) {
			clients.Go(func() { download(ctx, hc, s.url("acme", "/big"), func(io.Reader) { <-ctx.Done() }) })
		})
		return fmt.Sprintf("%d clients", n), nil
	},
}

// each calls one so many times a second until ctx ends, some at once, and returns how
// often.
func each(ctx context.Context, perSecond int, one func(i int)) (n int) {
	tick := time.NewTicker(floodPulse)
	defer tick.Stop()
	for {
		for range perSecond * int(floodPulse/time.Millisecond) / 1000 {
			one(n)
			n++
		}
		select {
		case <-ctx.Done():
			return n
		case <-tick.C:
		}
	}
}

// dialFrom connects to the gateway from one of 200 addresses.
func (s scene) dialFrom(i int) (net.Conn, error) {
	from := netip.AddrFrom4([4]byte{127, 9, byte(i % 200), 1})
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0)), Timeout: 10 * time.Second}
	return d.Dial("tcp", loopback(s.HTTPS))
}

// keep calls one again and again, a moment apart, until ctx ends.
func keep(ctx context.Context, one func()) {
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		one()
		select {
		case <-ctx.Done():
			return
		case <-again.C:
		}
	}
}

// download gets a page for as long as read has it. It may be refused.
func download(ctx context.Context, hc *http.Client, url string, read func(io.Reader)) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		panic(err) // it is a constant, as good as
	}
	if resp, err := hc.Do(req); err == nil {
		read(resp.Body)
		resp.Body.Close()
	}
}

// upload sends acme what does not end, counted in sent, until ctx ends. It may be refused.
func (s scene) upload(ctx context.Context, hc *http.Client, sent *counter) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url("acme", "/"), io.TeeReader(zeros{}, sent))
	if err != nil {
		panic(err)
	}
	if resp, err := hc.Do(req); err == nil {
		resp.Body.Close()
	}
}

// A counter counts what is written to it.
type counter struct{ atomic.Int64 }

func (c *counter) Write(b []byte) (int, error) {
	c.Add(int64(len(b)))
	return len(b), nil
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// nobodysHello returns a handshake initiation of nobody to p's peer: its first MAC, which
// takes no secret but the peer's public key, is good.
func nobodysHello(p *party) []byte {
	b := make([]byte, initiationSize-2*blake2s.Size128, initiationSize)
	rand.Read(b)
	binary.LittleEndian.PutUint32(b, initiationType)
	return p.addMACs(b)
}
