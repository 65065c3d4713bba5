package coordinator

import (
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"postern/internal/datadir"
)

// authorityFiles are the names that anyFile looks for.
var authorityFiles = []string{
	"control-ca.key", "control-ca.pem", "coordinator.key", "coordinator.pem", "ca.key", "ca.pem", "signin.key", "seal.key",
}

// anyFile returns the name of a file that was made after the root, or "".
func (a *Authority) anyFile() string {
	for _, name := range authorityFiles {
		if _, err := os.Stat(filepath.Join(a.dir, name)); err == nil {
			return name
		}
	}
	return ""
}

// readPair reads name.key and name.pem, and makes the key if neither is there.
// The certificate is nil if it is missing, as after a crash between the two.
func (a *Authority) readPair(name string, generate func() (crypto.Signer, error)) (pair, error) {
	key, err := a.readKey(name)
	if err != nil {
		return pair{}, err
	}
	cert, err := a.readCert(name)
	if err != nil {
		return pair{}, err
	}
	if key == nil {
		if cert != nil {
			return pair{}, fmt.Errorf("%s.key is missing beside %s.pem: bring it back from the backup", name, name)
		}
		key, err = a.makeKey(name, generate)
		return pair{key: key}, err
	}
	p := pair{cert, key}
	return p, a.match(name, p)
}

// match reports a certificate and a key, if both are there, that are not a pair.
func (a *Authority) match(name string, p pair) error {
	if p.cert == nil || p.key == nil {
		return nil
	}
	public, ok := p.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
	if !ok || !public.Equal(p.key.Public()) {
		return fmt.Errorf("%s.key is not the key of %s.pem: bring back the two that belong together", name, name)
	}
	return nil
}

// readKey returns nil if there is no such file.
func (a *Authority) readKey(name string) (crypto.Signer, error) {
	path := filepath.Join(a.dir, name+".key")
	err := checkPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("%s: a %T does not sign", path, key)
	}
	return signer, nil
}

// readCert returns nil if there is no such file.
func (a *Authority) readCert(name string) (*x509.Certificate, error) {
	path := filepath.Join(a.dir, name+".pem")
	der, err := readPEM(path, "CERTIFICATE")
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return cert, nil
}

// makeKey writes name.key before anything is signed with it.
func (a *Authority) makeKey(name string, generate func() (crypto.Signer, error)) (crypto.Signer, error) {
	key, err := generate()
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return key, datadir.Write(filepath.Join(a.dir, name+".key"), text)
}

func (a *Authority) writeCert(name string, cert *x509.Certificate) error {
	return datadir.Write(filepath.Join(a.dir, name+".pem"), encodeCerts(cert.Raw))
}

func readPEM(path, kind string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s: want a PEM block of type %s", path, kind)
	}
	return block.Bytes, nil
}
