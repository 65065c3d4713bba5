package process

import (
	"os/exec"
	"syscall"
)

// Bind has what cmd runs get a signal if the bench ends, even if that is killed.
func Bind(cmd *exec.Cmd, s syscall.Signal) { attributes(cmd).Pdeathsig = s }

// Isolate has cmd run in a network namespace of its own, which has no name.
func Isolate(cmd *exec.Cmd) { attributes(cmd).Cloneflags |= syscall.CLONE_NEWNET }

func attributes(cmd *exec.Cmd) *syscall.SysProcAttr {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	return cmd.SysProcAttr
}
