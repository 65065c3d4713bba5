//go:build e2e

package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"postern"
	"postern/netstack"
)

// A street is a deployment with two tenants, acme and globex, each with a node
// called TENANT-office and two services, "default" and "books".
type street struct {
	*deployment
	sites  map[string]*site // by host name
	office map[string]*process
}

// A site is an application that answers with its host name, and notes requests
// that were meant for another.
type site struct {
	host   string
	visits atomic.Int64
	strays sync.Map // what was meant, by itself
}

// meantFor is the header in which a request says which host it is for.
const meantFor = "Meant-For"

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("User-Agent") == "isolation" {
		s.visits.Add(1)
		if meant := r.Header.Get(meantFor); meant != s.host || r.Host != s.host {
			s.strays.Store(fmt.Sprintf("%s for %s", meant, r.Host), true)
		}
	}
	io.WriteString(w, s.host)
}

func newStreet(t *testing.T) *street {
	t.Helper()
	s := &street{
		deployment: bareDeployment(t),
		sites:      map[string]*site{}, office: map[string]*process{},
	}
	s.startCoordinator()
	s.joinGateway()
	s.startGatewayWithoutLimits()
	for _, tenant := range []string{"acme", "globex"} {
		var publish []string
		for _, service := range []string{postern.DefaultService, "books"} {
			site := &site{host: postern.ServiceHost(service, tenant, base)}
			server := httptest.NewServer(site)
			t.Cleanup(server.Close)
			s.sites[site.host] = site
			publish = append(publish, service+"="+server.URL)
		}
		token := s.tenant(tenant)
		s.office[tenant] = s.node(token, tenant+"-office", publish...)
	}
	return s
}

// nodeState returns a node as operators see it, its tunnel's endpoint included.
func (s *street) nodeState(name string) postern.NodeState {
	s.t.Helper()
	var found postern.NodeState
	eventually(s.t, 20*time.Second, func() error {
		var nodes []postern.NodeState
		s.cli(&nodes, "nodes", "list")
		for _, n := range nodes {
			if n.Name == name && len(n.Tunnels) == 1 && n.Tunnels[0].Endpoint != "" {
				found = n
				return nil
			}
		}
		return fmt.Errorf("no node %q with a tunnel in %+v", name, nodes)
	})
	return found
}

func (s *street) gatewayState() postern.GatewayState {
	s.t.Helper()
	var gateways []postern.GatewayState
	s.cli(&gateways, "gateways", "list")
	if len(gateways) != 1 {
		s.t.Fatalf("gateways are %+v, want one", gateways)
	}
	return gateways[0]
}

// gatewayPeer is the gateway as an honest node's peer.
func (s *street) gatewayPeer() netstack.Peer {
	s.t.Helper()
	g := s.gatewayState()
	return netstack.Peer{
		PublicKey: g.WireGuard, Address: g.Address, Endpoint: netip.MustParseAddrPort(loopback(s.udp)),
	}
}

// passed notes an invariant that held, and how often it was tried.
func passed(t *testing.T, invariant string, tries int) {
	t.Helper()
	if tries == 0 {
		t.Errorf("%s: nothing was tried", invariant)
	}
	if !t.Failed() {
		noteFigure(t, "isolation", invariant, float64(tries), "tries")
	}
}

