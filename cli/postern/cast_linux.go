package main

import "syscall"

// childAttr keeps Ctrl-C at the terminal from the children, whom the demo ends
// in order, and has the kernel end them if the demo itself is killed.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
