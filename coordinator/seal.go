package coordinator

import (
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/crypto/chacha20poly1305"

	"postern/internal/datadir"
)

// sealKind is the type of the PEM block in seal.key.
const sealKind = "POSTERN SEAL KEY"

// Seal encrypts plain, so that the registry's file alone gives it to nobody:
// XChaCha20-Poly1305 behind a random nonce of 24 bytes. context says what it is
// for, and what is sealed for one is not opened for another.
func (a *Authority) Seal(plain []byte, context string) []byte {
	nonce := make([]byte, a.seal.NonceSize(), a.seal.NonceSize()+len(plain)+a.seal.Overhead())
	rand.Read(nonce)
	return a.seal.Seal(nonce, nonce, plain, []byte(context))
}

// Open returns what Seal encrypted for context.
func (a *Authority) Open(sealed []byte, context string) ([]byte, error) {
	n := a.seal.NonceSize()
	if len(sealed) < n {
		return nil, errors.New("nothing that was sealed")
	}
	plain, err := a.seal.Open(nil, sealed[:n], sealed[n:], []byte(context))
	if err != nil {
		return nil, errors.New("it was not sealed with seal.key, or for something else: " +
			"bring back the key that belongs to the registry, or set the secret anew")
	}
	return plain, nil
}

// openSeal reads seal.key, and makes it if it is missing.
func (a *Authority) openSeal() error {
	path := filepath.Join(a.dir, "seal.key")
	err := checkPrivate(path)
	if errors.Is(err, fs.ErrNotExist) {
		key := make([]byte, chacha20poly1305.KeySize)
		rand.Read(key)
		err = datadir.Write(path, pem.EncodeToMemory(&pem.Block{Type: sealKind, Bytes: key}))
	}
	if err != nil {
		return err
	}
	key, err := readPEM(path, sealKind)
	if err != nil {
		return err
	}
	if a.seal, err = chacha20poly1305.NewX(key); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// checkPrivate reports a file that others may read.
func checkPrivate(path string) error {
	stat, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := stat.Mode().Perm(); mode&0o077 != 0 {
		return fmt.Errorf("%s may be read by others (mode %04o): chmod 600 %s", path, mode, path)
	}
	return nil
}
