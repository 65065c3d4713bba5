// Package acmetest runs a certificate authority in a test's process: Pebble, over
// loopback, with the faults that a test asks for. Only tests import it.
package acmetest

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"maps"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/core"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
)

// Options say how the authority is. The zero value is the most obliging one.
type Options struct {
	// Port is where the authority connects to prove a name, over IPv4; it stands for
	// 443.
	Port int
	// Resolver is the "IP:port" of the DNS server that is asked for a name's address,
	// over TCP. If empty, every name is at 127.0.0.1.
	Resolver string

	BadNonces int                      // of a hundred good ones, so many are refused
	Reuse     int                      // of a hundred authorizations, so many are used again
	Bindings  map[string]string        // key id to HMAC (base64url); if any, accounts have to be bound to one
	Profiles  map[string]time.Duration // name to lifetime; if none, "default" with 90 days

	// CAA stands for the authority's look at CAA records, which Pebble does not take:
	// with an error, which should say what such a record says, there is no
	// certificate. account is its URI. If nil, everybody may have everything.
	CAA func(host, account string) error
}

// Resources of an authority, as Faults know them.
const (
	Directory     = "directory"
	NewNonce      = "newNonce"
	NewAccount    = "newAccount"
	Account       = "account"
	NewOrder      = "newOrder"
	Order         = "order"
	Authorization = "authorization"
	Challenge     = "challenge"
	Finalize      = "finalize"
	Certificate   = "certificate"
	RenewalInfo   = "renewalInfo"
)

// Pebble's paths, which are unlike others' on purpose.
var paths = map[string]string{
	wfe.DirectoryPath: Directory, "/nonce-plz": NewNonce, "/sign-me-up": NewAccount, "/my-account/": Account,
	"/order-plz": NewOrder, "/my-order/": Order, "/authZ/": Authorization, "/chalZ/": Challenge,
	"/finalize-order/": Finalize, "/certZ/": Certificate, "/draft-ietf-acme-ari-03/renewalInfo/": RenewalInfo,
}

// A Fault may answer a request in the authority's place, and returns whether it did.
// resource is one of the constants. r's context ends when the client leaves.
type Fault func(resource string, w http.ResponseWriter, r *http.Request) bool

// A Window is what an authority says of a certificate's renewal (RFC 9773).
type Window struct {
	Start, End time.Time
	RetryAfter time.Duration // zero: it does not say
}

// A CA is a running authority. Its methods are safe for concurrent use.
type CA struct {
	URL   string // of the directory
	Roots []byte // PEM of its TLS certificate's issuer

	options Options
	store   *db.MemoryStore
	issuer  *ca.CAImpl
	server  *httptest.Server
	dns     *dnsServer

	mu      sync.Mutex
	fault   Fault
	windows func(id string) (Window, bool)
	count   map[string]int
}

// Leaked is the function of a goroutine that Pebble never ends; for goleak's
// IgnoreAnyFunction.
const Leaked = "github.com/letsencrypt/pebble/v2/va.VAImpl.processTasks"

// environment is Pebble's way to be configured.
var environment sync.Mutex

// Start runs an authority until the test ends.
func Start(t testing.TB, o Options) *CA {
	t.Helper()
	c := &CA{options: o, store: db.NewMemoryStore(), count: map[string]int{}}
	if o.Resolver == "" {
		dns, err := listenDNS()
		if err != nil {
			t.Fatal(err)
		}
		c.dns, o.Resolver = dns, dns.addr()
	}
	profiles := map[string]ca.Profile{}
	for name, life := range o.Profiles {
		profiles[name] = ca.Profile{Description: name, ValidityPeriod: uint64(life / time.Second)}
	}
	if len(profiles) == 0 {
		profiles["default"] = ca.Profile{Description: "default", ValidityPeriod: 90 * 24 * 3600}
	}
	for id, hmac := range o.Bindings {
		if err := c.store.AddExternalAccountKeyByID(id, hmac); err != nil {
			t.Fatal(err)
		}
	}
	quiet := log.New(io.Discard, "", 0)
	environment.Lock()
	restore := setenv(map[string]string{
		"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": strconv.Itoa(o.BadNonces), "PEBBLE_AUTHZREUSE": strconv.Itoa(o.Reuse),
	})
	c.issuer = ca.New(quiet, c.store, "", "ecdsa", 0, 1, profiles)
	validator := va.New(quiet, 1, o.Port, false, o.Resolver, c.store)
	front := wfe.New(quiet, c.store, validator, c.issuer, []string{"ca.example"}, true, len(o.Bindings) > 0, 0, 0)
	restore()
	environment.Unlock()

	c.server = httptest.NewUnstartedServer(c.around(front.Handler()))
	c.server.Config.ErrorLog = quiet // clients that do not trust us
	c.server.StartTLS()
	c.URL = c.server.URL + wfe.DirectoryPath
	c.Roots = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.server.Certificate().Raw})
	t.Cleanup(func() {
		c.server.CloseClientConnections()
		c.server.Close()
		if c.dns != nil {
			c.dns.close()
		}
	})
	return c
}

