package longline

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// An origin serves the same over TLS at Secure and in plain HTTP at Plain, which
// is the node's upstream.
type origin struct{ Plain, Secure string }

func (o origin) run() error {
	plain, err := net.Listen("tcp", o.Plain)
	if err != nil {
		return err
	}
	config, err := selfSigned()
	if err != nil {
		return err
	}
	secure, err := tls.Listen("tcp", o.Secure, config)
	if err != nil {
		return err
	}
	var uploads uploads
	mux := http.NewServeMux()
	mux.HandleFunc("GET /small", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a few bytes\n") })
	mux.HandleFunc("GET /endless", func(w http.ResponseWriter, _ *http.Request) { io.Copy(w, zeros{}) })
	mux.HandleFunc("POST /endless", uploads.receive)
	mux.HandleFunc("GET /received", uploads.received)
	// A measurement that ends leaves connections half done; nobody needs to know.
	srv := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}
	var servers errgroup.Group
	for _, ln := range []net.Listener{plain, secure} {
		servers.Go(func() error { return srv.Serve(ln) })
	}
	return servers.Wait()
}

// Uploads counts what arrives here, since a sender only knows what it has put into
// the buffers on the way. Uploads of one name are counted together.
type uploads struct {
	counts sync.Map // name to *atomic.Int64
}

func (u *uploads) count(r *http.Request) *atomic.Int64 {
	n, _ := u.counts.LoadOrStore(r.FormValue("name"), new(atomic.Int64))
	return n.(*atomic.Int64)
}

func (u *uploads) receive(_ http.ResponseWriter, r *http.Request) {
	io.Copy(counter{u.count(r)}, r.Body)
}

// received answers with the bytes that have arrived and the time, in nanoseconds.
func (u *uploads) received(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintln(w, u.count(r).Load(), strconv.FormatInt(time.Now().UnixNano(), 10))
}

// counter is a writer that only counts.
type counter struct{ n *atomic.Int64 }

func (c counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// selfSigned makes a server with a certificate of the kind that nodes have: ECDSA
// P-256.
func selfSigned() (*tls.Config, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
		NextProtos:   []string{"http/1.1"},
	}, nil
}
