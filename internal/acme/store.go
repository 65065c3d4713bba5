package acme

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"postern/internal/datadir"
)

// A store is the files:
//
//	accounts/AUTHORITY-HASH.key   of an account, PKCS #8 in PEM
//	accounts/AUTHORITY-HASH.json  its record
//	certificates/HOST.key         as above
//	certificates/HOST.pem         the chain, leaf first
//	certificates/HOST.json        its origin
//
// Whatever is written replaces a file whole or not at all. A key is on disk before it
// is used, and stays: only one that cannot be read as a key is put aside, as
// NAME.key.unusable.
type store struct {
	dir string
	log *slog.Logger
}

// A record is what is kept of an account beside its key.
type record struct {
	Directory string `json:"directory"`
	URI       string `json:"uri"`
	Key       string `json:"key"`             // SHA-256 of the public key that the account has, in hex
	Email     string `json:"email,omitempty"` // that the authority was told

	CAA []string `json:"caa,omitempty"` // the authority's names in CAA records, as it told last
}

// An origin is where a certificate is from.
type origin struct {
	Directory string `json:"directory"`
	Account   string `json:"account"` // URI
}

func (s store) accountFile(directory, ext string) string {
	name := "authority"
	if u, err := url.Parse(directory); err == nil && u.Hostname() != "" {
		name = u.Hostname()
		name = strings.Map(func(r rune) rune {
			if r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
				return r
			}
			return '_'
		}, strings.ToLower(name[:min(len(name), 100)]))
	}
	sum := sha256.Sum256([]byte(directory))
	return filepath.Join(s.dir, "accounts", name+"-"+hex.EncodeToString(sum[:4])+ext)
}

// unusable is what is put behind the name of a file that is no key.
const unusable = ".unusable"

func (s store) certificateFile(host, ext string) string {
	if len(host) > 200 { // a file's name has at most 255 bytes
		sum := sha256.Sum256([]byte(host))
		host = host[:100] + "-" + hex.EncodeToString(sum[:8])
	}
	return filepath.Join(s.dir, "certificates", host+ext)
}

// check fails if others can get at the keys.
func (s store) check() error {
	if s.dir == "" {
		return errors.New("no directory to keep certificates in")
	}
	err := filepath.WalkDir(s.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() || slices.Contains([]string{".key", unusable}, filepath.Ext(d.Name())) {
			return private(path)
		}
		if path == s.dir {
			return fmt.Errorf("%s is not a directory", path)
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// private fails if path is open to others. Windows has no such bits; the directory's
// list there is inherited.
func private(path string) error {
	info, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" || info.Mode().Perm()&0o077 == 0 {
		return err
	}
	if info.IsDir() {
		return fmt.Errorf("directory %s is open to others (mode %04o), and holds private keys: chmod 700 %s",
			path, info.Mode().Perm(), path)
	}
	return fmt.Errorf("private key %s is open to others (mode %04o): chmod 600 %s, or delete it if somebody may have read it",
		path, info.Mode().Perm(), path)
}

// write is datadir.Write, and makes the directories.
func (s store) write(path string, data []byte) error {
	for _, dir := range []string{s.dir, filepath.Dir(path)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return datadir.Write(path, data)
}

func (s store) writeJSON(path string, v any) error {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	return s.write(path, append(data, '\n'))
}

// key returns the key in the file at path, and makes it if there is none of use.
func (s store) key(path string) (*ecdsa.PrivateKey, error) {
	text, err := readPrivate(path)
	switch {
	case err == nil:
		key, err := parseKey(text)
		if err == nil {
			return key, nil
		}
		s.log.Warn("a key on disk is of no use; making another", "file", path, "err", err)
		if err := os.Rename(path, path+unusable); err != nil {
			return nil, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, s.write(path, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func readPrivate(path string) ([]byte, error) {
	if err := private(path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
}

func parseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("it is not PEM")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("it is not an ECDSA P-256 key")
	}
	return key, nil
}

// account returns the record of our account at directory; zero if there is none of
// use.
func (s store) account(directory string) record {
	path := s.accountFile(directory, ".json")
	var r record
	switch err := readJSON(path, &r); {
	case errors.Is(err, fs.ErrNotExist):
		return record{}
	case err == nil && (r.Directory != directory || r.URI == ""):
		err = fmt.Errorf("it is of an account at %q", r.Directory)
		fallthrough
	case err != nil:
		s.log.Warn("an account's record is of no use; asking the authority", "file", path, "err", err)
		return record{}
	}
	return r
}

// load returns host's certificate on disk, whatever its dates; nil if there is none of
// use.
func (s store) load(host string) (*tls.Certificate, origin) {
	cert, err := s.read(host)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.log.Warn("the certificate on disk is of no use; getting another", "server_name", host, "err", err)
		}
		return nil, origin{}
	}
	var from origin
	if err := readJSON(s.certificateFile(host, ".json"), &from); err != nil {
		s.log.Warn("it is not known where the certificate on disk is from", "server_name", host, "err", err)
		from = origin{}
	}
	return cert, from
}

func (s store) read(host string) (*tls.Certificate, error) {
	chain, err := os.ReadFile(s.certificateFile(host, ".pem"))
	if err != nil {
		return nil, err
	}
	text, err := readPrivate(s.certificateFile(host, ".key"))
	if err != nil {
		return nil, err
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, err
	}
	cert, err := parseChain(chain, key)
	if err != nil {
		return nil, err
	}
	return cert, verify(cert, host)
}

// save keeps a certificate that was verified.
func (s store) save(host string, chain []byte, from origin) error {
	if err := s.write(s.certificateFile(host, ".pem"), chain); err != nil {
		return err
	}
	return s.writeJSON(s.certificateFile(host, ".json"), from)
}

func readJSON(path string, v any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return json.Unmarshal(data, v)
}
