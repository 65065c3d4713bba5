package coordinator

import (
	"context"
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
