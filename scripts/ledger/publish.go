package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"

	"postern"
	"postern/node"
)

// publish serves as Serve does, reached through Postern by a node in this very
// process: TLS ends here, and no port is open on this machine. data is the node's
// directory; tokenFile is needed until it has joined. The companies become
// entries of the portal's catalogue. Access is the service's.
//
// It prints where browsers find the program, once they do.
func (a *App) publish(ctx context.Context, data, tokenFile, access string, stdout io.Writer) error {
	token := ""
	if tokenFile != "" {
		text, err := os.ReadFile(tokenFile)
		if err != nil {
			return err
		}
		token = string(text)
	}
	entries, err := a.entries(ctx)
	if err != nil {
		return err
	}
	ln, err := node.Listen(ctx, node.ListenConfig{
		Data: data, Token: token, Logger: a.log,
		Service: node.Service{
			Title: a.title, Description: "Companies, vouchers and the trial balance.", Icon: "book", Entries: entries, Access: access,
		},
	})
	if err != nil {
		return err
	}
	serving, end := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		if urls, err := ln.AwaitReady(serving); err == nil {
			fmt.Fprintf(stdout, "ledger: listening on %s\n", strings.Join(urls, " "))
		}
	})
	err = a.serve(ctx, ln, ln.Protect(a.Handler()))
	end()
	wg.Wait()
	return errors.Join(err, ln.Close(), ln.Wait())
}

// entries are the companies, as the catalogue shows them.
func (a *App) entries(ctx context.Context) ([]postern.Entry, error) {
	companies, err := a.store.Companies(ctx)
	if err != nil {
		return nil, err
	}
	var list []postern.Entry
	for _, c := range companies[:min(len(companies), postern.MaxEntries)] {
		id := strconv.FormatInt(c.ID, 10)
		list = append(list, postern.Entry{Name: "company-" + id, Title: c.Name, Path: "/companies/" + id, Note: c.Currency})
	}
	return list, nil
}
