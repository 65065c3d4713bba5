//go:build race

package netstack

// soakConnections is a quarter of an hour's: the race detector makes each take
// several times as long.
const soakConnections = 9_000
