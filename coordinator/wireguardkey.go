package coordinator

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"

	"postern"
)

// A member replaces its WireGuard key:
//
//	the member   proves at PathKey that it has the new key, as it did when it joined
//	the registry has the new key in place of the old one
//	the map      tells gateways of a node's, and nodes of a gateway's
//	a gateway    takes the new key for the same node, and tells the version that it acts on
//	the member   is answered, and uses the new key
//
// An answer that is lost costs nothing: the member finds in its own map which key counts,
// and asking again for the key that it has is as good.

func (c *Coordinator) getKey(r *http.Request, _ *Member) (any, error) { return c.getEnroll(r) }

func (c *Coordinator) postKey(r *http.Request, m *Member) (any, error) {
	req, err := c.readKey(r)
	if err != nil {
		return nil, err
	}
	if !req.Now {
		if err := c.checkGateways(m); err != nil {
			return nil, err
		}
	}
	if err := c.replaceKey(r, m, req.WireGuard); err != nil {
		return nil, err
	}
	if m.Role == postern.RoleGateway {
		return struct{}{}, nil // nodes do not say which map they act on
	}
	ctx, cancel := context.WithTimeout(r.Context(), c.waits.gateways)
	defer cancel()
	err = c.awaitGateways(ctx, c.snapshot.Load().tenantsNamed(m.Tenant))
	if err != nil && r.Context().Err() == nil {
		c.log.Warn("a gateway is slow to take a node's new key", "tenant", m.Tenant, "node", m.Name, "err", err)
		err = nil
	}
	return struct{}{}, err
}

// readKey returns a request whose proof is right.
func (c *Coordinator) readKey(r *http.Request) (req postern.KeyRequest, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return req, fmt.Errorf("read the request's body: %w", err)
	}
	if err := json.Unmarshal(body, &req); err != nil {
		return req, invalid(fmt.Errorf("the request's body is not what it should be: %w", err), "")
	}
	proof, err := base64.StdEncoding.DecodeString(r.Header.Get(postern.HeaderWireGuardProof))
	if err != nil || len(proof) == 0 {
		return req, invalid(fmt.Errorf("header %s is missing or not base64", postern.HeaderWireGuardProof), "")
	}
	if req.WireGuard.IsZero() {
		return req, invalid(errors.New("the WireGuard key is missing"), "")
	}
	b, err := binding(r)
	if err != nil {
		return req, err
	}
	return req, proveWireGuard(req.WireGuard, c.challenge(b), postern.KeyMessage(b, body), proof)
}

// checkGateways refuses m another key while a gateway is away: it would go on with the old
// one for as long.
func (c *Coordinator) checkGateways(m *Member) error {
	for _, g := range c.snapshot.Load().gateways {
		if open, _ := c.presence.control(g, c.cfg.Now()); !open && g.ID != m.ID {
			return postern.NewProblem(http.StatusServiceUnavailable, postern.CodeUnavailable,
				fmt.Sprintf("gateway %q is not connected, and would not learn of the new key", g.Name),
				"try again when it is, or remove a gateway that is gone for good")
		}
	}
	return nil
}

// replaceKey makes key that of m. If it is already, nothing changes.
func (c *Coordinator) replaceKey(r *http.Request, m *Member, key postern.WireGuardPublic) error {
	return c.updateMember(r, m, func(ch *change, now *Member) error {
		if now.WireGuard == key {
			return nil
		}
		if _, err := ch.Members().ByWireGuard(key); err == nil {
			return taken("another member has this WireGuard key", "make a new key")
		} else if !errors.Is(err, ErrNotFound) {
			return err
		}
		if !c.limits.record.allow(now.ID) {
			return tooMany()
		}
		now.WireGuard = key
		ch.touch(now.Tenant)
		return errors.Join(ch.Members().Put(*now),
			ch.audit(string(now.Role)+".key", now.Tenant, now.ID, fmt.Sprintf("%s has the WireGuard key %v", now.Name, key)))
	})
}
