package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/internal/datadir"
	"postern/internal/dnscheck"
	"postern/node"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", ArgsUsage: "[HOST]", Usage: "find out what is wrong with what runs on this machine, and what to do", Action: doctor,
		Description: "Of a coordinator and a gateway it looks at clock, disk, registry, backups, certificates, DNS, ports, tunnels " +
			"and members. Of a node it looks at clock, disk and interfaces, asks the running node, also whether its applications answer, has it try the relays of gateways, asks DNS for its host names as a certificate authority does, says who may get " +
			"certificates for them, and connects to where they lead to see whether this node's own key is shown there. HOST is for nodes: " +
			"of their names it is the only one that is looked at then. It exits with " +
			"1 if something keeps people out or puts somebody in between.\n\n" +
			"Grades of a name: A, below the operator's domain: whoever controls the operator's DNS could get a certificate, and " +
			"everybody could see it in the public logs. B, the company's own name with its own CAA records: neither gateway nor " +
			"operator can get one. C, the company's own name by CNAME: the operator's CAA records count, not the company's.",
		UsageText: "postern doctor\npostern doctor --data /srv/postern\npostern doctor erp.acme.example --resolver 9.9.9.9",
		Flags: append([]cli.Flag{
			resolverFlag(),
			dataFlag("the role's data `DIR`ectory, or that of postern up (all that are where they are by default, if not given)"),
		}, outputFlags()...),
	}
}

func doctor(c *cli.Context) error {
	words, err := operands(c, "[HOST]")
	if err != nil {
		return err
	}
	for i := range words {
		if words[i], err = parseHost(words[i]); err != nil {
			return err
		}
	}
	if _, err := outputFormat(c); err != nil {
		return err
	}
	resolver, err := parseResolver(c)
	if err != nil {
		return err
	}
	all, err := examine(c, resolver, words)
	if err != nil {
		return err
	}
	if err := show(c, all, diagnosisFields); err != nil {
		return err
	}
	for _, e := range all {
		if !e.Healthy() {
			return node.ErrUnhealthy
		}
	}
	return nil
}

// examine looks at all roles whose data directories are where c says, or where they are
// by default. Host names are the node's alone.
func examine(c *cli.Context, resolver string, hosts []string) ([]examination, error) {
	data := c.String("data")
	dns, err := dnscheck.New(resolver)
	if err != nil {
		return nil, err
	}
	var all []examination
	at := func(role postern.Role) (dir string, is bool) {
		dir = filepath.Dir(rolePath(data, role, datadir.MarkFile))
		return dir, datadir.Is(dir, role)
	}
	if dir, is := at(postern.RoleCoordinator); is && len(hosts) == 0 {
		all = append(all, examineCoordinator(c.Context, dir, dns))
	}
	if dir, is := at(postern.RoleGateway); is && len(hosts) == 0 {
		all = append(all, examineDoor(c.Context, dir))
	}
	dir, is := at(postern.RoleNode)
	if len(all) > 0 && !is {
		return all, nil
	}
	s, err := node.QueryStatus(c.Context, filepath.Join(dir, node.Socket))
	switch {
	case err != nil && is:
		return append(all, examineStopped(dir, err)), nil
	case errors.Is(err, node.ErrNotRunning) && len(hosts) > 0:
		return nil, fail("run it on the machine whose node has the name, or name that node's data directory with --data; without HOST it looks at what is here",
			fmt.Errorf("HOST is for nodes, and there is none at %s", dir))
	case err != nil:
		return nil, err
	}
	found, err := node.Examine(c.Context, s, resolver, hosts)
	for i, d := range found {
		e := examination{Role: postern.RoleNode, Diagnosis: d}
		if i == 0 && len(hosts) == 0 {
			e.Diagnosis = node.Diagnosis{}
			e.machine(dir, s.Control.Skew)
			e.interfaces()
			e.Findings = append(e.Findings, d.Findings...)
			e.relays(c.Context, dir)
		}
		all = append(all, e)
	}
	return all, err
}

func diagnosisFields(t *table, all []examination) {
	for _, e := range all {
		name := e.Host
		if name == "" {
			name = string(e.Role)
		}
		t.row(name)
		findingRows(t, e.Findings)
	}
	t.fields = true
}

// findingRows lists findings, each with what to do about it.
func findingRows(t *table, findings []postern.Finding) {
	for _, f := range findings {
		t.row("  "+f.Subject, strings.ToUpper(f.Result), f.Detail)
		if f.Hint != "" && f.Result != postern.FindingOK {
			t.row("", "", fmt.Sprintf("→ %s", f.Hint))
		}
	}
}
