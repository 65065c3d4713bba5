//go:build e2e

package e2e

// children are the parts that this test binary can be started again in.
var children = map[string]func() error{
	"nodes":     nodes,
	"observer":  observe,
	"patient":   patient,
	"proxy":     proxy,
	"later":     later,
	"half open": floodHalfOpen,
	"big site":  bigSite,
	"visits":    visits,
	"flood":     flood,
}
