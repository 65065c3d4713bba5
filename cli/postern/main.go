// Command postern is all of Postern's roles and its operator's tool in one
// binary: flags in, words and exit codes out.
//
// It exits with 0 when done, 1 when it failed and 2 when it was misused. Errors
// are two lines on standard error, what is wrong and what to do about it:
//
//	postern: error: …
//	postern: hint: …
package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

// version is set when a release is linked; see the Makefile.
var version string

func main() {
	os.Exit(hosted(func(ctx context.Context, stdout, stderr io.Writer) int { return run(ctx, os.Args, stdout, stderr) }))
}

// run is main with its surroundings named; it returns the exit code.
//
// The end of ctx, or the first SIGINT or SIGTERM, ends the command in good order, the second ends
// the process at once.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	defer context.AfterFunc(ctx, stop)()

	app := newApp(stdout, stderr)
	if len(args) == 2 && args[1] == "--version" { // as everybody tries first
		args = []string{args[0], "version"}
	}
	err := app.RunContext(ctx, arrange(app.Commands, args))
	return report(stderr, interrupted(ctx, err))
}

// interrupted returns err, in our words if it is only that ctx ended.
func interrupted(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause == nil || !errors.Is(err, context.Canceled) && !errors.Is(err, cause) {
		return err
	}
	return fail("run it again when you want to", errors.New("interrupted"))
}

func newApp(stdout, stderr io.Writer) *cli.App {
	cli.HelpPrinter = printHelp
	cli.HelpFlag = &cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Usage: "show this help"}
	app := &cli.App{
		Name:  "postern",
		Usage: "reach an application on the customer's premises at its own HTTPS name",
		Description: "TLS runs from the browser to the node beside the application. What is in between\n" +
			"moves ciphertext.",
		Version: programVersion(),
		Commands: []*cli.Command{
			upCommand(), demoCommand(),
			coordinatorCommand(), gatewayCommand(), nodeCommand(),
			tenantsCommand(), usersCommand(), issuersCommand(), tokensCommand(), nodesCommand(), gatewaysCommand(), routesCommand(),
			auditCommand(), statusCommand(), backupCommand(), restoreCommand(), doctorCommand(), verifyCommand(), loginCommand(), versionCommand(), completionCommand(),
		},
		UsageText: "vps$    postern up --domain apps.example.com\n" +
			"vps$    postern tenants add acme > acme.token\n" +
			"office$ postern node join --token-file acme.token --publish http://localhost:9000",
		Action:               group,
		Writer:               stdout,
		ErrWriter:            stderr,
		HideHelpCommand:      true,
		HideVersion:          true,
		EnableBashCompletion: true,
		ExitErrHandler:       func(*cli.Context, error) {}, // run reports
		OnUsageError:         usageError,
	}
	for _, c := range app.Commands {
		prepare(c)
	}
	return app
}

// prepare sets what all commands have in common.
func prepare(c *cli.Command) {
	c.OnUsageError = usageError
	c.HideHelpCommand = true
	if c.Action == nil {
		c.Action = group
	}
	for _, sub := range c.Subcommands {
		prepare(sub)
	}
}

// group is the action of a command that is only a noun: alone it shows its
// help, with a word that it does not know it is misused.
func group(c *cli.Context) error {
	word := c.Args().First()
	if word == "" {
		if c.Command.Name == c.App.Name {
			return cli.ShowAppHelp(c)
		}
		return cli.ShowSubcommandHelp(c)
	}
	name, hint := cmp.Or(c.Command.HelpName, c.App.Name), "`postern --help` lists the commands"
	if c.Command.Name != c.App.Name {
		hint = "choose one of " + strings.Join(commandNames(c.Command.Subcommands), ", ")
	}
	if isSecret(word) {
		return secretMisplaced(name)
	}
	return misuse(hint, "%s: unknown command %q", name, word)
}

func commandNames(commands []*cli.Command) []string {
	var names []string
	for _, c := range commands {
		names = append(names, c.Name)
	}
	return names
}

// programVersion returns the linked version, else what the go command stamped.
func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		return strings.Trim(info.Main.Version, "()") // (devel) if it knows nothing
	}
	return "devel"
}
