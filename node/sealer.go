package node

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"postern/internal/datadir"
)

// sealFile keeps the key of a sealer in the data directory.
const sealFile = "seal.key"

// A sealer makes texts that a browser can keep for this node and neither read nor
// change: AES-256-GCM (NIST SP 800-38D) with a random nonce, in base64url.
type sealer struct{ aead cipher.AEAD }

// openSealer returns the sealer whose key dir keeps, and makes the key if it is not
// there or of no use. What was sealed before is lost then, which is sign-ins that
// were under way. If dir is nil, the key is kept nowhere.
func openSealer(dir *datadir.Dir) (*sealer, error) {
	if dir == nil {
		return newSealer(newSealKey())
	}
	key, err := os.ReadFile(dir.Path(sealFile))
	if err == nil && len(key) == sealKeySize {
		return newSealer(key)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	key = newSealKey()
	if err := dir.Write(sealFile, key); err != nil {
		return nil, err
	}
	return newSealer(key)
}

const sealKeySize = 32

func newSealKey() []byte {
	key := make([]byte, sealKeySize)
	rand.Read(key)
	return key
}

func newSealer(key []byte) (*sealer, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, err
	}
	return &sealer{aead}, nil
}

// seal returns v, in JSON, for purpose alone.
func (s *sealer) seal(purpose string, v any) string {
	plain, err := json.Marshal(v)
	if err != nil {
		panic("node: seal: " + err.Error())
	}
	return base64.RawURLEncoding.EncodeToString(s.aead.Seal(nil, nil, plain, []byte(purpose)))
}

// errSealed says that a text was not sealed here, or not for this.
var errSealed = errors.New("it was not sealed by this node")

// open fills v from text, which was sealed for purpose. It fails with errSealed.
func (s *sealer) open(purpose, text string, v any) error {
	sealed, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err == nil && strings.ContainsAny(text, "\r\n") { // which the decoder leaves out
		err = base64.CorruptInputError(0)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errSealed, err)
	}
	plain, err := s.aead.Open(nil, nil, sealed, []byte(purpose))
	if err != nil {
		return fmt.Errorf("%w: %w", errSealed, err)
	}
	if err := json.Unmarshal(plain, v); err != nil {
		return fmt.Errorf("%w: %w", errSealed, err)
	}
	return nil
}
