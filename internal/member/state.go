// Package member is what nodes and gateways have in common: an identity on disk,
// the way to join, and following the map. It starts no goroutine that it does
// not wait for, and holds no opinion on what the map is used for.
package member

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"postern"
	"postern/internal/datadir"
)

const (
	identityFile = "identity.json"
	mapFile      = "map.json"
)

// ErrNotJoined says that a data directory has no membership yet.
var ErrNotJoined = errors.New("not joined yet")

// An Identity is a membership as it lies on disk. The keys are made here and
// never leave the machine.
type Identity struct {
	Role      postern.Role             `json:"role"`
	Key       postern.IdentityPrivate  `json:"key"`
	WireGuard postern.WireGuardPrivate `json:"wireguard"`

	// WireGuardSince is since when WireGuard is used, and Next the key that is to follow
	// it; see TunnelKey. Zero: not known, and none.
	WireGuardSince time.Time                `json:"wireguard_since,omitzero"`
	Next           postern.WireGuardPrivate `json:"next_wireguard,omitzero"`

	Root postern.RootHash `json:"root"` // pins the coordinator
	URLs []string         `json:"urls"` // of the coordinator, best first

	// Enrollment is the zero value until the coordinator has acknowledged. Keys
	// are saved before they are shown to anybody, so that a join that was cut
	// off goes on as the same member when it is repeated.
	Enrollment postern.Enrollment `json:"enrollment,omitzero"`
}

// LoadIdentity reads the membership in dir. It fails with ErrNotJoined if there
// is none.
func LoadIdentity(dir *datadir.Dir) (*Identity, error) {
	id, err := loadIdentity(dir)
	if err == nil && id.Enrollment.ID == "" {
		return nil, ErrNotJoined
	}
	return id, err
}

// CheckJoined reads what LoadIdentity does, in the data directory at path, which another
// process may have open.
func CheckJoined(path string) error {
	data, err := os.ReadFile(filepath.Join(path, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNotJoined
	} else if err != nil {
		return err
	}
	var id Identity
	if err := json.Unmarshal(data, &id); err != nil {
		return fmt.Errorf("%s: %w", filepath.Join(path, identityFile), err)
	}
	if id.Enrollment.ID == "" {
		return ErrNotJoined
	}
	return nil
}

func loadIdentity(dir *datadir.Dir) (*Identity, error) {
	id := new(Identity)
	err := dir.ReadJSON(identityFile, id)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrNotJoined
	}
	return id, err
}

func (id *Identity) save(dir *datadir.Dir) error { return dir.WriteJSON(identityFile, id) }

// Certificate returns the member's certificate for crypto/tls.
func (id *Identity) Certificate() (*tls.Certificate, error) {
	cert := &tls.Certificate{PrivateKey: id.Key.Key()}
	for rest := id.Enrollment.Certificate; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		cert.Certificate = append(cert.Certificate, block.Bytes)
	}
	if len(cert.Certificate) == 0 {
		return nil, errors.New("the membership has no certificate")
	}
	return cert, nil
}

// LoadMap returns the map that was last followed in dir, the zero Map if there
// is none.
func LoadMap(dir *datadir.Dir) (postern.Map, error) {
	var m postern.Map
	err := dir.ReadJSON(mapFile, &m)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return m, err
}

// ThisHost describes the machine for the coordinator's lists.
func ThisHost(name, version string) postern.Host {
	return postern.Host{Name: name, OS: runtime.GOOS, Arch: runtime.GOARCH, Version: version}
}
