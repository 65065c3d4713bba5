package main

import (
	"runtime"

	"github.com/urfave/cli/v2"
)

// A build is what `version` shows a program.
type build struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name: "version", Usage: "show the program's version", Flags: outputFlags(),
		Action: func(c *cli.Context) error {
			if _, err := operands(c); err != nil {
				return err
			}
			b := build{Version: programVersion(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
			return show(c, b, func(t *table, b build) {
				t.row("postern " + b.Version + " (" + b.Go + ", " + b.OS + "/" + b.Arch + ")")
			})
		},
	}
}
