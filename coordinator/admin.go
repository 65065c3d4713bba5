package coordinator

import (
	"context"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"postern"
)

// maxAdminBody bounds a request's body, in bytes.
const maxAdminBody = 64 << 10

// adminHandler returns the operators' API. Who asks is the context's operator.
func (c *Coordinator) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", nothingHere)
	cfg := huma.DefaultConfig("Postern admin API", "1")
	cfg.OpenAPIPath = postern.PathAdmin + "/openapi"
	cfg.DocsPath, cfg.SchemasPath = "", "" // the page would load scripts from elsewhere
	cfg.CreateHooks = nil                  // no $schema links in answers
	cfg.Transformers = []huma.Transformer{plainProblem}
	c.registerAdmin(humago.New(mux, cfg))
	return mux
}

type operatorKey struct{}

// as lets o ask next.
func as(o *Operator, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), operatorKey{}, o)))
	})
}

// operation registers fn, which is to answer op's requests, with its errors as
// Problems.
func operation[I, O any](c *Coordinator, api huma.API, method, path, id, summary string, fn func(context.Context, *Operator, *I) (*O, error)) {
	problem := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[postern.Problem](), true, "")
	op := huma.Operation{
		Method: method, Path: postern.PathAdmin + path, OperationID: id, Summary: summary, MaxBodyBytes: maxAdminBody,
		Responses: map[string]*huma.Response{"default": {
			Description: "Any other outcome (RFC 9457)",
			Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: problem}},
		}},
	}
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		// Without an operator this panics: nobody asks who did not come through as.
		out, err := fn(ctx, ctx.Value(operatorKey{}).(*Operator), in)
		if err != nil {
			return nil, statusProblem{c.Problem(ctx, err)}
		}
		return out, nil
	})
}

// answering returns fn in the shape that operation takes, for an answer with a body.
func answering[I, T any](fn func(context.Context, *Operator, *I) (T, error)) func(context.Context, *Operator, *I) (*body[T], error) {
	return func(ctx context.Context, o *Operator, in *I) (*body[T], error) {
		v, err := fn(ctx, o, in)
		return &body[T]{v}, err
	}
}

// silent is answering for an answer without one.
func silent[I any](fn func(context.Context, *Operator, *I) error) func(context.Context, *Operator, *I) (*none, error) {
	return func(ctx context.Context, o *Operator, in *I) (*none, error) { return nil, fn(ctx, o, in) }
}

// A statusProblem is a Problem that huma knows for an error.
type statusProblem struct{ *postern.Problem }

func (p statusProblem) GetStatus() int            { return p.Status }
func (p statusProblem) ContentType(string) string { return "application/problem+json" }

// plainProblem makes a Problem of huma's own errors, which are about requests
// that do not fit the document.
func plainProblem(_ huma.Context, _ string, v any) (any, error) {
	switch e := v.(type) {
	case statusProblem:
		return e.Problem, nil
	case *huma.ErrorModel:
		detail := e.Detail
		for _, d := range e.Errors {
			// The value is left out: it may be a secret in the wrong place.
			detail += fmt.Sprintf("; %s: %s", d.Location, d.Message)
		}
		return postern.NewProblem(e.Status, postern.CodeInvalid, detail, "the API is described at "+postern.PathAdmin+"/openapi.json"), nil
	}
	return v, nil
}

// bearer lets only those with an admin token ask next (RFC 6750, section 2.1).
func (c *Coordinator) bearer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, secret, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") {
			writeProblem(w, unauthorized("an admin token is needed",
				"send it as Authorization: Bearer, or use "+postern.AdminSocket+" on the coordinator's machine"))
			return
		}
		id, err := c.admin(r.Context(), secret)
		if err != nil {
			if c.limits.source.allow(SourceOf(remoteOf(r))) {
				c.refused(r.Context(), ActorStranger, "admin.refused", "", id.String(), remoteOf(r), err)
			} else {
				err = tooMany()
			}
			writeProblem(w, c.Problem(r.Context(), err))
			return
		}
		visitorOf(r).known(actorToken(id))
		as(&Operator{c: c, actor: actorToken(id), all: true}, next).ServeHTTP(w, r)
	})
}

