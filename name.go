package postern

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/net/idna"
)

// DefaultService is the name of the service that answers at the tenant's own
// host name. All others answer one label below it.
const DefaultService = "default"

// Reserved are the labels below the base domain that no tenant can have.
var Reserved = []string{
	"admin", "api", "control", "coordinator", "gateway", "login", "mail",
	"portal", "postern", "relay", "status", "www",
}

// CheckLabel reports what is wrong with s as the name of a thing, what being
// "tenant", "service" or "node": one lower-case DNS label (RFC 1123, section
// 2.1), not an A-label, of at most 63 characters.
func CheckLabel(what, s string) error {
	switch {
	case s == "":
		return fmt.Errorf("the %s name is empty", what)
	case len(s) > 63:
		return fmt.Errorf("%s name %q has %d characters; a DNS label has at most 63", what, s, len(s))
	case s[0] == '-' || s[len(s)-1] == '-':
		return fmt.Errorf("%s name %q starts or ends with a hyphen", what, s)
	case len(s) > 3 && s[2:4] == "--":
		return fmt.Errorf("%s name %q has hyphens where IDNA keeps them for itself", what, s)
	}
	for _, c := range s {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return fmt.Errorf("%s name %q is no DNS label: %q is not one of a to z, 0 to 9 and -", what, s, c)
		}
	}
	return nil
}

// CheckTenant is CheckLabel for tenants, minus the Reserved names.
func CheckTenant(s string) error {
	if err := CheckLabel("tenant", s); err != nil {
		return err
	}
	if slices.Contains(Reserved, s) {
		return fmt.Errorf("tenant name %q is reserved for the deployment itself", s)
	}
	return nil
}

// CheckHost reports what is wrong with s as a host name in its wire form: lower
// case, A-labels, no trailing dot, at most 253 characters, not an IP address.
// It is what a server name is held against, so there is one spelling a name.
func CheckHost(s string) error {
	if s == "" || len(s) > 253 {
		return fmt.Errorf("host name %q: want 1 to 253 characters", s)
	}
	if _, err := netip.ParseAddr(s); err == nil {
		return fmt.Errorf("host name %q is an IP address", s)
	}
	numeric := true
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return fmt.Errorf("host name %q: label %q is no DNS label", s, label)
		}
		numeric = true
		for i := range len(label) {
			switch c := label[i]; {
			case c >= '0' && c <= '9':
			case c >= 'a' && c <= 'z', c == '-':
				numeric = false
			default:
				return fmt.Errorf("host name %q: %q is not one of a to z, 0 to 9, hyphen and dot", s, c)
			}
		}
	}
	// A last label of digits only would be read as an IPv4 address by some
	// clients (WHATWG URL, section 3.5).
	if numeric {
		return fmt.Errorf("host name %q ends in a number", s)
	}
	return nil
}

// ParseHost turns what a person typed into the wire form that CheckHost
// accepts: lower case, A-labels for what is not ASCII (RFC 5891, section 5), a
// trailing dot removed.
func ParseHost(s string) (string, error) {
	host, err := idna.Lookup.ToASCII(strings.TrimSuffix(strings.TrimSpace(s), "."))
	if err != nil {
		return "", fmt.Errorf("host name %q: %w", s, err)
	}
	return host, CheckHost(host)
}

// IsLocalhost reports whether host is this machine, whatever a resolver thinks (RFC 6761,
// section 6.3).
func IsLocalhost(host string) bool {
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// ServiceHost returns the host name of a tenant's service below base.
func ServiceHost(service, tenant, base string) string {
	if service == DefaultService {
		return tenant + "." + base
	}
	return service + "." + tenant + "." + base
}
