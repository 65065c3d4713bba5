//go:build e2e

package e2e

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// The proxy of a lab's router, and what it wants to hear.
const (
	proxyAddress  = "192.168.77.1:3128"
	proxyUser     = "office"
	proxyPassword = "open/sesame@42"
)

// proxy is a child: an HTTP proxy that connects (RFC 9110, section 9.3.6) whoever has the
// password (RFC 7617), and does nothing else.
func proxy() error {
	ln, err := net.Listen("tcp", proxyAddress)
	if err != nil {
		return err
	}
	fmt.Println("proxy up")
	return http.Serve(ln, http.HandlerFunc(proxyRequest))
}

func proxyRequest(w http.ResponseWriter, r *http.Request) {
	// The standard library reads Basic credentials from another header.
	asked := &http.Request{Header: http.Header{"Authorization": r.Header["Proxy-Authorization"]}}
	if user, password, ok := asked.BasicAuth(); !ok || user != proxyUser || password != proxyPassword {
		w.Header().Set("Proxy-Authenticate", `Basic realm="office"`)
		http.Error(w, "who are you?", http.StatusProxyAuthRequired)
		return
	}
	if r.Method != http.MethodConnect {
		http.Error(w, "CONNECT only", http.StatusMethodNotAllowed)
		return
	}
	out, err := net.Dial("tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer out.Close()
	w.WriteHeader(http.StatusOK)
	in, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	defer in.Close()
	var copies sync.WaitGroup
	copies.Go(func() { io.Copy(out, buffered); out.Close() })
	io.Copy(in, out)
	in.Close()
	copies.Wait()
}
