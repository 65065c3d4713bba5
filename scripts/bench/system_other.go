//go:build !linux

package main

import "errors"

// raiseFileLimit fails: what follows it reads what only Linux has in /proc.
func raiseFileLimit() error {
	return errors.New("this section needs Linux")
}
