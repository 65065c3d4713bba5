package node_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"

	"postern"
	"postern/node"
)

// A whole application: the first start joins with the token in the environment,
// later ones need none.
func ExampleServe() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Hello, %s\n", r.RemoteAddr)
	})
	err := node.Serve(ctx, node.ListenConfig{
		Data:  "/var/lib/hello",
		Token: os.Getenv("POSTERN_TOKEN"),
		Service: node.Service{
			Title:   "Hello",
			Entries: []postern.Entry{{Name: "help", Title: "Help", Path: "/help"}},
		},
	}, hello)
	if err != nil {
		log.Fatal(err)
	}
}

// A program that has an http.Server of its own.
func ExampleListen() {
	ln, err := node.Listen(context.Background(), node.ListenConfig{Data: "/var/lib/hello", Token: os.Getenv("POSTERN_TOKEN")})
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		if urls, err := ln.AwaitReady(context.Background()); err == nil {
			log.Print("reached at ", urls)
		}
	}()
	err = http.Serve(ln, http.FileServer(http.Dir("/srv/docs")))
	log.Print(err, ln.Wait())
}

// Several services, and a change while they run.
func ExampleNode_SetServices() {
	dir, err := node.Open("/var/lib/office")
	if err != nil {
		log.Fatal(err)
	}
	defer dir.Close()
	services := []node.Service{
		{Title: "Books", Icon: "book", Upstream: "http://localhost:9000"},
		{Name: "docs", Upstream: "/srv/docs"},
	}
	n, err := node.New(node.Config{Dir: dir, Services: services})
	if err != nil {
		log.Fatal(err) // wraps node.ErrNotJoined before dir.Join
	}
	go func() {
		services[0].Entries = []postern.Entry{{Name: "y2026", Title: "2026", Path: "/y/2026"}}
		if err := n.SetServices(services); err != nil {
			log.Print(err)
		}
	}()
	log.Print(n.Run(context.Background()))
}