// I1: whatever server name and whatever Host stand side by side, in whatever
// order, a request reaches the site of its server name or none.
func TestIsolationI1ServerName(t *testing.T) {
	s := newStreet(t)
	roots := s.roots()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	hosts := []string{"acme." + base, "books.acme." + base, "globex." + base, "books.globex." + base}
	names := append([]string{
		"nobody." + base, "acme.globex." + base, "ACME." + base,
		"xacme." + base, base, "",
	}, hosts...)
	var work errgroup.Group
	work.SetLimit(8)
	var answered, refused, misdirected atomic.Int64
	const rounds = 600
	for range rounds {
		name, host, proto := names[rng.IntN(len(names))], hosts[rng.IntN(len(hosts))], []string{"http/1.1", "h2"}[rng.IntN(2)]
		if rng.IntN(2) == 0 && s.sites[name] != nil {
			host = name
		}
		work.Go(func() error {
			status, body, err := s.visit(roots, name, host, proto)
			switch {
			case err != nil && s.sites[name] != nil:
				return fmt.Errorf("server name %q, host %q, %s: %w", name, host, proto, err)
			case err != nil:
				if s.sites[strings.ToLower(name)] == nil && !strings.Contains(err.Error(), "unrecognized name") {
					return fmt.Errorf("server name %q: got %w, want the alert unrecognized_name", name, err)
				}
				refused.Add(1)
			case status == http.StatusOK && body == strings.ToLower(name) && host == strings.ToLower(name):
				answered.Add(1)
			case status == http.StatusMisdirectedRequest && host != name:
				misdirected.Add(1)
			default:
				return fmt.Errorf("server name %q, host %q, %s: got %d %q", name, host, proto, status, body)
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		t.Error(err)
	}
	s.noStrays()
	if answered.Load() == 0 || refused.Load() == 0 || misdirected.Load() == 0 {
		t.Errorf("answered %d, refused %d, misdirected %d: want some of each", answered.Load(), refused.Load(), misdirected.Load())
	}
	s.testTurncoat(roots)
	passed(t, "I1 server name of one tenant, node of another", rounds)
}

// noStrays checks that no site had a request that was meant for another.
func (s *street) noStrays() {
	s.t.Helper()
	for host, site := range s.sites {
		site.strays.Range(func(what, _ any) bool {
			s.t.Errorf("%s had a request meant for %v", host, what)
			return true
		})
	}
}

// visit makes one request for host over a new connection that says name.
func (s *street) visit(roots *x509.CertPool, name, host, proto string) (int, string, error) {
	conn, err := s.handshake(roots, name, proto)
	if err != nil {
		return 0, "", err
	}
	hc := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return conn, nil },
		ForceAttemptHTTP2: proto == "h2", DisableKeepAlives: true,
	}}
	defer conn.Close()
	return ask200(hc, name, host)
}

// ask200 requests host's page over hc and returns the status and the body.
func ask200(hc *http.Client, name, host string) (int, string, error) {
	req, err := http.NewRequest("GET", "https://"+host+"/", nil)
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("User-Agent", "isolation")
	req.Header.Set(meantFor, strings.ToLower(name))
	resp, err := hc.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// handshake opens TLS with the gateway's far side under name, which must have a
// certificate for it and nothing else.
func (s *street) handshake(roots *x509.CertPool, name, proto string) (*tls.Conn, error) {
	raw, err := net.DialTimeout("tcp", loopback(s.https), 5*time.Second)
	if err != nil {
		return nil, err
	}
	raw.SetDeadline(time.Now().Add(10 * time.Second))
	conn := tls.Client(raw, &tls.Config{ServerName: name, NextProtos: []string{proto}, InsecureSkipVerify: true, VerifyConnection: func(state tls.ConnectionState) error {
		leaf := state.PeerCertificates[0]
		if len(leaf.DNSNames) != 1 || leaf.DNSNames[0] != strings.ToLower(name) {
			return fmt.Errorf("asked for %q and was shown %v", name, leaf.DNSNames)
		}
		_, err := leaf.Verify(x509.VerifyOptions{Roots: roots})
		return err
	}})
	if err := conn.Handshake(); err != nil {
		raw.Close()
		return nil, err
	}
	return conn, nil
}

// testTurncoat changes the host on a connection that was good before.
func (s *street) testTurncoat(roots *x509.CertPool) {
	s.t.Helper()
	for _, proto := range []string{"http/1.1", "h2"} {
		name := "acme." + base
		hc := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			DialTLSContext:    func(context.Context, string, string) (net.Conn, error) { return s.handshake(roots, name, proto) },
			ForceAttemptHTTP2: proto == "h2",
		}}
		for _, step := range []struct {
			host   string
			status int
		}{{name, 200}, {"globex." + base, 421}, {name, 200}, {"books." + name, 421}, {"nobody." + base, 421}} {
			if status, _, err := ask200(hc, name, step.host); err != nil || status != step.status {
				s.t.Errorf("%s, host %s on a connection to %s: got %d, %v, want %d", proto, step.host, name, status, err, step.status)
			}
		}
		hc.CloseIdleConnections()
	}
	s.noStrays()
}
