//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"

	"golang.org/x/sync/errgroup"

	"postern"
	"postern/node"
)

// A nodesPart is the nodes of one child, in its environment as JSON.
type nodesPart struct {
	Coordinator string // URL
	Dir         string // that holds their data directories
	Nodes       []nodePart
	AtOnce      int // join at a time
}

// A nodePart is one of them. It publishes a service of its name, which says it.
type nodePart struct{ Name, Token string }

// partEnv holds a child's nodesPart.
const partEnv = "POSTERN_E2E_NODES"

// nodes is a child: real nodes, as many as it is told, that join and run until they are
// killed. It says so when all have joined.
func nodes() error {
	var part nodesPart
	if err := json.Unmarshal([]byte(os.Getenv(partEnv)), &part); err != nil {
		return err
	}
	return part.run(context.Background())
}

func (p *nodesPart) run(ctx context.Context) error {
	running, ctx := errgroup.WithContext(ctx)
	all := make([]*node.Node, len(p.Nodes))
	var joining errgroup.Group
	joining.SetLimit(p.AtOnce)
	for i, n := range p.Nodes {
		joining.Go(func() (err error) {
			if all[i], err = n.join(ctx, p.Coordinator, filepath.Join(p.Dir, n.Name)); err != nil {
				return fmt.Errorf("%s: %w", n.Name, err)
			}
			running.Go(func() error { return all[i].Run(ctx) })
			return nil
		})
	}
	if err := joining.Wait(); err != nil {
		return err
	}
	fmt.Println("joined")
	return running.Wait()
}

// join returns the node, which has joined, with its data in dir.
func (n nodePart) join(ctx context.Context, coordinator, dir string) (*node.Node, error) {
	token, err := postern.ParseToken(n.Token)
	if err != nil {
		return nil, err
	}
	token.URLs = []string{coordinator}
	data, err := node.Open(dir)
	if err != nil {
		return nil, err
	}
	// With so many at a time an answer may come late; then one tries again.
	for range 5 {
		if _, err = data.JoinThrough(ctx, "direct", token, n.Name, ""); err == nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	return node.New(node.Config{Dir: data, Proxy: "direct", Services: []node.Service{{
		Name: n.Name, Access: postern.AccessPublic,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, n.Name) }),
	}}})
}
