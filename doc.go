// Package postern holds the words that Postern's processes share, and the
// control protocol in which they use them: keys, tokens, names, and the JSON
// that crosses between a coordinator, its members and its operators. It is data
// and text encodings; behaviour lives in the rooms below it.
//
// The words, one a thing:
//
//   - A tenant is a customer company. Everything below belongs to one tenant.
//   - A node is a machine on the tenant's premises, the HTTPS server that
//     browsers talk to.
//   - A service is what a node publishes: a name and an upstream.
//   - A route is a host name, the tenant's service that it stands for, and the
//     node or nodes that serve it.
//   - A gateway is the public door. It splices still encrypted bytes.
//   - The coordinator is the registry that tells members what they need to know.
//   - A member is a node or a gateway: whoever has an identity, a WireGuard key
//     and a virtual address.
//   - The map is what the coordinator tells a member.
//   - The overlay is the WireGuard network; each member has one IPv6 address.
//   - To splice is to copy two connections into each other until both are done.
//
// docs/protocol.md tells the same story for readers who will write a peer.
package postern
