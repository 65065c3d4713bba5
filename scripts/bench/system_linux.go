package main

import "syscall"

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