// Shapes of requests and answers, as huma takes them.
type (
	none         struct{}
	body[T any]  struct{ Body T }
	tenantFilter struct {
		Tenant string `query:"tenant" doc:"only this tenant's"`
	}
	tenantPath struct {
		Tenant string `path:"tenant"`
	}
	admissionBody struct {
		Tenant string `path:"tenant"`
		Body   postern.AdmissionRequest
	}
	tokenPath struct {
		Token postern.TokenID `path:"token"`
	}
	nodePath struct {
		Node string `path:"node" doc:"id"`
	}
	nodeChange struct {
		Node string `path:"node" doc:"id"`
		Body postern.NodeChange
	}
	gatewayPath struct {
		Gateway string `path:"gateway" doc:"id"`
	}
	gatewayBody struct {
		Gateway string `path:"gateway" doc:"id"`
		Body    postern.GatewayChange
	}
	hostPath struct {
		Host string `path:"host"`
	}
	claimPath struct {
		Host   string `path:"host"`
		Tenant string `query:"tenant" doc:"whose, where more than one tenant claims the host"`
	}
	auditFilter struct {
		After  uint64 `query:"after" doc:"only entries with a greater seq"`
		Before uint64 `query:"before" doc:"only entries with a smaller seq; 0: all"`
		Newest bool   `query:"newest" doc:"the newest first"`
		Tenant string `query:"tenant" doc:"only this tenant's"`
		Actor  string `query:"actor" doc:"only this actor's"`
		Action string `query:"action" doc:"only those whose action begins so"`
		Limit  int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	}
)

func (c *Coordinator) registerAdmin(api huma.API) {
	operation(c, api, "GET", "/status", "status", "The deployment at a glance",
		answering(func(ctx context.Context, o *Operator, _ *none) (postern.Overview, error) { return o.Status(ctx) }))
	c.registerTenants(api)
	c.registerMembers(api)
	c.registerRoutes(api)
	c.registerUsers(api)
	c.registerIssuers(api)
	operation(c, api, "GET", "/audit", "audit", "Who did what, oldest first unless asked otherwise",
		answering(func(ctx context.Context, o *Operator, in *auditFilter) ([]postern.AuditEntry, error) {
			return o.Audit(ctx, AuditQuery(*in))
		}))
}

func (c *Coordinator) registerTenants(api huma.API) {
	operation(c, api, "GET", "/tenants", "list-tenants", "List tenants",
		answering(func(ctx context.Context, o *Operator, _ *none) ([]postern.Tenant, error) { return o.Tenants(ctx) }))
	operation(c, api, "POST", "/tenants", "add-tenant", "Add a tenant",
		answering(func(ctx context.Context, o *Operator, in *body[postern.TenantRequest]) (postern.Tenant, error) {
			return o.AddTenant(ctx, in.Body)
		}))
	operation(c, api, "DELETE", "/tenants/{tenant}", "remove-tenant", "Remove a tenant with its nodes, tokens, routes and issuers, and people's grants and favourites of it",
		silent(func(ctx context.Context, o *Operator, in *tenantPath) error { return o.RemoveTenant(ctx, in.Tenant) }))
	operation(c, api, "GET", "/tenants/{tenant}/admission", "show-admission", "From where a tenant can be reached",
		answering(func(ctx context.Context, o *Operator, in *tenantPath) (postern.AdmissionState, error) {
			return o.Admission(ctx, in.Tenant)
		}))
	operation(c, api, "PUT", "/tenants/{tenant}/admission", "set-admission", "Say from where a tenant can be reached",
		answering(func(ctx context.Context, o *Operator, in *admissionBody) (postern.AdmissionState, error) {
			return o.SetAdmission(ctx, in.Tenant, in.Body)
		}))
	operation(c, api, "GET", "/tokens", "list-tokens", "List tokens",
		answering(func(ctx context.Context, o *Operator, in *tenantFilter) ([]postern.IssuedToken, error) {
			return o.Tokens(ctx, in.Tenant)
		}))
	operation(c, api, "POST", "/tokens", "create-token", "Issue a token",
		answering(func(ctx context.Context, o *Operator, in *body[postern.TokenRequest]) (postern.CreatedToken, error) {
			return o.CreateToken(ctx, in.Body)
		}))
	operation(c, api, "DELETE", "/tokens/{token}", "revoke-token", "Revoke a token",
		silent(func(ctx context.Context, o *Operator, in *tokenPath) error { return o.RevokeToken(ctx, in.Token) }))
}

