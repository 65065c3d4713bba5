package node_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"
	"os/signal"
	"slices"

	"postern"
	"postern/node"
)

// A whole application: the first start joins with the token in the environment,
// later ones need none.
func ExampleServe() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	hello := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user, _ := node.UserOf(r.Context()) // there is one: the service is for members
		fmt.Fprintf(w, "Hello, %s\n", user.Login)
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
	err = http.Serve(ln, ln.Protect(http.FileServer(http.Dir("/srv/docs"))))
	log.Print(err, ln.Wait())
}

// What is for some in a service that is for all.
func ExampleUserOf() {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", func(w http.ResponseWriter, r *http.Request) {
		if user, ok := node.UserOf(r.Context()); ok {
			fmt.Fprintf(w, "Hello, %s\n", user.Login)
		} else {
			fmt.Fprintln(w, "Hello, stranger")
		}
	})
	mux.HandleFunc("POST /vouchers", func(w http.ResponseWriter, r *http.Request) {
		user, _ := node.UserOf(r.Context())
		if !slices.Contains(user.Groups, "accounting") {
			http.Error(w, "for accountants only", http.StatusForbidden)
			return
		}
		fmt.Fprintln(w, "booked")
	})
	err := node.Serve(context.Background(), node.ListenConfig{
		Data:    "/var/lib/hello",
		Service: node.Service{Access: postern.AccessPublic},
	}, mux)
	log.Print(err)
}

// A program that is public but for one part, and has an http.Server of its own.
func ExampleListener_Protect() {
	ln, err := node.Listen(context.Background(), node.ListenConfig{
		Data: "/var/lib/hello",
		Service: node.Service{
			Access:     postern.AccessPublic,
			Exceptions: []node.Exception{{Path: "/admin/", Access: postern.AccessGroups, Groups: []string{"admins"}}},
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	server := &http.Server{Handler: ln.Protect(http.DefaultServeMux)}
	log.Print(server.Serve(ln), ln.Wait())
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
		{Name: "docs", Upstream: "/srv/docs", Access: postern.AccessGroups, Groups: []string{"editors"}},
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
