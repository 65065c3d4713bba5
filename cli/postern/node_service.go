package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/internal/datadir"
	"postern/node"
)

// What a node is called as a service, by the system and by people.
const (
	serviceName  = "postern-node"
	serviceTitle = "Postern node"
	serviceText  = "Postern: node, beside the application"
)

// A nodeService is how a node is run as a service.
type nodeService struct {
	program string   // absolute path
	data    string   // its data directory, absolute
	options []string // of `node run`, beside --data
}

// arguments returns the command line that runs s, without the program.
func (s nodeService) arguments() []string {
	return append([]string{"node", "run", "--data", s.data}, s.options...)
}

// A serviceState is what the system says of the service.
type serviceState struct {
	Installed bool      `json:"installed"`
	File      string    `json:"file,omitempty"` // that says how it is run; empty: there is none to see
	Enabled   bool      `json:"enabled"`        // it starts with the machine
	Running   bool      `json:"running"`
	Since     time.Time `json:"since,omitzero"` // it runs; zero: it does not, or does not answer
	Log       string    `json:"log"`            // where to read what it says
	Data      string    `json:"data"`
}

// A serviceHost is what runs services on this system: systemd, Windows or launchd.
type serviceHost interface {
	// install has the service run as s says from now on, and start with the machine. One
	// that was installed is replaced. It starts nothing.
	install(s nodeService) error
	start() error
	stop() error // nil if it does not run, or is not there
	// uninstall takes away a service that does not run, and what install wrote.
	uninstall() error
	state() (serviceState, error) // without Since and Data
}

func nodeServiceCommand(data cli.Flag, config cli.Flag, host func() (serviceHost, error)) *cli.Command {
	return &cli.Command{
		Name: "service", Usage: "run this node in the background, from the machine's start on",
		Subcommands: []*cli.Command{
			{
				Name: "install", Usage: "install this node as a service of the system, and start it", Action: withHost(host, installService),
				Description: "It runs by systemd on Linux, by the service manager on Windows and by launchd on macOS, which start it anew " +
					"if it ends. The options are those of `postern node run`, and are kept. Once more, it replaces what was installed, and " +
					"options that are not given again are gone, but for what is published.",
				UsageText: "postern node service install\npostern node service install --proxy http://proxy.example.com:3128\n" +
					"postern node service install --config /etc/postern.yaml --log-level debug",
				Flags: append(append([]cli.Flag{config}, append(serviceFlags(), nodeFlags()...)...), append(logFlags(), data)...),
			},
			{
				Name: "uninstall", Usage: "stop the service and take it off the system; its data stays", Action: withHost(host, uninstallService),
				UsageText: "postern node service uninstall", Flags: []cli.Flag{data},
			},
			{
				Name: "status", Usage: "show whether the service is installed, and runs", Action: withHost(host, serviceStatus),
				Description: "It exits with 0 if the service runs, and with 1 if it does not, or is not installed.",
				UsageText:   "postern node service status\npostern node service status -o json",
				Flags:       append([]cli.Flag{data}, outputFlags()...),
			},
		},
	}
}

func withHost(host func() (serviceHost, error), action func(*cli.Context, serviceHost) error) cli.ActionFunc {
	return func(c *cli.Context) error {
		if _, err := operands(c); err != nil {
			return err
		}
		h, err := host()
		if err != nil {
			return err
		}
		return action(c, h)
	}
}

var errNoService = errors.New("the node is not installed as a service")

func installService(c *cli.Context, host serviceHost) error {
	// All that can be wrong with the options is found before anything is changed.
	if _, err := logger(c); err != nil {
		return err
	}
	if _, err := parseMTU(c); err != nil {
		return err
	}
	dir, err := filepath.Abs(dataDir(c, postern.RoleNode))
	if err != nil {
		return err
	}
	if !datadir.Is(dir, postern.RoleNode) { // opening it would make one
		return fmt.Errorf("%s: %w", dir, node.ErrNotJoined)
	}
	s := nodeService{data: dir}
	if s.options, err = serviceOptions(c); err != nil {
		return err
	}
	if s.program, err = os.Executable(); err != nil {
		return err
	}
	if s.program, err = filepath.EvalSymlinks(s.program); err != nil {
		return err
	}
	before, err := host.state()
	if err != nil {
		return err
	}
	if before.Running {
		if err := host.stop(); err != nil {
			return err
		}
	}
	name, err := prepareService(c, dir)
	if err == nil {
		err = host.install(s)
	}
	if err != nil {
		if before.Running { // as it was
			err = errors.Join(err, host.start())
		}
		return err
	}
	if err := host.start(); err != nil {
		return fail("its log says why: "+before.Log, fmt.Errorf("it is installed, and does not start: %w", err))
	}
	verb := "installed"
	if before.Installed {
		verb = "installed anew"
	}
	note(c, "Node %s is %s as the service %s, runs, and starts with the machine.", name, verb, serviceName)
	after, err := host.state()
	if err != nil {
		return err
	}
	if after.File != "" {
		note(c, "How it is run is in %s, its data in %s.", after.File, dir)
	} else {
		note(c, "Its data is in %s.", dir)
	}
	note(c, "`postern node status` shows how it does; its log: %s", after.Log)
	return nil
}

