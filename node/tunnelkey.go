package node

import (
	"context"
	"errors"
	"net/http"

	"postern"
)

// membership returns who the node is, with the key that its tunnels have now.
func (n *Node) membership() Membership {
	m := membership(n.id)
	key, since := n.client.WireGuard()
	m.WireGuard, m.KeySince = key.Public(), since
	return m
}

// replaceKey is POST pathKey.
func (n *Node) replaceKey(w http.ResponseWriter, r *http.Request) {
	run := n.running.Load() // the local API is served while it runs
	if err := run.key.Replace(r.Context()); err != nil {
		p := new(postern.Problem)
		if !errors.As(err, &p) {
			p = postern.NewProblem(http.StatusServiceUnavailable, postern.CodeUnavailable, err.Error(), "the coordinator has to be there for it")
		}
		refuse(w, p)
		return
	}
	writeJSON(w, http.StatusOK, n.membership())
}

// ReplaceKey has the node whose Socket has the given path make another key for its
// tunnels, and returns when gateways have it and it is used. It fails with ErrNotRunning
// if there is none.
func ReplaceKey(ctx context.Context, socket string) (m Membership, err error) {
	err = askLocal(ctx, socket, http.MethodPost, pathKey, nil, &m)
	return m, err
}
