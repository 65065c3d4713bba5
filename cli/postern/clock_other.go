//go:build !linux

package main

// clockSynchronised is for systems that we have not learned to ask.
func clockSynchronised() (synchronised, known bool) { return false, false }
