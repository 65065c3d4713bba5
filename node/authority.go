package node

import (
	"bytes"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"os"

	"postern"
	"postern/internal/acme"
)

// An Authority is a public certificate authority (RFC 8555) that the node gets
// certificates from, in place of those that the deployment names.
type Authority struct {
	Directory string `json:"directory"`         // https URL
	Root      string `json:"root,omitempty"`    // PEM file with what the directory's own certificate may lead to; if empty, the system's roots
	Email     string `json:"email,omitempty"`   // contact of the account; if empty, none
	Profile   string `json:"profile,omitempty"` // of certificates; if empty, the authority's default

	// KeyID and HMACFile bind the account to one that the authority knows (RFC 8555,
	// section 7.3.4). The file holds the key in base64url. Both are there or neither.
	KeyID    string `json:"eab_key_id,omitempty"`
	HMACFile string `json:"eab_hmac_file,omitempty"`
}

// readAuthorities checks authorities and reads what they name on disk. An error is a
// *postern.FieldError.
func readAuthorities(authorities []Authority) ([]acme.Issuer, error) {
	var issuers []acme.Issuer
	for i, a := range authorities {
		issuer, field, err := a.read()
		if err != nil {
			return nil, &postern.FieldError{Field: fmt.Sprintf("acme[%d].%s", i, field), Err: err}
		}
		issuers = append(issuers, issuer)
	}
	return issuers, nil
}

// read returns what a says, or in which field what is wrong.
func (a Authority) read() (issuer acme.Issuer, field string, err error) {
	issuer = acme.Issuer{Email: a.Email, KeyID: a.KeyID}
	issuer.Directory, issuer.Profile = a.Directory, a.Profile
	if u, err := url.Parse(a.Directory); err != nil || u.Scheme != "https" || u.Host == "" {
		return issuer, "directory", fmt.Errorf("directory %q: want an https URL", a.Directory)
	}
	if a.Root != "" {
		if issuer.Roots, err = os.ReadFile(a.Root); err != nil {
			return issuer, "root", err
		}
		if !x509.NewCertPool().AppendCertsFromPEM(issuer.Roots) {
			return issuer, "root", fmt.Errorf("%s: it holds no certificate in PEM", a.Root)
		}
	}
	if (a.KeyID == "") != (a.HMACFile == "") {
		return issuer, "eab_key_id", errors.New("want both a key id and the file with its key, or neither")
	}
	if a.HMACFile != "" {
		key, err := readPrivate(a.HMACFile)
		if err != nil {
			return issuer, "eab_hmac_file", err
		}
		issuer.HMAC = string(bytes.TrimRight(bytes.TrimSpace(key), "="))
		if _, err := base64.RawURLEncoding.DecodeString(issuer.HMAC); err != nil || issuer.HMAC == "" {
			return issuer, "eab_hmac_file", fmt.Errorf("%s: want a key in base64url", a.HMACFile)
		}
	}
	return issuer, "", nil
}