func setenv(vars map[string]string) (restore func()) {
	before := map[string]string{}
	for k, v := range vars {
		before[k] = os.Getenv(k)
		os.Setenv(k, v)
	}
	return func() {
		for k, v := range before {
			os.Setenv(k, v)
		}
	}
}

// Issuing returns the root of the certificates that the authority gives, in PEM.
func (c *CA) Issuing() []byte { return c.issuer.GetRootCert(0).PEM() }

// SetFault makes f see each request first; nil ends that.
func (c *CA) SetFault(f Fault) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.fault = f
}

// SetWindow makes f say when certificates are to be renewed, by their identifiers (RFC
// 9773, section 4.1); ok false leaves that to Pebble.
func (c *CA) SetWindow(f func(id string) (w Window, ok bool)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.windows = f
}

// Requests returns how many requests there were, by resource.
func (c *CA) Requests() map[string]int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.count)
}

// Replaced returns whether an order to replace cert was completed.
func (c *CA) Replaced(cert *x509.Certificate) bool {
	order, err := c.store.GetOrderByIssuedSerial(hex.EncodeToString(cert.SerialNumber.Bytes()))
	if err != nil {
		return false
	}
	order.RLock()
	defer order.RUnlock()
	return order.IsReplaced
}

// around puts what Pebble does not do in front of it.
func (c *CA) around(pebble http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Only with all of it read does r's context end when the client leaves.
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		resource, rest := resourceOf(r.URL.Path)
		c.mu.Lock()
		c.count[resource]++
		fault, windows := c.fault, c.windows
		c.mu.Unlock()
		if fault != nil && fault(resource, w, r) {
			return
		}
		if resource == RenewalInfo && windows != nil {
			if win, ok := windows(rest); ok {
				serveWindow(w, win)
				return
			}
		}
		if resource == Finalize && c.options.CAA != nil {
			if host, account, err := c.parties(rest, body); err != nil || host == "" {
				Problem(w, http.StatusBadRequest, "malformed", "no such order")
				return
			} else if err := c.options.CAA(host, account); err != nil {
				Problem(w, http.StatusForbidden, "caa", err.Error())
				return
			}
		}
		if resource == NewOrder {
			c.settle(body)
		}
		pebble.ServeHTTP(w, r)
	})
}

// settle waits for the order whose certificate a new order replaces, which Pebble notes
// only after the certificate was given, and takes its lock: Pebble reads there what it
// wrote under that lock, but without it.
func (c *CA) settle(body []byte) {
	var wish struct{ Replaces string }
	if part(body, "payload", &wish) != nil {
		return
	}
	_, serial, _ := strings.Cut(wish.Replaces, ".")
	text, err := base64.RawURLEncoding.DecodeString(serial)
	number := new(big.Int).SetBytes(text)
	if err != nil || c.store.GetCertificateBySerial(number) == nil {
		return
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for range 1000 {
		if order, err := c.store.GetOrderByIssuedSerial(hex.EncodeToString(number.Bytes())); err == nil {
			order.Lock()
			defer order.Unlock()
			return
		}
		<-tick.C
	}
}

func resourceOf(path string) (resource, rest string) {
	for prefix, resource := range paths {
		if rest, ok := strings.CutPrefix(path, prefix); ok {
			return resource, rest
		}
	}
	return path, ""
}

func serveWindow(w http.ResponseWriter, win Window) {
	if win.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(win.RetryAfter/time.Second)))
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(core.RenewalInfo{SuggestedWindow: core.SuggestedWindow{Start: win.Start.UTC(), End: win.End.UTC()}})
}

// parties returns for whom an order is that is to be finalized, and the account that
// says so; Pebble looks at the signature after that.
func (c *CA) parties(id string, body []byte) (host, account string, err error) {
	var head struct{ Kid string }
	if err := part(body, "protected", &head); err != nil {
		return "", "", err
	}
	order := c.store.GetOrderByID(id)
	if order == nil {
		return "", "", fmt.Errorf("there is no order %q", id)
	}
	order.RLock()
	defer order.RUnlock()
	return order.Identifiers[0].Value, head.Kid, nil
}

// Problem answers with a problem document (RFC 8555, section 6.7) of the given kind,
// which is the last part of its URN.
func Problem(w http.ResponseWriter, status int, kind, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(map[string]any{
		"type": "urn:ietf:params:acme:error:" + kind, "detail": detail, "status": status,
	})
}
