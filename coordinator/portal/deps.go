package portal

// Keeps the module in go.mod until the code that uses it is here.
import _ "github.com/zitadel/oidc/v3/pkg/op"
