//go:build !linux

package process

import (
	"os/exec"
	"syscall"
)

func Bind(*exec.Cmd, syscall.Signal) {}
func Isolate(*exec.Cmd)              {}
