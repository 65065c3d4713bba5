package main

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/node"
)

func verifyCommand() *cli.Command {
	return &cli.Command{
		Name: "verify", ArgsUsage: "URL", Usage: "see who is at the other end of an address, from any machine", Action: verify,
		Description: "It connects as a browser does, and shows the certificate's chain, the key's fingerprint, the TLS version and the " +
			"key exchange. With --node it asks the coordinator what the node says that it holds, which the node has signed with its " +
			"identity, and compares; --identity names that identity, as `postern node status` shows it on the machine itself, so " +
			"that the coordinator need not be believed either. With --local it asks the node on this machine. It exits with 1 if " +
			"the key is not the node's, where it compares, and elsewhere if the certificate is not to be trusted.",
		UsageText: "postern verify https://acme.apps.example.com\n" +
			"postern verify https://acme.apps.example.com --node --admin-token-file admin.token\n" +
			"postern verify https://acme.apps.example.com --local",
		Flags: adminFlags(append([]cli.Flag{
			&cli.BoolFlag{Name: "node", Usage: "compare with what the node says, through the coordinator"},
			&cli.StringFlag{Name: "identity", Usage: "`KEY`: the identity that has to have signed it"},
			&cli.BoolFlag{Name: "local", Usage: "compare with what the node on this machine holds; its directory is --data"},
			&cli.StringFlag{Name: "ca", Usage: "`FILE`: trust these certificates, PEM, in place of the system's"},
			&cli.StringFlag{Name: "connect", Usage: "`HOST:PORT` to connect to in place of the URL's"},
		}, outputFlags()...)...),
	}
}

// A verification is what was seen at an address, and how it compares.
type verification struct {
	URL         string           `json:"url"`
	Remote      string           `json:"remote"` // address that was connected to
	TLS         string           `json:"tls"`    // version, such as "TLS 1.3"
	Cipher      string           `json:"cipher"`
	KeyExchange string           `json:"key_exchange"` // such as X25519MLKEM768
	Chain       []chainLink      `json:"chain"`        // as it was shown, leaf first
	SPKI        string           `json:"spki"`         // SHA-256 of the leaf's SubjectPublicKeyInfo, in hex
	Trusted     bool             `json:"trusted"`
	TrustError  string           `json:"trust_error,omitempty"`
	Nodes       []nodeComparison `json:"nodes,omitempty"`    // iff they were asked
	Compared    string           `json:"compared,omitempty"` // same, different or unknown; empty: not asked
}

// A chainLink is one certificate.
type chainLink struct {
	Subject  string    `json:"subject"`
	Issuer   string    `json:"issuer"`
	Names    []string  `json:"names,omitempty"`
	Key      string    `json:"key"`
	NotAfter time.Time `json:"not_after"`
	SHA256   string    `json:"sha256"` // in hex
}

// A nodeComparison is what one node says that it holds for the host.
type nodeComparison struct {
	Node     string    `json:"node"`
	Identity string    `json:"identity"`
	SPKI     string    `json:"spki,omitempty"`
	Time     time.Time `json:"time,omitzero"` // when it said so
	Result   string    `json:"result"`        // same, different or unknown
	Error    string    `json:"error,omitempty"`
}

const (
	sameKey      = "same"
	differentKey = "different"
	unknownKey   = "unknown"
)

// errNotVerified says that what was shown is not to be relied on.
var errNotVerified = errors.New("not verified")

// oldStatement is how old what a node says may be to be compared without a word.
const oldStatement = time.Hour

func verify(c *cli.Context) error {
	words, err := operands(c, "URL")
	if err != nil {
		return err
	}
	if _, err := outputFormat(c); err != nil {
		return err
	}
	target, err := parseSite(words[0])
	if err != nil {
		return err
	}
	if c.IsSet("identity") && !c.Bool("node") {
		return misuse("give --node as well", "--identity says nothing without --node")
	}
	roots, err := readPool(c.String("ca"))
	if err != nil {
		return err
	}
	v, err := see(c.Context, target, cmp.Or(c.String("connect"), target.addr), roots)
	if err != nil {
		return fmt.Errorf("%s: %w", target.url, err)
	}
	if c.Bool("node") {
		if err := v.askCoordinator(c, target.host); err != nil {
			return err
		}
	}
	if c.Bool("local") {
		if err := v.askLocal(c, target.host); err != nil {
			return err
		}
	}
	v.settle()
	if err := show(c, v, verificationFields); err != nil {
		return err
	}
	return v.verdict()
}

