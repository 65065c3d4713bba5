package portal

// Keeps the modules in go.mod until the code that uses them is here.
import (
	_ "github.com/coreos/go-oidc/v3/oidc"
	_ "github.com/go-jose/go-jose/v4"
	_ "github.com/go-webauthn/webauthn/webauthn"
	_ "github.com/zitadel/oidc/v3/pkg/op"
	_ "golang.org/x/oauth2"
	_ "rsc.io/qr"
)
