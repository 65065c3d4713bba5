package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"postern"
)

func (o *Operator) Nodes(_ context.Context, tenant string) ([]postern.NodeState, error) {
	all := []postern.NodeState{}
	snap := o.c.snapshot.Load()
	for _, t := range o.tenants(snap, tenant) {
		for _, n := range t.nodes {
			all = append(all, o.c.nodeState(snap, n))
		}
	}
	return all, nil
}

// Node returns a node, by id or tenant/name.
func (o *Operator) Node(ctx context.Context, id string) (postern.NodeState, error) {
	snap := o.c.snapshot.Load()
	n := snap.byID[id]
	if tenant, name, ok := strings.Cut(id, "/"); ok && snap.tenants[tenant] != nil {
		for _, m := range snap.tenants[tenant].nodes {
			if m.Name == name {
				n = m
			}
		}
	}
	if n == nil || n.Role != postern.RoleNode || !o.sees(n.Tenant) {
		return postern.NodeState{}, o.answer(ctx, id, notFound(ErrNotFound, "node", id, ""))
	}
	return o.c.nodeState(snap, n), nil
}

// ChangeNode changes how connections come to a node. It is recorded once for each time
// that something changes.
func (o *Operator) ChangeNode(ctx context.Context, id string, req postern.NodeChange) (postern.NodeState, error) {
	if err := o.charge(); err != nil {
		return postern.NodeState{}, err
	}
	err := o.update(ctx, id, func(ch *change) error {
		m, err := o.machine(ch, postern.RoleNode, id)
		if err != nil {
			return err
		}
		return ch.changeNode(m, req)
	})
	if err != nil {
		return postern.NodeState{}, err
	}
	return o.Node(ctx, id)
}

// changeNode works req into m.
func (ch *change) changeNode(m Member, req postern.NodeChange) error {
	var recorded []error
	if w := req.Weight; w != nil && *w != cmp.Or(m.Weight, postern.DefaultWeight) {
		if *w < 1 || *w > postern.MaxWeight {
			return invalid(fmt.Errorf("a weight is 1 to %d, not %d", postern.MaxWeight, *w), "")
		}
		m.Weight = *w
		recorded = append(recorded, ch.audit("node.weight", m.Tenant, m.ID, fmt.Sprintf("%s %d", m.Name, *w)))
	}
	if d := req.Draining; d != nil && *d != m.Draining {
		m.Draining = *d
		action := "node.undrain"
		if *d {
			action = "node.drain"
		}
		recorded = append(recorded, ch.audit(action, m.Tenant, m.ID, m.Name))
	}
	if len(recorded) == 0 {
		return nil
	}
	ch.touch(m.Tenant)
	return errors.Join(append(recorded, ch.Members().Put(m))...)
}

func (o *Operator) RemoveNode(ctx context.Context, id string) error {
	return o.removeMember(ctx, postern.RoleNode, id)
}

func (o *Operator) removeMember(ctx context.Context, role postern.Role, id string) error {
	return o.update(ctx, id, func(ch *change) error {
		m, err := o.machine(ch, role, id)
		if err != nil {
			return err
		}
		return ch.removeMember(m)
	})
}

// machine returns the member of that role with id, if it is o's to operate.
func (o *Operator) machine(ch *change, role postern.Role, id string) (Member, error) {
	m, err := ch.Members().Get(id)
	if err == nil && (m.Role != role || !o.sees(m.Tenant)) {
		err = ErrNotFound
	}
	if err != nil {
		return Member{}, notFound(err, string(role), id, "")
	}
	return m, nil
}
