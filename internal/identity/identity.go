// Package identity names the parties of the control channel in certificates and
// verifies them against the deployment's own root, never the web's PKI.
//
// The chain is short: the root key signs itself and the control CA; the control
// CA signs the coordinator's certificate and each member's. All are Ed25519.
// Who a certificate speaks for is its one URI SAN:
//
//	postern://DEPLOYMENT/coordinator
//	postern://DEPLOYMENT/node/ID
//	postern://DEPLOYMENT/gateway/ID
//
// Dates are not enforced on either side. A member whose clock is wrong, or that
// slept through its certificate's expiry, must find its way back; whether it is
// still a member is for the registry to say, on every request.
package identity

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"postern"
)

// A Name says who a control certificate speaks for.
type Name struct {
	Deployment string
	Role       postern.Role
	ID         string // the member's; empty for the coordinator
}

// URI returns the name as it stands in a certificate.
func (n Name) URI() *url.URL {
	path := "/" + string(n.Role)
	if n.Role != postern.RoleCoordinator {
		path += "/" + n.ID
	}
	return &url.URL{Scheme: "postern", Host: n.Deployment, Path: path}
}

func (n Name) String() string { return n.URI().String() }

// NameOf returns the name in cert, which must have exactly one.
func NameOf(cert *x509.Certificate) (Name, error) {
	if len(cert.URIs) != 1 {
		return Name{}, fmt.Errorf("certificate has %d URI names, want 1", len(cert.URIs))
	}
	u := cert.URIs[0]
	role, id, _ := strings.Cut(strings.TrimPrefix(u.Path, "/"), "/")
	n := Name{Deployment: u.Host, Role: postern.Role(role), ID: id}
	switch n.Role {
	case postern.RoleCoordinator, postern.RoleNode, postern.RoleGateway:
	default:
		return Name{}, fmt.Errorf("certificate name %q: unknown role", u)
	}
	if n.Deployment == "" || (n.ID == "") != (n.Role == postern.RoleCoordinator) || n.URI().String() != u.String() {
		return Name{}, fmt.Errorf("certificate name %q is not of the form postern://DEPLOYMENT/ROLE/ID", u)
	}
	return n, nil
}

// HashRoot returns the hash by which tokens pin root.
func HashRoot(root *x509.Certificate) postern.RootHash {
	return sha256.Sum256(root.RawSubjectPublicKeyInfo)
}

// ErrWrongRoot says that a server's chain does not end at the pinned root.
var ErrWrongRoot = errors.New("not the coordinator of this deployment: its chain does not lead to the pinned root key")

// ClientConfig returns the TLS settings with which a member, or an operator,
// talks to the coordinator: TLS 1.3, trust in nothing but the pinned root, and
// cert, if not nil, as its own. The server's host name plays no part, so a
// coordinator can be reached by any name or bare address.
func ClientConfig(root postern.RootHash, cert *tls.Certificate, protos ...string) *tls.Config {
	cfg := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: protos,
		// The chain is verified below, against the pin instead of the host name.
		InsecureSkipVerify: true,
		VerifyConnection: func(state tls.ConnectionState) error {
			return verifyCoordinator(state.PeerCertificates, root)
		},
	}
	if cert != nil {
		cfg.Certificates = []tls.Certificate{*cert}
	}
	return cfg
}

func verifyCoordinator(chain []*x509.Certificate, root postern.RootHash) error {
	pool := x509.NewCertPool()
	found := false
	for _, c := range chain {
		if HashRoot(c) == root {
			pool.AddCert(c)
			found = true
		}
	}
	if !found {
		return ErrWrongRoot
	}
	name, _, err := verify(chain, pool, x509.ExtKeyUsageServerAuth)
	if err != nil {
		return fmt.Errorf("coordinator's certificate: %w", err)
	}
	if name.Role != postern.RoleCoordinator {
		return fmt.Errorf("%v answered in the coordinator's place", name)
	}
	return nil
}

// VerifyMember checks that chain, leaf first, leads to one of roots and is a
// member's. Whether the member is still one is for the caller to look up by key.
func VerifyMember(chain []*x509.Certificate, roots *x509.CertPool) (Name, postern.IdentityPublic, error) {
	name, key, err := verify(chain, roots, x509.ExtKeyUsageClientAuth)
	if err != nil {
		return Name{}, key, fmt.Errorf("member's certificate: %w", err)
	}
	if name.Role == postern.RoleCoordinator {
		return Name{}, key, errors.New("member's certificate: it is the coordinator's")
	}
	return name, key, nil
}

func verify(chain []*x509.Certificate, roots *x509.CertPool, use x509.ExtKeyUsage) (Name, postern.IdentityPublic, error) {
	if len(chain) == 0 {
		return Name{}, postern.IdentityPublic{}, errors.New("there is none")
	}
	leaf, between := chain[0], x509.NewCertPool()
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	key, ok := leaf.PublicKey.(ed25519.PublicKey)
	if !ok {
		return Name{}, postern.IdentityPublic{}, fmt.Errorf("its key is %T, want Ed25519", leaf.PublicKey)
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{use},
		// Dates are not enforced, see the package's doc. Issuers are made before
		// what they issue, so all are valid at the leaf's birth.
		CurrentTime: leaf.NotBefore,
	})
	if err != nil {
		return Name{}, postern.IdentityPublic{}, err
	}
	name, err := NameOf(leaf)
	return name, postern.IdentityPublic(key), err
}
