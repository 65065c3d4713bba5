// Package systemd holds the units that systemd runs Postern with, as they are in the
// packages: see the files beside it, and docs/decisions/systemd.md.
package systemd

import _ "embed"

// Node is the unit of a node.
//
//go:embed postern-node.service
var Node string

// Users is what systemd-sysusers makes of the user that the units name.
//
//go:embed postern.sysusers
var Users string