// A site is an https URL's host.
type site struct{ url, host, addr string }

func parseSite(word string) (site, error) {
	if !strings.Contains(word, "://") {
		word = "https://" + word
	}
	u, err := url.Parse(word)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return site{}, misuse("such as https://acme.apps.example.com", "%q is no https URL", word)
	}
	host, err := postern.ParseHost(u.Hostname())
	if err != nil {
		return site{}, misuse("such as https://acme.apps.example.com", "%w", err)
	}
	return site{"https://" + u.Host, host, net.JoinHostPort(host, cmp.Or(u.Port(), "443"))}, nil
}

// readPool returns the certificates in file, nil for the system's.
func readPool(file string) (*x509.CertPool, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", file)
	}
	return pool, nil
}

// see connects to target at addr as a browser would and returns what it was shown,
// trusted or not.
func see(ctx context.Context, target site, addr string, roots *x509.CertPool) (*verification, error) {
	ctx, cancel := context.WithTimeout(ctx, adminTimeout)
	defer cancel()
	raw, err := dialLocalhost(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{
		ServerName: target.host, NextProtos: []string{"h2", "http/1.1"},
		InsecureSkipVerify: true, // judged below, so that what is not trusted can be shown
	})
	if err := conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	defer conn.Close()
	state := conn.ConnectionState()
	leaf := state.PeerCertificates[0]
	v := &verification{
		URL: target.url, Remote: raw.RemoteAddr().String(),
		TLS: tls.VersionName(state.Version), Cipher: tls.CipherSuiteName(state.CipherSuite), KeyExchange: state.CurveID.String(),
		SPKI: hexHash(leaf.RawSubjectPublicKeyInfo),
	}
	between := x509.NewCertPool()
	for i, cert := range state.PeerCertificates {
		if i > 0 {
			between.AddCert(cert)
		}
		v.Chain = append(v.Chain, chainLink{
			Subject: cert.Subject.String(), Issuer: cert.Issuer.String(), Names: cert.DNSNames,
			Key: keyName(cert.PublicKey), NotAfter: cert.NotAfter, SHA256: hexHash(cert.Raw),
		})
	}
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: target.host, Roots: roots, Intermediates: between}); err != nil {
		v.TrustError = err.Error()
	} else {
		v.Trusted = true
	}
	return v, nil
}

func hexHash(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func keyName(key any) string {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		return "ECDSA " + k.Curve.Params().Name
	case *rsa.PublicKey:
		return fmt.Sprintf("RSA %d", k.N.BitLen())
	case ed25519.PublicKey:
		return "Ed25519"
	}
	return fmt.Sprintf("%T", key)
}

// askCoordinator compares with what the nodes of host say, as the coordinator has it.
func (v *verification) askCoordinator(c *cli.Context, host string) error {
	var pin postern.IdentityPublic
	if text := c.String("identity"); text != "" {
		if err := pin.UnmarshalText([]byte(text)); err != nil {
			return misuse("`postern node status` shows it on the node's machine", "--identity: %w", err)
		}
	}
	a, err := openAdmin(c)
	if err != nil {
		return err
	}
	defer a.hc.CloseIdleConnections()
	var r postern.RouteState
	if err := a.call(c.Context, http.MethodGet, "/routes/"+url.PathEscape(host)+"/match", nil, &r); err != nil {
		return err
	}
	for _, cert := range r.Certificates {
		if pin.IsZero() || cert.Identity == pin {
			v.Nodes = append(v.Nodes, v.compare(cert, host))
		}
	}
	if len(v.Nodes) == 0 {
		text := "no node has told the coordinator yet what it holds for " + host
		if !pin.IsZero() {
			text = "no node with that identity has told the coordinator what it holds for " + host
		}
		v.Nodes = append(v.Nodes, nodeComparison{Node: "-", Result: unknownKey, Error: text})
	}
	return nil
}

