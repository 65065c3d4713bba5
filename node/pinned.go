package node

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"postern"
)

// A PinnedIssuer is an OpenID issuer of the customer's own. At services that require
// it, the node asks it, and nobody else, who somebody is: the portal and its
// coordinator have no say.
type PinnedIssuer struct {
	URL   string `json:"url,omitempty"`   // https, to the letter as its discovery document says
	Title string `json:"title,omitempty"` // for people; if empty, the host of URL

	// ClientID is what the node is called there. ClientSecret, or the content of
	// ClientSecretFile, which is read again each time, proves that it is the node;
	// without either it is a public client.
	ClientID         string `json:"client_id,omitempty"`
	ClientSecret     string `json:"client_secret,omitempty"`
	ClientSecretFile string `json:"client_secret_file,omitempty"`

	// CAFile is a PEM file of what the issuer's certificate may lead to. If empty,
	// the system's roots.
	CAFile string `json:"ca_file,omitempty"`

	// Scopes are asked for besides openid. If empty, profile and email.
	Scopes []string `json:"scopes,omitempty"`

	// GroupsClaim is where the issuer says what groups somebody is in. If empty,
	// "groups". Groups are those that policies know, each with the values of the
	// claim that are worth it.
	GroupsClaim string              `json:"groups_claim,omitempty"`
	Groups      map[string][]string `json:"groups,omitempty"`

	// Allow says who of its people may come in: AllowEverybody, or AllowGroups for
	// who is in one of Groups. If empty, AllowGroups where there are Groups, and
	// AllowEverybody where there are Domains. With Domains, one needs a verified
	// e-mail address in one of them besides.
	Allow   string   `json:"allow,omitempty"`
	Domains []string `json:"domains,omitempty"`
}

// Values of a PinnedIssuer's Allow.
const (
	AllowEverybody = "everybody"
	AllowGroups    = "groups"
)

// defaultGroupsClaim is the GroupsClaim of who names none.
const defaultGroupsClaim = "groups"

// setDefaults fills in what is empty and has a meaning then.
func (i *PinnedIssuer) setDefaults() {
	if i.GroupsClaim == "" {
		i.GroupsClaim = defaultGroupsClaim
	}
	if len(i.Scopes) == 0 {
		i.Scopes = []string{"profile", "email"}
	}
	if i.Allow == "" && len(i.Groups) > 0 {
		i.Allow = AllowGroups
	} else if i.Allow == "" && len(i.Domains) > 0 {
		i.Allow = AllowEverybody
	}
	if u, err := url.Parse(i.URL); err == nil && i.Title == "" {
		i.Title = u.Hostname()
	}
}

// resolve makes the paths in i absolute, as seen from dir.
func (i *PinnedIssuer) resolve(dir string) {
	for _, p := range []*string{&i.ClientSecretFile, &i.CAFile} {
		if *p != "" && !filepath.IsAbs(*p) {
			*p = filepath.Join(dir, *p)
		}
	}
}

// check reports what is wrong with i, or with the files that it names, as a
// *postern.FieldError. Its defaults are set.
func (i PinnedIssuer) check() error {
	wrong := func(field, format string, args ...any) error {
		return &postern.FieldError{Field: field, Err: fmt.Errorf(format, args...)}
	}
	u, err := url.Parse(i.URL)
	switch {
	case i.URL == "":
		return wrong("url", "the issuer has no URL")
	case err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return wrong("url", "issuer URL %q: want https://HOST, perhaps with a path", i.URL)
	case i.ClientID == "":
		return wrong("client_id", "the issuer has no client id for this node")
	case i.ClientSecret != "" && i.ClientSecretFile != "":
		return wrong("client_secret", "want a client secret or a file of it, not both")
	case i.Allow == "":
		return wrong("allow", "say who of the issuer's people may come in: groups, domains, or `allow: %s`", AllowEverybody)
	case i.Allow != AllowEverybody && i.Allow != AllowGroups:
		return wrong("allow", "allow %q is not one of %s and %s", i.Allow, AllowEverybody, AllowGroups)
	case i.Allow == AllowGroups && len(i.Groups) == 0:
		return wrong("groups", "nobody is in a group, so nobody could come in")
	}
	if _, err := i.secret(); err != nil {
		return wrong("client_secret_file", "client secret: %w", err)
	}
	if _, err := i.roots(); err != nil {
		return wrong("ca_file", "CA of the issuer: %w", err)
	}
	for _, group := range slices.Sorted(maps.Keys(i.Groups)) {
		if err := postern.CheckLabel("group", group); err != nil {
			return wrong("groups", "%w", err)
		}
		if len(i.Groups[group]) == 0 {
			return wrong("groups."+group, "group %q is worth nothing: it has no value of the claim", group)
		}
	}
	for n, domain := range i.Domains {
		if err := postern.CheckHost(domain); err != nil {
			return wrong(fmt.Sprintf("domains[%d]", n), "%w", err)
		}
	}
	return nil
}

// rules returns a fingerprint of all by which i lets people in. What was proved under
// other rules counts no longer.
func (i PinnedIssuer) rules() string {
	i.Title, i.ClientSecret, i.ClientSecretFile, i.CAFile, i.Scopes = "", "", "", "", nil
	data, err := json.Marshal(i) // maps in the order of their keys
	if err != nil {
		panic("node: pinned issuer: " + err.Error())
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// maxSecret bounds a client secret, in bytes.
const maxSecret = 4096

// secret returns the client secret as it is now, empty if there is none.
func (i PinnedIssuer) secret() (string, error) {
	if i.ClientSecretFile == "" {
		return i.ClientSecret, nil
	}
	info, err := os.Stat(i.ClientSecretFile)
	if err != nil {
		return "", err
	}
	if info.Size() > maxSecret {
		return "", fmt.Errorf("%s has %d bytes, more than the %d of the longest secret", i.ClientSecretFile, info.Size(), maxSecret)
	}
	data, err := os.ReadFile(i.ClientSecretFile)
	if err != nil {
		return "", err
	}
	secret := strings.TrimSpace(string(data))
	if secret == "" {
		return "", fmt.Errorf("%s is empty", i.ClientSecretFile)
	}
	return secret, nil
}

// roots returns what the issuer's certificate may lead to, nil for the system's.
func (i PinnedIssuer) roots() (*x509.CertPool, error) {
	if i.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(i.CAFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate in " + i.CAFile)
	}
	return pool, nil
}
