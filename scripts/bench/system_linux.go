package main

import (
	"os/exec"
	"syscall"
)

// bind has what cmd runs end with the bench, even if that is killed.
func bind(cmd *exec.Cmd) { attributes(cmd).Pdeathsig = syscall.SIGKILL }

// isolate has cmd run in a network namespace of its own, which has no name.
func isolate(cmd *exec.Cmd) { attributes(cmd).Cloneflags |= syscall.CLONE_NEWNET }

func attributes(cmd *exec.Cmd) *syscall.SysProcAttr {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	return cmd.SysProcAttr
}

// raiseFileLimit lets this process and those that it starts have as many open files
// as the system allows. What a Go program has raised by itself, its children do not
// inherit.
func raiseFileLimit() error {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
}
