package main

import "syscall"

// childAttr keeps Ctrl-C at the console from the children, whom the demo ends in
// order.
func childAttr() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{CreationFlags: syscall.CREATE_NEW_PROCESS_GROUP}
}