func (c *Coordinator) registerMembers(api huma.API) {
	operation(c, api, "GET", "/nodes", "list-nodes", "List nodes",
		answering(func(ctx context.Context, o *Operator, in *tenantFilter) ([]postern.NodeState, error) {
			return o.Nodes(ctx, in.Tenant)
		}))
	operation(c, api, "GET", "/nodes/{node}", "show-node", "Show a node, by id or TENANT/NAME",
		answering(func(ctx context.Context, o *Operator, in *nodePath) (postern.NodeState, error) {
			return o.Node(ctx, in.Node)
		}))
	operation(c, api, "PATCH", "/nodes/{node}", "change-node", "Change how connections come to a node: its weight, and whether it is drained",
		answering(func(ctx context.Context, o *Operator, in *nodeChange) (postern.NodeState, error) {
			return o.ChangeNode(ctx, in.Node, in.Body)
		}))
	operation(c, api, "DELETE", "/nodes/{node}", "remove-node", "Remove a node",
		silent(func(ctx context.Context, o *Operator, in *nodePath) error { return o.RemoveNode(ctx, in.Node) }))
	operation(c, api, "GET", "/gateways", "list-gateways", "List gateways",
		answering(func(ctx context.Context, o *Operator, _ *none) ([]postern.GatewayState, error) {
			return o.Gateways(ctx)
		}))
	operation(c, api, "PATCH", "/gateways/{gateway}", "change-gateway", "Drain a gateway, or end that",
		answering(func(ctx context.Context, o *Operator, in *gatewayBody) (postern.GatewayState, error) {
			return o.ChangeGateway(ctx, in.Gateway, in.Body)
		}))
	operation(c, api, "GET", "/dns", "dns", "Which addresses of gateways are to be in DNS",
		answering(func(ctx context.Context, o *Operator, _ *none) (postern.DNSState, error) { return o.DNS(ctx) }))
	operation(c, api, "DELETE", "/gateways/{gateway}", "remove-gateway", "Remove a gateway",
		silent(func(ctx context.Context, o *Operator, in *gatewayPath) error { return o.RemoveGateway(ctx, in.Gateway) }))
}

func (c *Coordinator) registerRoutes(api huma.API) {
	operation(c, api, "GET", "/routes", "list-routes", "List routes",
		answering(func(ctx context.Context, o *Operator, in *tenantFilter) ([]postern.RouteState, error) {
			return o.Routes(ctx, in.Tenant)
		}))
	operation(c, api, "POST", "/routes", "add-route", "Claim a host name outside the base domain for a tenant's service",
		answering(func(ctx context.Context, o *Operator, in *body[postern.RouteRequest]) (postern.RouteState, error) {
			return o.AddRoute(ctx, in.Body)
		}))
	operation(c, api, "DELETE", "/routes/{host}", "remove-route", "Remove a custom route, or the claim on it",
		silent(func(ctx context.Context, o *Operator, in *claimPath) error {
			return o.RemoveRoute(ctx, in.Host, in.Tenant)
		}))
	operation(c, api, "GET", "/routes/{host}/match", "match-route", "Where a gateway sends a host name",
		answering(func(ctx context.Context, o *Operator, in *hostPath) (postern.RouteState, error) {
			return o.MatchRoute(ctx, in.Host)
		}))
	operation(c, api, "POST", "/routes/{host}/check", "check-route", "Ask DNS now what is missing for a custom route",
		answering(func(ctx context.Context, o *Operator, in *claimPath) (postern.RouteCheck, error) {
			return o.CheckRoute(ctx, in.Host, in.Tenant)
		}))
}
