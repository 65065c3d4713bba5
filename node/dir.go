package node

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"postern"
	"postern/internal/connect"
	"postern/internal/datadir"
	"postern/internal/member"
)

// What a data directory and the coordinator may say to a node.
var (
	ErrNotJoined = member.ErrNotJoined // the data directory has no membership yet
	ErrJoined    = member.ErrJoined    // it has one already
	ErrRemoved   = member.ErrRemoved   // the coordinator removed this node
)

// A Dir is a node's data directory: its membership, its keys, its certificates
// and the map it was told last. One process at a time has it open. Its methods
// are safe for concurrent use.
type Dir struct{ dir *datadir.Dir }

// Open opens the data directory at path, and makes it, mode 0700, if it is not
// there. It fails if another process has it, or if it is not a node's. The caller
// closes it, after Run has returned.
func Open(path string) (*Dir, error) {
	d, err := datadir.Open(path, postern.RoleNode)
	if err != nil {
		return nil, err
	}
	return &Dir{d}, nil
}

// Close lets other processes have the directory.
func (d *Dir) Close() error { return d.dir.Close() }

// Path returns the path of the file called name.
func (d *Dir) Path(name string) string { return d.dir.Path(name) }

// Join is JoinThrough with the proxy of the environment.
func (d *Dir) Join(ctx context.Context, token postern.Token, name, version string) (Membership, error) {
	return d.JoinThrough(ctx, "", token, name, version)
}

// JoinThrough makes this machine a node of the tenant that token is for. The coordinator
// is reached by proxy, as in Config. Name is a wish;
// if empty, the coordinator makes one from the host's. Version is the program's,
// for people to read. It fails with ErrJoined if the directory has a membership,
// and may be repeated after any other failure. What the coordinator refuses is a
// *postern.Problem.
func (d *Dir) JoinThrough(ctx context.Context, proxy string, token postern.Token, name, version string) (Membership, error) {
	if name != "" {
		if err := postern.CheckLabel("node", name); err != nil {
			return Membership{}, err
		}
	}
	through, err := connect.ParseProxy(proxy)
	if err != nil {
		return Membership{}, err
	}
	host, err := os.Hostname()
	if err != nil {
		host = string(postern.RoleNode)
	}
	id, err := member.Join(ctx, d.dir, through, token, postern.RoleNode, name, member.ThisHost(host, version))
	if err != nil {
		return Membership{}, err
	}
	return membership(id), nil
}

// Membership says who the node is. It fails with ErrNotJoined if it is none yet.
func (d *Dir) Membership() (Membership, error) {
	id, err := member.LoadIdentity(d.dir)
	if err != nil {
		return Membership{}, err
	}
	return membership(id), nil
}

func membership(id *member.Identity) Membership {
	e := id.Enrollment
	return Membership{
		ID: e.ID, Name: e.Name, Tenant: e.Tenant, Address: e.Address, Deployment: e.Deployment,
		Identity: id.Key.Public(), WireGuard: id.WireGuard.Public(), KeySince: id.WireGuardSince,
	}
}

// What was last said of these is kept in files.
const (
	servicesFile    = "services.json"
	authoritiesFile = "authorities.json"
)

// Services returns what Remember was given last, nothing if it never was called.
func (d *Dir) Services() ([]Service, error) {
	var services []Service
	err := d.dir.ReadJSON(servicesFile, &services)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return services, err
}

// Remember keeps services for a later start. A Handler cannot be kept.
func (d *Dir) Remember(services []Service) error { return d.dir.WriteJSON(servicesFile, services) }

// Authorities returns what RememberAuthorities was given last, nothing if it never was
// called.
func (d *Dir) Authorities() ([]Authority, error) {
	var authorities []Authority
	err := d.dir.ReadJSON(authoritiesFile, &authorities)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return authorities, err
}

// RememberAuthorities keeps authorities for a later start.
func (d *Dir) RememberAuthorities(authorities []Authority) error {
	return d.dir.WriteJSON(authoritiesFile, authorities)
}
