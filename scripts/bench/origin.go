package main

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
	"os"
	"os/exec"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"postern/scripts/bench/process"
)

// An upstream is an origin, running.
type upstream struct {
	pid           int
	plain, secure string // where it serves HTTP, and HTTP over TLS
}

// startOrigin starts an origin on host, by the command that wrap makes of its own,
// and returns once it serves.
func startOrigin(c *process.Children, wrap func(*exec.Cmd) *exec.Cmd, host string) (u upstream, err error) {
	cmd, err := roleCommand("origin")
	if err != nil {
		return u, err
	}
	cmd.Args = append(cmd.Args, host)
	cmd = wrap(cmd)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return u, err
	}
	if u.pid, err = c.Start("origin", cmd); err != nil {
		return u, err
	}
	if _, err := fmt.Fscanln(out, &u.plain, &u.secure); err != nil {
		return u, fmt.Errorf("origin: %w", err)
	}
	return u, nil
}

// origin serves the same answers over TLS, where it ends here, and in plain HTTP, as
// the node's upstream, both on the host that is its argument. It prints both
// addresses and runs until it is killed.
func origin() error {
	host := os.Args[1]
	mux := http.NewServeMux()
	mux.HandleFunc("GET /small", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a few bytes\n") })
	mux.HandleFunc("GET /bulk", serveBulk)
	mux.HandleFunc("POST /bulk", func(_ http.ResponseWriter, r *http.Request) { io.Copy(io.Discard, r.Body) })

	cert, err := selfSigned()
	if err != nil {
		return err
	}
	plain, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return err
	}
	secure, err := tls.Listen("tcp", net.JoinHostPort(host, "0"), &tls.Config{
		Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"},
	})
	if err != nil {
		return err
	}
	fmt.Println(plain.Addr(), secure.Addr())
	// A measurement that ends leaves handshakes half done; nobody needs to know.
	srv := &http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0)}
	var servers errgroup.Group
	for _, ln := range []net.Listener{plain, secure} {
		servers.Go(func() error { return srv.Serve(ln) })
	}
	return servers.Wait()
}

func serveBulk(w http.ResponseWriter, r *http.Request) {
	size, err := strconv.ParseInt(r.FormValue("size"), 10, 64)
	if err != nil || size < 0 {
		http.Error(w, "size: want a number of bytes", http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	for size > 0 {
		n, err := w.Write(zeros[:min(size, int64(len(zeros)))])
		if err != nil {
			return
		}
		size -= int64(n)
	}
}

// zeros are what bulk answers consist of. Only the origin reads them.
var zeros [64 << 10]byte

// selfSigned makes a certificate of the kind that nodes have: ECDSA P-256.
func selfSigned() (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
