//go:build !linux && !darwin && !windows

package main

import "errors"

// space is for systems that we have not learned to ask.
func space(string) (free, all uint64, err error) { return 0, 0, errors.ErrUnsupported }

// fileLimit returns how many files this process may have open, 0 if that is not known.
func fileLimit() int { return 0 }
