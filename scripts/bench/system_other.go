//go:build !linux

package main

import (
	"errors"
	"os/exec"
)

func bind(*exec.Cmd)    {}
func isolate(*exec.Cmd) {}

// raiseFileLimit fails: what follows it reads what only Linux has in /proc.
func raiseFileLimit() error {
	return errors.New("this section needs Linux")
}
