package main

import (
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/mail"
	"net/url"
	"os"
	"strings"

	"github.com/urfave/cli/v2"
	"golang.org/x/net/publicsuffix"

	"postern"
)

// letsEncrypt is the directory of the authority that is asked if none is named.
const letsEncrypt = "https://acme-v02.api.letsencrypt.org/directory"

// Values of --certificates.
const (
	certificatesACME    = "acme"
	certificatesPrivate = "private-ca"
)

// certificateFlags say where a deployment's certificates come from.
func certificateFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "certificates", Usage: "`SOURCE` of certificates: acme (public authorities; the default where DOMAIN is a public name) or private-ca (the deployment's own)"},
		&cli.StringFlag{Name: "email", Usage: "`ADDRESS` that authorities are told, for the portal's account and the nodes'"},
		&cli.StringSliceFlag{Name: "acme-directory", Usage: "`URL` of an authority's ACME directory; may be repeated, in the order to try (Let's Encrypt's if not given)"},
		acmeRootFlag(),
		acmeProfileFlag(),
		&cli.StringFlag{Name: "acme-eab-key-id", Usage: "`ID` of an account at the first authority, for the portal's own certificate alone (external account binding)"},
		&cli.StringFlag{Name: "acme-eab-hmac-file", Usage: "`FILE` with the account's HMAC key, base64url; - for standard input"},
	}
}

// acmeRootFlag and acmeProfileFlag are what coordinators and nodes have in common about
// authorities.
func acmeRootFlag() cli.Flag {
	return &cli.StringFlag{Name: "acme-root", Usage: "`FILE` with the CA certificates, PEM, that directories' own are verified with (the system's if not given)"}
}

func acmeProfileFlag() cli.Flag {
	return &cli.StringFlag{Name: "acme-profile", Usage: "`PROFILE` of the certificates, one that the authority knows, such as shortlived"}
}

// certificateOptions say where certificates come from.
type certificateOptions struct {
	source      string // empty: what suits the domain
	email       string
	directories []string
	roots       []byte // PEM; empty: the system's
	profile     string

	// Of the portal's account at the first authority (RFC 8555, section 7.3.4); both
	// or neither. They are secrets, and never in the map.
	keyID, hmac string
}

func parseCertificates(c *cli.Context) (certificateOptions, error) {
	o := certificateOptions{
		source: c.String("certificates"), email: c.String("email"), directories: c.StringSlice("acme-directory"),
		profile: c.String("acme-profile"), keyID: c.String("acme-eab-key-id"),
	}
	if o.source != "" && o.source != certificatesACME && o.source != certificatesPrivate {
		return o, misuse("choose acme or private-ca", "--certificates %q is no source of certificates", o.source)
	}
	if o.source == certificatesPrivate && len(o.directories) > 0 {
		return o, misuse("leave one of the two away", "--certificates private-ca and --acme-directory contradict each other")
	}
	if o.email != "" {
		if a, err := mail.ParseAddress(o.email); err != nil || a.Address != o.email {
			return o, misuse("such as --email ops@example.com", "--email %q is no address", o.email)
		}
	}
	for _, d := range o.directories {
		if u, err := url.Parse(d); err != nil || u.Scheme != "https" || u.Host == "" || u.User != nil {
			return o, misuse("such as --acme-directory "+letsEncrypt, "--acme-directory %q is no https URL", d)
		}
	}
	if file := c.String("acme-root"); file != "" {
		var err error
		if o.roots, err = readRoots(file); err != nil {
			return o, err
		}
	}
	return o, o.readBinding(c)
}

