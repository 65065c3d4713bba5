//go:build !race

package netstack

// soakConnections is an hour's worth of a busy node's, ten a second.
const soakConnections = 36_000
