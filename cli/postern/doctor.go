package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/node"
)

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name: "doctor", ArgsUsage: "[HOST]", Usage: "find out what is wrong with the node on this machine, and what to do", Action: doctor,
		Description: "It asks the running node, asks DNS for its host names as a certificate authority does, says who may get " +
			"certificates for them, and connects to where they lead to see whether this node's own key is shown there. It exits with " +
			"1 if something keeps people out or puts somebody in between.\n\n" +
			"Grades of a name: A, below the operator's domain: whoever controls the operator's DNS could get a certificate, and " +
			"everybody could see it in the public logs. B, the company's own name with its own CAA records: neither gateway nor " +
			"operator can get one. C, the company's own name by CNAME: the operator's CAA records count, not the company's.",
		UsageText: "postern doctor\npostern doctor erp.acme.example --resolver 9.9.9.9",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "resolver", Usage: "`ADDRESS` of the DNS server to ask in place of the system's"},
			dataFlag("the node's data `DIR`ectory"),
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
	s, err := node.QueryStatus(c.Context, nodeSocket(c))
	if err != nil {
		return err
	}
	all, err := node.Examine(c.Context, s, c.String("resolver"), words)
	if err != nil {
		return err
	}
	if err := show(c, all, func(t *table, all []node.Diagnosis) { diagnosisFields(t, s, all) }); err != nil {
		return err
	}
	for _, d := range all {
		if !d.Healthy() {
			return node.ErrUnhealthy
		}
	}
	return nil
}

func diagnosisFields(t *table, s node.Status, all []node.Diagnosis) {
	for _, d := range all {
		name := d.Host
		if name == "" {
			name = s.Member.Tenant + "/" + s.Member.Name
		}
		t.row(name)
		findingRows(t, d.Findings)
	}
	t.fields = true
}

// findingRows lists findings, each with what to do about it.
func findingRows(t *table, findings []postern.Finding) {
	for _, f := range findings {
		t.row("  "+f.Subject, strings.ToUpper(f.Result), f.Detail)
		if f.Hint != "" && f.Result != "ok" {
			t.row("", "", fmt.Sprintf("→ %s", f.Hint))
		}
	}
}
