package node

// A proof says how somebody proved who they are.
type proof struct {
	Issuer  string `json:"issuer,omitempty"`  // URL of the pinned issuer that said so; empty: the portal
	Passkey string `json:"passkey,omitempty"` // id of the passkey of this node that they used besides; empty: none
}
