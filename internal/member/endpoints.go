package member

import (
	"errors"
	"io/fs"
	"net/netip"

	"postern"
	"postern/internal/datadir"
)

const endpointsFile = "endpoints.json"

// Endpoints are where a gateway last saw its nodes on the Internet. A gateway
// that starts again greets them there: their sessions are with the one that was,
// which WireGuard lets a node that only sends keepalives notice after two minutes
// (whitepaper, section 6.2).
type Endpoints map[postern.WireGuardPublic]netip.AddrPort

// LoadEndpoints returns what was last saved in dir, none if nothing was.
func LoadEndpoints(dir *datadir.Dir) (Endpoints, error) {
	var e Endpoints
	err := dir.ReadJSON(endpointsFile, &e)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return e, err
}

// Save keeps e in dir, in place of what was there.
func (e Endpoints) Save(dir *datadir.Dir) error { return dir.WriteJSON(endpointsFile, e) }
