package main

import (
	"github.com/urfave/cli/v2"
)

// rotateKeyCommand has the member on this machine, a node or a gateway, make another
// WireGuard key; rotate returns it.
func rotateKeyCommand(role string, data cli.Flag, rotate func(*cli.Context) (string, error)) *cli.Command {
	return &cli.Command{
		Name: "rotate-key", Usage: "make another key for the tunnels of the " + role + " on this machine, now",
		Description: "That happens by itself every 30 days. Connections go on. The coordinator has to be there.",
		UsageText:   "postern " + role + " rotate-key", Flags: []cli.Flag{data},
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			key, err := rotate(c)
			if err != nil {
				return err
			}
			note(c, "The tunnels have the key %s now.", key)
			return nil
		},
	}
}
