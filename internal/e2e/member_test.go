//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"postern"
	"postern/internal/identity"
	"postern/netstack"
)

// A stranger is a member, or who would like to be one, that obeys nobody: it has
// keys and speaks the control protocol by hand.
type stranger struct {
	d          *deployment
	key        postern.IdentityPrivate
	wireguard  postern.WireGuardPrivate
	enrollment postern.Enrollment
	token      postern.Token
}

func newStranger(d *deployment, secret string) *stranger {
	d.t.Helper()
	token, err := postern.ParseToken(secret)
	if err != nil {
		d.t.Fatal(err)
	}
	return &stranger{d: d, token: token, key: postern.NewIdentityPrivate(), wireguard: postern.NewWireGuardPrivate()}
}

// join enrols as body says, which is an EnrollRequest in JSON with whatever else
// in it. What is refused is a *postern.Problem.
func (s *stranger) join(body map[string]any) error {
	conn, err := tls.Dial("tcp", loopback(s.d.control), identity.ClientConfig(s.token.Root, nil, "http/1.1"))
	if err != nil {
		return err
	}
	defer conn.Close()
	hc := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil },
	}}
	url := "https://" + loopback(s.d.control) + postern.PathEnroll
	var challenge postern.Challenge
	if err := ask(hc, "GET", url, nil, nil, &challenge); err != nil {
		return err
	}
	state := conn.ConnectionState()
	binding, err := state.ExportKeyingMaterial(postern.ChannelBinding, nil, 32)
	if err != nil {
		return err
	}
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	message := postern.EnrollMessage(binding, data)
	shared, err := s.wireguard.Shared(challenge.WireGuard)
	if err != nil {
		return err
	}
	mac := hmac.New(sha256.New, shared)
	mac.Write(message)
	header := http.Header{}
	for name, proof := range map[string][]byte{
		postern.HeaderTokenSignature:    ed25519.Sign(s.token.Key(), message),
		postern.HeaderIdentitySignature: ed25519.Sign(s.key.Key(), message),
		postern.HeaderWireGuardProof:    mac.Sum(nil),
	} {
		header.Set(name, base64.StdEncoding.EncodeToString(proof))
	}
	return ask(hc, "POST", url, header, data, &s.enrollment)
}

// request is an honest EnrollRequest, for join.
func (s *stranger) request(name string) map[string]any {
	return map[string]any{
		"token": s.token.ID, "role": postern.RoleNode, "name": name,
		"identity": s.key.Public(), "wireguard": s.wireguard.Public(),
	}
}

// mustJoin joins as an honest node would.
func (s *stranger) mustJoin(name string) *stranger {
	s.d.t.Helper()
	if err := s.join(s.request(name)); err != nil {
		s.d.t.Fatalf("join as %q: %v", name, err)
	}
	return s
}

// client returns an HTTP client that shows s's certificate to the coordinator.
func (s *stranger) client() *http.Client {
	cert := &tls.Certificate{PrivateKey: s.key.Key()}
	for rest := s.enrollment.Certificate; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	transport := &http.Transport{TLSClientConfig: identity.ClientConfig(s.token.Root, cert), ForceAttemptHTTP2: true}
	s.d.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// ask does one call of the control API, as s.
func (s *stranger) ask(method, path string, in, out any) error {
	var body []byte
	if in != nil {
		var err error
		if body, err = json.Marshal(in); err != nil {
			return err
		}
	}
	return ask(s.client(), method, "https://"+loopback(s.d.control)+path, nil, body, out)
}

// ask sends body and decodes the answer into out, if not nil. A refusal is a
// *postern.Problem.
func ask(hc *http.Client, method, url string, header http.Header, body []byte, out any) error {
	req, err := http.NewRequest(method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if header != nil {
		req.Header = header
	}
	resp, err := hc.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		p := new(postern.Problem)
		if json.Unmarshal(data, p) != nil || p.Code == "" {
			return fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, data)
		}
		return p
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(data, out)
}

// overlay opens a host with a key and an address, which may be a lie, and
// peers, which may be too. It is closed with the test.
func overlay(t testing.TB, key postern.WireGuardPrivate, addr netip.Addr, port int, peers ...netstack.Peer) *netstack.Net {
	t.Helper()
	n, err := netstack.New(netstack.Config{PrivateKey: key, Address: addr, Port: uint16(port)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.Close() })
	if err := n.SetPeers(peers); err != nil {
		t.Fatal(err)
	}
	return n
}

// csr returns a certificate request like template, in DER, with a fresh key.
func csr(t testing.TB, template *x509.CertificateRequest) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}