// prepareService makes the node in dir, which must have joined, remember what it is to
// publish, and returns its name.
func prepareService(c *cli.Context, dir string) (name string, err error) {
	d, err := node.Open(dir)
	if err != nil {
		return "", err
	}
	defer d.Close()
	m, err := d.Membership()
	if err != nil {
		return "", fmt.Errorf("%s: %w", dir, err)
	}
	if _, err := settleServices(c, d); err != nil {
		return "", err
	}
	return m.Tenant + "/" + m.Name, ownAs(dir, dir)
}

// serviceOptions returns those of c that are said again whenever the service starts: what
// is published is remembered, and the data directory is the service's own matter.
func serviceOptions(c *cli.Context) ([]string, error) {
	var options []string
	for _, f := range c.Command.Flags {
		name := f.Names()[0]
		if !c.IsSet(name) || name == "data" || name == "help" || isRemembered(name) {
			continue
		}
		value := fmt.Sprint(c.Value(name))
		if (name == "config" || name == "access-log") && value != "-" && value != "" { // it runs elsewhere
			var err error
			if value, err = filepath.Abs(value); err != nil {
				return nil, err
			}
		}
		options = append(options, "--"+name+"="+value)
	}
	return options, nil
}

// isRemembered reports whether the data directory keeps what the option called name says.
func isRemembered(name string) bool {
	for _, f := range serviceFlags() {
		if f.Names()[0] == name {
			return true
		}
	}
	return strings.HasPrefix(name, "acme-")
}

func uninstallService(c *cli.Context, host serviceHost) error {
	s, err := host.state()
	if err != nil {
		return err
	}
	if !s.Installed {
		return fail("there is nothing to be done", errNoService)
	}
	if err := host.stop(); err != nil {
		return err
	}
	if err := host.uninstall(); err != nil {
		return err
	}
	dir := dataDir(c, postern.RoleNode)
	note(c, "The service %s has ended, and is gone. The node's keys and settings stay in %s:", serviceName, dir)
	note(c, "`postern node run` goes on with them, `postern nodes remove` at the coordinator ends the membership.")
	return nil
}

func serviceStatus(c *cli.Context, host serviceHost) error {
	if _, err := outputFormat(c); err != nil {
		return err
	}
	s, err := host.state()
	if err != nil {
		return err
	}
	s.Data = dataDir(c, postern.RoleNode)
	if s.Running {
		if n, err := node.QueryStatus(c.Context, nodeSocket(c)); err == nil { // else `node status` tells why
			s.Since = n.Started
		}
	}
	if err := show(c, s, serviceFields); err != nil {
		return err
	}
	switch {
	case !s.Installed:
		return fail("`postern node service install` installs it", errNoService)
	case !s.Running:
		return fail("its log says why: "+s.Log, errors.New("the service does not run"))
	}
	return nil
}

func serviceFields(t *table, s serviceState) {
	state := "not installed"
	switch {
	case s.Running && !s.Since.IsZero():
		state = "runs since " + t.when(s.Since)
	case s.Running:
		state = "runs"
	case s.Installed:
		state = "stopped"
	}
	t.field("Service", serviceName+", "+state)
	if !s.Installed {
		return
	}
	if s.File != "" {
		t.field("File", s.File)
	}
	if s.Enabled {
		t.field("Start", "with the machine")
	} else {
		t.field("Start", "by hand")
	}
	t.field("Log", s.Log)
	t.field("Data", s.Data)
}
