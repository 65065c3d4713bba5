//go:build e2e

package e2e

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"postern"
	"postern/coordinator"
	"postern/coordinator/sqlite"
	"postern/internal/member"
)

const (
	// crowdNodes are as many as one gateway is to serve, and crowdTenants their tenants.
	crowdNodes   = 10_000
	crowdTenants = 1_000

	promisedCrowd = 60 * time.Second // until all are back

	// crowdSpread is over how long nodes that lost a gateway come back to it.
	crowdSpread = 10 * time.Second
)

// populate puts nodes that joined, as many a tenant, into the registry of a coordinator
// that does not run, and returns their WireGuard keys.
func (d *deployment) populate(nodes, tenants int) (keys [][32]byte) {
	d.t.Helper()
	store, err := sqlite.Open(d.t.Context(), filepath.Join(d.data("coordinator"), "postern.db"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer store.Close()
	if err := store.Update(context.Background(), func(tx coordinator.Tx) error {
		row, err := tx.Deployment()
		if err != nil {
			return err
		}
		now := time.Now()
		for i := range tenants {
			tenant := coordinator.Tenant{
				Name: fmt.Sprintf("tenant-%d", i), Number: row.NextTenant, NextNode: uint64(1 + nodes/tenants), Created: now,
			}
			row.NextTenant++
			if err := tx.Tenants().Put(tenant); err != nil {
				return err
			}
			for n := range nodes / tenants {
				key := postern.NewWireGuardPrivate()
				keys = append(keys, key)
				name := fmt.Sprintf("node-%d", n)
				if err := tx.Members().Put(coordinator.Member{
					ID: postern.NewID(), Role: postern.RoleNode, Tenant: tenant.Name, Name: name,
					Address:  overlayAddress(row.Prefix, tenant.Number, 1+n),
					Identity: postern.NewIdentityPrivate().Public(), WireGuard: key.Public(),
					Services: []postern.Service{{Name: name, Title: name}}, Joined: now,
				}); err != nil {
					return err
				}
			}
		}
		return tx.PutDeployment(row)
	}); err != nil {
		d.t.Fatal(err)
	}
	return keys
}

// startCrowded starts a coordinator that has so many nodes and a gateway, and returns who
// the gateway is, and the nodes' keys.
func (d *deployment) startCrowded(nodes, tenants int) (gateway *member.Identity, keys [][32]byte) {
	d.t.Helper()
	d.startCoordinator()
	d.joinGateway()
	d.coordinator.stop()
	keys = d.populate(nodes, tenants)
	d.startCoordinator()
	gateway, err := loadIdentity(d.data("gateway"), postern.RoleGateway)
	if err != nil {
		d.t.Fatal(err)
	}
	return gateway, keys
}

// overlayAddress is a node's place in the overlay: docs/protocol.md.
func overlayAddress(deployment netip.Prefix, tenant uint32, node int) netip.Addr {
	a := deployment.Addr().As16()
	binary.BigEndian.PutUint32(a[6:], tenant)
	binary.BigEndian.PutUint32(a[12:], uint32(node))
	return netip.AddrFrom16(a)
}

// crowdGateway starts the gateway, which logs as little as usual, and waits until it has
// its map.
func (d *deployment) crowdGateway() {
	d.t.Helper()
	d.launchGateway(unlimited...)
	eventually(d.t, time.Minute, func() error {
		if d.gateway.ended() {
			d.t.Fatal("the gateway ended")
		}
		var s struct {
			Map uint64 `json:"map_version"`
		}
		if err := d.gatewaySocket("/v1/status", &s); err != nil {
			return err
		}
		if s.Map == 0 {
			return errors.New("the gateway has no map")
		}
		return nil
	})
}

// Ten thousand nodes join one gateway, and lose it when it is killed; when it runs again
// all are back (R17).
func TestSurviveCrowd(t *testing.T) { // by itself: it computes, where others wait
	d := bareDeployment(t)
	id, keys := d.startCrowded(crowdNodes, crowdTenants)
	took := func(what string, since time.Time) { noteFigure(t, "scale", what, time.Since(since).Seconds(), "s") }
	begin := time.Now()
	d.crowdGateway()
	took("10,000 nodes: gateway starts and knows them after", begin)
	figures := func(what string, before usage) {
		now := d.gateway.used()
		noteFigure(t, "scale", "10,000 nodes: gateway's memory "+what, float64(now.private)/(1<<20), "MiB")
		noteFigure(t, "scale", "10,000 nodes: gateway's CPU time "+what, (now.cpu - before.cpu).Seconds(), "s")
	}
	figures("before any is there", usage{})
	alone := d.gateway.used().cpu

	s := newSwarm(t, id.WireGuard.Public(), d.udp, keys)
	all := func(since time.Time) func() error {
		return func() error {
			if n := s.since(since); n < crowdNodes {
				return fmt.Errorf("%d of %d have a session", n, crowdNodes)
			}
			return nil
		}
	}
	before := d.gateway.used()
	begin = time.Now()
	s.join(crowdSpread)
	eventually(t, promisedCrowd+survivePatience, all(begin))
	recovered(t, "R17", "10,000 nodes join one gateway, spread over 10 s", promisedCrowd, survivePatience, time.Since(begin))
	figures("until all have joined", before)
	noteFigure(t, "scale", "10,000 nodes: told to come back with a cookie", float64(s.cookies()), "")

	eventually(t, promisedCrowd, func() error {
		var nodes []postern.NodeState
		d.mustAdmin("GET", "/nodes", nil, &nodes)
		known := 0
		for _, n := range nodes {
			if len(n.Tunnels) == 1 && !n.Tunnels[0].Handshake.IsZero() {
				known++
			}
		}
		if known < crowdNodes {
			return fmt.Errorf("operators are told of %d tunnels", known)
		}
		return nil
	})
	begin = time.Now()
	d.cli(nil, "nodes", "list")
	took("10,000 nodes: nodes list", begin)
	before, begin = d.gateway.used(), time.Now()
	eventually(t, time.Minute, func() error {
		if time.Since(begin) < 10*time.Second {
			return errors.New("not idle for long enough")
		}
		return nil
	})
	share := (d.gateway.used().cpu - before.cpu).Seconds() / time.Since(begin).Seconds()
	noteFigure(t, "scale", "10,000 nodes: gateway's share of a processor, idle", share, "")

	eventually(t, survivePatience, func() error {
		if seen := len(d.remembered()); seen < crowdNodes {
			return fmt.Errorf("%d endpoints are on disk", seen)
		}
		return nil
	})
	d.gateway.kill()
	begin = time.Now()
	d.crowdGateway()
	eventually(t, promisedCrowd+survivePatience, all(begin))
	recovered(t, "R17", "gateway of 10,000 nodes killed: all have a session again", promisedCrowd, survivePatience, time.Since(begin))
	figures("of a start with their greeting", usage{})
	noteFigure(t, "scale", "10,000 nodes: gateway's CPU time of the greeting alone", (d.gateway.used().cpu - alone).Seconds(), "s")
}
