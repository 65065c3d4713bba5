// Ledger is a small double-entry bookkeeping program: companies, accounts,
// vouchers and the trial balance, as pages for a browser and as a REST API in
// JSON. It keeps its books in one SQLite file and knows nothing of the network
// it is reached over.
//
//	ledger -data books.db -sample acme -listen 127.0.0.1:9000
//
// Given a data directory of its own, it is reached through Postern with no port
// on this machine and no other program beside it:
//
//	ledger -data books.db -sample acme -postern-data node -postern-token acme.token
//
// It says who is signed in then, and notes who posted a voucher. Behind a node on the
// same machine it does too, told with -trust-postern to believe what the node says.
//
// It prints one line once it accepts connections, logs to standard error, and
// ends on SIGINT or SIGTERM after the requests under way have been answered.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"postern"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// Once the first signal has come, a second one ends the program at once.
	context.AfterFunc(ctx, stop)

	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
	case errors.Is(err, errUsage):
		os.Exit(2)
	default:
		fmt.Fprintf(os.Stderr, "ledger: error: %v\n", err)
		os.Exit(1)
	}
}

// errUsage says that the command line was wrong and that this has been told.
var errUsage = errors.New("wrong usage")

// run is the program: it serves until ctx is done. It prints the line that
// tells the address to stdout, and its log and help to stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := flag.NewFlagSet("ledger", flag.ContinueOnError)
	flags.SetOutput(stderr)
	listen := flags.String("listen", "127.0.0.1:9000", "`address` to listen on: host:port or unix:/path")
	data := flags.String("data", "ledger.db", "SQLite `file` that holds the books; made if absent")
	sample := flags.String("sample", "", "fill empty books with the sample `name`: acme or globex")
	title := flags.String("title", "Ledger", "`words` at the head of every page")
	nodeData := flags.String("postern-data", "", "be reached through Postern, with this `directory` for the membership, in place of -listen")
	nodeAccess := flags.String("postern-access", postern.AccessMembers, "`who` may open it through Postern: members or public")
	trust := flags.Bool("trust-postern", false, "believe the Postern headers that say who is signed in; nothing but a node may reach -listen then")
	nodeToken := flags.String("postern-token", "", "`file` with the token to join Postern with, the first time")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return errUsage
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(stderr, "ledger: error: unexpected argument %q\n", flags.Arg(0))
		return errUsage
	}

	if *nodeToken != "" && *nodeData == "" {
		fmt.Fprintln(stderr, "ledger: error: -postern-token needs -postern-data")
		return errUsage
	}

	if *nodeAccess != postern.AccessMembers && *nodeAccess != postern.AccessPublic {
		fmt.Fprintf(stderr, "ledger: error: -postern-access %q is not one of members and public\n", *nodeAccess)
		return errUsage
	}
	user := nodeUser
	switch {
	case *trust && *nodeData != "":
		fmt.Fprintln(stderr, "ledger: error: -trust-postern is for -listen: with -postern-data nobody is in between")
		return errUsage
	case *trust:
		user = headerUser
	}

	store, err := OpenStore(ctx, *data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if *sample != "" {
		if err := store.Seed(ctx, *sample); err != nil {
			return err
		}
	}

	app := NewApp(Config{Store: store, Title: *title, User: user, Log: slog.New(slog.NewTextHandler(stderr, nil))})
	if *nodeData != "" {
		return app.publish(ctx, *nodeData, *nodeToken, *nodeAccess, stdout)
	}
	ln, err := openListener(*listen)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "ledger: listening on %s\n", listenerURL(ln))
	return app.Serve(ctx, ln)
}
