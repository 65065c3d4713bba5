// Package coordinator is the registry of a deployment: it decides who may join
// and which names and addresses they get, tells members what they need to know,
// and answers its operators.
//
// A request's road:
//
//	Serve          TLS 1.3, protocol by ALPN; the edge pipe comes back to it
//	control.go     the members' API; who asks is looked up on every request
//	admin.go       the operators' API, described by its OpenAPI document
//	change         what a request does to the registry, in one Store transaction
//	snapshot       the map that follows from it, immutable, published after the commit
//	map streams    each sends what its member has not had yet
//
// What is only true while members are connected lives in presence, in memory.
package coordinator
