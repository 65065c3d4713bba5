//go:build unix && !linux

package main

import "syscall"

// childAttr keeps Ctrl-C at the terminal from the children, whom the demo ends
// in order.
func childAttr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