// compare compares with what one node signed.
func (v *verification) compare(cert postern.RouteCertificate, host string) nodeComparison {
	out := nodeComparison{Node: cert.Node, Identity: cert.Identity.String(), Result: unknownKey}
	if cert.Statement == nil {
		out.Error = "the node has signed nothing"
		return out
	}
	held, err := cert.Statement.Open(cert.Identity)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	out.Time = held.Time
	for _, h := range held.Hosts {
		if h.Host == host {
			out.SPKI, out.Result = h.SPKI, v.result(h.SPKI)
		}
	}
	switch {
	case out.SPKI == "":
		out.Error = "the node holds no certificate for " + host
	case time.Since(held.Time) > oldStatement:
		out.Error = "the node said so " + ago(time.Now(), held.Time) + "; what it holds may have changed since"
	}
	return out
}

func (v *verification) result(spki string) string {
	if spki == v.SPKI {
		return sameKey
	}
	return differentKey
}

// askLocal compares with what the node on this machine holds.
func (v *verification) askLocal(c *cli.Context, host string) error {
	s, err := node.QueryStatus(c.Context, nodeSocket(c))
	if err != nil {
		return err
	}
	out := nodeComparison{
		Node: s.Member.Name, Identity: s.Member.Identity.String(), Time: time.Now().UTC().Truncate(time.Second),
		Result: unknownKey, Error: "the node on this machine has no certificate for " + host,
	}
	for _, r := range s.Routes {
		if r.Host == host && r.Certificate != nil && r.Certificate.SPKI != "" {
			out.SPKI, out.Result, out.Error = r.Certificate.SPKI, v.result(r.Certificate.SPKI), ""
		}
	}
	v.Nodes = append(v.Nodes, out)
	return nil
}

// settle sums the comparisons up: one node of several may have answered.
func (v *verification) settle() {
	for _, result := range []string{unknownKey, differentKey, sameKey} {
		if slices.ContainsFunc(v.Nodes, func(n nodeComparison) bool { return n.Result == result }) {
			v.Compared = result
		}
	}
}

// verdict returns errNotVerified, with the reason, if v is not to be relied on.
func (v *verification) verdict() error {
	switch {
	case v.Compared == differentKey:
		return fail("somebody between this machine and the node ends TLS, or the node's certificate changed just now: try again, and from elsewhere",
			fmt.Errorf("%w: no node holds the key that was shown at %s", errNotVerified, v.URL))
	case v.Compared == unknownKey:
		return fail("the node has to run, and to have told the coordinator; `postern nodes list` shows whether it does",
			fmt.Errorf("%w: %s", errNotVerified, v.Nodes[0].Error))
	case v.Compared == sameKey, v.Trusted:
		return nil
	}
	return fail("a deployment without public certificates has a private CA: name it with --ca",
		fmt.Errorf("%w: %s", errNotVerified, v.TrustError))
}

func verificationFields(t *table, v *verification) {
	t.field("Address", v.URL+", "+v.Remote)
	t.field("TLS", v.TLS+", "+v.KeyExchange+", "+v.Cipher)
	leaf := v.Chain[0]
	t.field("Certificate", "for "+strings.Join(leaf.Names, ", "))
	t.field("", "good until "+t.when(leaf.NotAfter))
	t.field("", "SHA-256 "+leaf.SHA256)
	t.field("Key", leaf.Key)
	t.field("", "SHA-256 of the public key "+v.SPKI)
	t.field("Chain", cmp.Or(leaf.Subject, strings.Join(leaf.Names, ", ")))
	for _, link := range v.Chain[1:] {
		t.field("", link.Subject)
	}
	t.field("", v.Chain[len(v.Chain)-1].Issuer)
	if v.Trusted {
		t.field("Trusted", "yes")
	} else {
		t.field("Trusted", "no: "+v.TrustError)
	}
	for _, n := range v.Nodes {
		words := map[string]string{
			sameKey:      "holds this very key",
			differentKey: "holds another key: " + n.SPKI,
			unknownKey:   n.Error,
		}
		t.field("Node", n.Node+", "+words[n.Result])
		if n.Identity != "" {
			t.field("", "identity "+n.Identity)
		}
		if n.Error != "" && n.Result != unknownKey {
			t.field("", n.Error)
		}
	}
}
