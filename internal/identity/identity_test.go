package identity_test

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"postern"
	"postern/internal/identity"
)

// A party is a key and its certificate.
type party struct {
	key  crypto.Signer
	cert *x509.Certificate
}

// issue makes a certificate for a new key, signed by issuer or, if nil, by itself.
func issue(t *testing.T, issuer *party, name *identity.Name, use x509.ExtKeyUsage, age time.Duration) *party {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-age), NotAfter: time.Now().Add(-age + time.Hour),
	}
	if name != nil {
		template.URIs = []*url.URL{name.URI()}
		template.ExtKeyUsage = []x509.ExtKeyUsage{use}
	} else {
		template.IsCA, template.BasicConstraintsValid = true, true
		template.KeyUsage = x509.KeyUsageCertSign
		template.NotAfter = time.Now().Add(24 * time.Hour)
	}
	parent, signer := template, crypto.Signer(key)
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &party{key, cert}
}

func chain(parties ...*party) []*x509.Certificate {
	var certs []*x509.Certificate
	for _, p := range parties {
		certs = append(certs, p.cert)
	}
	return certs
}

var (
	coordinator = identity.Name{Deployment: "d", Role: postern.RoleCoordinator}
	node        = identity.Name{Deployment: "d", Role: postern.RoleNode, ID: "n1"}
)

func TestClientTrustsThePinnedRootOnly(t *testing.T) {
	root := issue(t, nil, nil, 0, 48*time.Hour)
	ca := issue(t, root, nil, 0, 48*time.Hour)
	good := issue(t, ca, &coordinator, x509.ExtKeyUsageServerAuth, 0)
	other := issue(t, nil, nil, 0, time.Hour)
	for _, tt := range []struct {
		name  string
		chain []*party
		want  string // in the error; empty: none
	}{
		{"the coordinator", []*party{good, ca, root}, ""},
		{"expired long ago", []*party{issue(t, ca, &coordinator, x509.ExtKeyUsageServerAuth, 40*time.Hour), ca, root}, ""},
		{"no root in the chain", []*party{good, ca}, "pinned root"},
		{"another deployment's", []*party{issue(t, other, &coordinator, x509.ExtKeyUsageServerAuth, 0), other}, "pinned root"},
		{"another's with our root pasted behind", []*party{issue(t, other, &coordinator, x509.ExtKeyUsageServerAuth, 0), other, root}, "signed by unknown authority"},
		{"the control CA left out", []*party{good, root}, "signed by unknown authority"},
		{"a node", []*party{issue(t, ca, &node, x509.ExtKeyUsageClientAuth, 0), ca, root}, "incompatible key usage"},
		{"a node with a server's certificate", []*party{issue(t, ca, &node, x509.ExtKeyUsageServerAuth, 0), ca, root}, "in the coordinator's place"},
		{"signed by a member", []*party{issue(t, issue(t, ca, &node, x509.ExtKeyUsageClientAuth, 0), &coordinator, x509.ExtKeyUsageServerAuth, 0), ca, root}, "unknown authority"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := handshake(t, tt.chain, identity.HashRoot(root.cert))
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if tt.want == "pinned root" && !errors.Is(err, identity.ErrWrongRoot) {
				t.Errorf("got %v, want ErrWrongRoot", err)
			}
		})
	}
}

func handshake(t *testing.T, server []*party, root postern.RootHash) error {
	t.Helper()
	cert := tls.Certificate{PrivateKey: server[0].key}
	for _, p := range server {
		cert.Certificate = append(cert.Certificate, p.cert.Raw)
	}
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		tls.Server(a, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake()
	}()
	err := tls.Client(b, identity.ClientConfig(root, nil)).Handshake()
	b.Close()
	<-done
	return err
}

func TestVerifyMember(t *testing.T) {
	root := issue(t, nil, nil, 0, 48*time.Hour)
	ca := issue(t, root, nil, 0, 48*time.Hour)
	pool := x509.NewCertPool()
	pool.AddCert(root.cert)
	member := issue(t, ca, &node, x509.ExtKeyUsageClientAuth, 30*time.Hour)
	name, key, err := identity.VerifyMember(chain(member, ca), pool)
	if err != nil || name != node || !key.Key().Equal(member.key.Public()) {
		t.Errorf("got %v, %v, %v", name, key, err)
	}
	bad := identity.Name{Deployment: "d", Role: "emperor", ID: "n1"}
	for what, c := range map[string][]*x509.Certificate{
		"nobody":             nil,
		"itself signed":      chain(issue(t, nil, &node, x509.ExtKeyUsageClientAuth, 0)),
		"another's":          chain(issue(t, issue(t, nil, nil, 0, 0), &node, x509.ExtKeyUsageClientAuth, 0)),
		"the coordinator's":  chain(issue(t, ca, &coordinator, x509.ExtKeyUsageClientAuth, 0), ca),
		"a server's":         chain(issue(t, ca, &node, x509.ExtKeyUsageServerAuth, 0), ca),
		"of an unknown role": chain(issue(t, ca, &bad, x509.ExtKeyUsageClientAuth, 0), ca),
	} {
		if name, _, err := identity.VerifyMember(c, pool); err == nil {
			t.Errorf("a certificate that is %s was taken for %v", what, name)
		}
	}
}

func TestNameOf(t *testing.T) {
	for _, n := range []identity.Name{coordinator, node, {Deployment: "d", Role: postern.RoleGateway, ID: "g"}} {
		got, err := identity.NameOf(&x509.Certificate{URIs: []*url.URL{n.URI()}})
		if err != nil || got != n {
			t.Errorf("got %v, %v, want %v", got, err, n)
		}
	}
	for _, bad := range []string{"https://d/node/n", "postern://d/node", "postern://d/node/", "postern:///node/n", "postern://d/coordinator/x", "postern://u@d/node/n", "postern://d/node/n?x"} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := identity.NameOf(&x509.Certificate{URIs: []*url.URL{u}}); err == nil {
			t.Errorf("%s was taken for %v", bad, got)
		}
	}
	if _, err := identity.NameOf(&x509.Certificate{}); err == nil {
		t.Error("a certificate without a name was taken")
	}
}