func readRoots(file string) ([]byte, error) {
	const maxRoots = 1 << 18 // a quarter of a megabyte; each map has it in it
	f, err := os.Open(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail("name a PEM file with the CA certificates", fmt.Errorf("--acme-root %s: no such file", file))
	} else if err != nil {
		return nil, fmt.Errorf("--acme-root: %w", err)
	}
	defer f.Close()
	pem, err := io.ReadAll(io.LimitReader(f, maxRoots+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("--acme-root: %w", err)
	case len(pem) > maxRoots:
		return nil, fail("name a file with the one CA that is needed", fmt.Errorf("--acme-root %s: it has more than %d bytes", file, maxRoots))
	case !x509.NewCertPool().AppendCertsFromPEM(pem):
		return nil, fail("name a PEM file with the CA certificates", fmt.Errorf("--acme-root %s: it holds no certificate", file))
	}
	return pem, nil
}

// readBinding reads the HMAC key of the account at the first authority.
func (o *certificateOptions) readBinding(c *cli.Context) error {
	file := c.String("acme-eab-hmac-file")
	if (o.keyID == "") != (file == "") {
		return misuse("give both, or neither", "--acme-eab-key-id and --acme-eab-hmac-file belong together")
	}
	if file == "" {
		return nil
	}
	text, err := readSecret(c, "HMAC key", file)
	if err != nil {
		return err
	}
	o.hmac = strings.TrimRight(strings.TrimSpace(text), "=")
	if _, err := base64.RawURLEncoding.DecodeString(o.hmac); err != nil || o.hmac == "" {
		return fail("copy the key as the authority shows it", fmt.Errorf("--acme-eab-hmac-file %s: it holds no base64url", file))
	}
	return nil
}

// acme returns the authorities that sign for names below domain, nil if the private CA
// does.
func (o certificateOptions) acme(domain string) *postern.ACME {
	if o.source == certificatesPrivate || o.source == "" && len(o.directories) == 0 && !isPublic(domain) {
		return nil
	}
	out := &postern.ACME{Email: o.email}
	directories := o.directories
	if len(directories) == 0 {
		directories = []string{letsEncrypt}
	}
	for _, d := range directories {
		out.Issuers = append(out.Issuers, postern.ACMEIssuer{Directory: d, Roots: o.roots, Profile: o.profile})
	}
	return out
}

// settle is acme, and refuses what makes no sense without an authority.
func (o certificateOptions) settle(domain string) (*postern.ACME, error) {
	a := o.acme(domain)
	if a == nil && (len(o.roots) > 0 || o.profile != "" || o.keyID != "") {
		return nil, misuse("say --certificates acme, or leave the options away that begin with --acme-",
			"%s has certificates of the private CA, and an authority's settings are given", domain)
	}
	return a, nil
}

// special are the names below which no public authority signs: those that are for
// special use (RFC 6761, RFC 2606, RFC 7686, RFC 8375, and ICANN's word on internal),
// and those that documents use.
var special = []string{
	"localhost", "test", "invalid", "example", "local", "internal", "onion", "home.arpa",
	"example.com", "example.net", "example.org",
}

// isPublic reports whether a public authority would sign for names below domain: whether
// its ending is one that the public suffix list knows, and not a special one.
func isPublic(domain string) bool {
	for _, s := range special {
		if domain == s || strings.HasSuffix(domain, "."+s) {
			return false
		}
	}
	suffix, icann := publicsuffix.PublicSuffix(domain)
	return icann || strings.Contains(suffix, ".") // the latter: somebody's below one of ICANN's
}

// authorities returns the authorities' names, for people.
func authorities(a *postern.ACME) string {
	var names []string
	for _, i := range a.Issuers {
		if u, err := url.Parse(i.Directory); err == nil {
			names = append(names, u.Host)
		}
	}
	return strings.Join(names, ", then ")
}

// certificateNotes says who signs certificates and what that takes, in lines; port is
// where browsers reach the gateways.
func certificateNotes(a *postern.ACME, port uint16) []string {
	if a == nil {
		return []string{"of the deployment's private CA, which browsers have to be told to trust"}
	}
	notes := []string{
		"of " + authorities(a) + ", got by each node for itself; it has to",
		"reach TCP 443 of this host from the Internet, and CAA records, if there are any, to allow it",
	}
	if port != postern.HTTPSPort {
		notes = append(notes, fmt.Sprintf("it comes to no other port than 443: lead that to %d", port))
	}
	return notes
}

// certificateLines says how a certificate stands, for people. Spare is whether the
// private CA's is shown while there is none.
func certificateLines(t *table, h postern.HostStatus, spare bool) []string {
	sources := map[string]string{postern.SourceACME: "public authority", postern.SourcePrivate: "private CA", postern.SourceFile: "files"}
	var lines []string
	switch first := "certificate " + h.State + ", " + sources[h.Source]; {
	case h.State == postern.CertificateWaiting && spare:
		lines = append(lines, first+"; meanwhile the private CA's is shown")
	case h.State == postern.CertificateWaiting:
		lines = append(lines, first)
	case h.Renewal.IsZero():
		lines = append(lines, first+", until "+t.when(h.NotAfter))
	default:
		lines = append(lines, first+", until "+t.when(h.NotAfter)+", renewal "+t.when(h.Renewal))
	}
	for _, more := range []string{h.Error, h.Alarm} {
		if more != "" {
			lines = append(lines, more)
		}
	}
	return lines
}
