package coordinator

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"postern"
)

// maxAdminBody bounds a request's body, in bytes.
const maxAdminBody = 64 << 10

// adminHandler returns the operators' API. Who asks is the context's actor.
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

// operation registers fn, which is to answer op's requests, with its errors as
// Problems.
func operation[I, O any](c *Coordinator, api huma.API, method, path, id, summary string, fn func(context.Context, *I) (*O, error)) {
	problem := api.OpenAPI().Components.Schemas.Schema(reflect.TypeFor[postern.Problem](), true, "")
	op := huma.Operation{
		Method: method, Path: postern.PathAdmin + path, OperationID: id, Summary: summary, MaxBodyBytes: maxAdminBody,
		Responses: map[string]*huma.Response{"default": {
			Description: "Any other outcome (RFC 9457)",
			Content:     map[string]*huma.MediaType{"application/problem+json": {Schema: problem}},
		}},
	}
	huma.Register(api, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := fn(ctx, in)
		if err != nil {
			return nil, statusProblem{c.problemOf(ctx, err)}
		}
		return out, nil
	})
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

type actorKey struct{}

// actorOf returns who asks over the admin API.
func actorOf(ctx context.Context) string {
	if actor, ok := ctx.Value(actorKey{}).(string); ok {
		return actor
	}
	return actorLocal
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
			if c.limits.source.allow(sourceOf(remoteOf(r))) {
				c.refused(r.Context(), actorStranger, "admin.refused", "", id.String(), remoteOf(r), err)
			} else {
				err = tooMany()
			}
			writeProblem(w, c.problemOf(r.Context(), err))
			return
		}
		visitorOf(r).known(actorToken(id))
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), actorKey{}, actorToken(id))))
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
	tokenPath struct {
		Token postern.TokenID `path:"token"`
	}
	nodePath struct {
		Node string `path:"node" doc:"id"`
	}
	gatewayPath struct {
		Gateway string `path:"gateway" doc:"id"`
	}
	hostPath struct {
		Host string `path:"host"`
	}
	auditQuery struct {
		After uint64 `query:"after" doc:"only entries with a greater seq"`
		Limit int    `query:"limit" minimum:"1" maximum:"1000" default:"100"`
	}
)

func (c *Coordinator) registerAdmin(api huma.API) {
	operation(c, api, "GET", "/status", "status", "The deployment at a glance", c.adminStatus)
	operation(c, api, "GET", "/tenants", "list-tenants", "List tenants", c.adminTenants)
	operation(c, api, "POST", "/tenants", "add-tenant", "Add a tenant", c.adminAddTenant)
	operation(c, api, "DELETE", "/tenants/{tenant}", "remove-tenant", "Remove a tenant with its nodes, tokens and routes", c.adminRemoveTenant)
	operation(c, api, "GET", "/tokens", "list-tokens", "List tokens", c.adminTokens)
	operation(c, api, "POST", "/tokens", "create-token", "Issue a token", c.adminCreateToken)
	operation(c, api, "DELETE", "/tokens/{token}", "revoke-token", "Revoke a token", c.adminRevokeToken)
	operation(c, api, "GET", "/nodes", "list-nodes", "List nodes", c.adminNodes)
	operation(c, api, "GET", "/nodes/{node}", "show-node", "Show a node, by id or TENANT/NAME", c.adminNode)
	operation(c, api, "DELETE", "/nodes/{node}", "remove-node", "Remove a node", c.adminRemoveNode)
	operation(c, api, "GET", "/gateways", "list-gateways", "List gateways", c.adminGateways)
	operation(c, api, "DELETE", "/gateways/{gateway}", "remove-gateway", "Remove a gateway", c.adminRemoveGateway)
	operation(c, api, "GET", "/routes", "list-routes", "List routes", c.adminRoutes)
	operation(c, api, "POST", "/routes", "add-route", "Add a custom route", c.adminAddRoute)
	operation(c, api, "DELETE", "/routes/{host}", "remove-route", "Remove a custom route", c.adminRemoveRoute)
	operation(c, api, "GET", "/routes/{host}/match", "match-route", "Where a gateway sends a host name", c.adminMatchRoute)
	operation(c, api, "GET", "/audit", "audit", "Who did what, oldest first", c.adminAudit)
}

func (c *Coordinator) adminStatus(context.Context, *none) (*body[postern.Overview], error) {
	snap := c.snapshot.Load()
	o := postern.Overview{
		Deployment: snap.row.ID, Version: c.cfg.Version, Base: c.cfg.Base, Port: c.cfg.Port,
		Root: c.cfg.Authority.Root(), RootKey: c.cfg.Authority.RootKey(), MapVersion: snap.version,
		Tenants: len(snap.tenants), Gateways: len(snap.gateways), Started: c.started,
	}
	for _, t := range snap.tenants {
		o.Nodes += len(t.nodes)
		o.Routes += len(t.section.Routes)
		for _, n := range t.nodes {
			if c.nodeState(snap, n).State == postern.StateReady {
				o.NodesReady++
			}
		}
	}
	return &body[postern.Overview]{o}, nil
}

func (c *Coordinator) adminTenants(context.Context, *none) (*body[[]postern.Tenant], error) {
	all := []postern.Tenant{}
	snap := c.snapshot.Load()
	for _, t := range snap.tenantsNamed("") {
		all = append(all, snap.tenant(t.Tenant))
	}
	return &body[[]postern.Tenant]{all}, nil
}

func (c *Coordinator) adminAddTenant(ctx context.Context, in *body[postern.TenantRequest]) (*body[postern.Tenant], error) {
	var t Tenant
	err := c.update(ctx, actorOf(ctx), func(ch *change) (err error) {
		t, err = ch.addTenant(in.Body)
		return err
	})
	return &body[postern.Tenant]{c.snapshot.Load().tenant(t)}, err
}

func (c *Coordinator) adminRemoveTenant(ctx context.Context, in *tenantPath) (*none, error) {
	return nil, c.update(ctx, actorOf(ctx), func(ch *change) error { return ch.removeTenant(in.Tenant) })
}

func (c *Coordinator) adminTokens(ctx context.Context, in *tenantFilter) (*body[[]postern.IssuedToken], error) {
	all := []postern.IssuedToken{}
	err := c.cfg.Store.View(ctx, func(tx Tx) error {
		rows, err := tx.Tokens().All()
		if in.Tenant != "" && err == nil {
			rows, err = tx.Tokens().In(in.Tenant)
		}
		for _, t := range rows {
			all = append(all, issuedToken(t, c.cfg.Now()))
		}
		return err
	})
	slices.SortFunc(all, func(a, b postern.IssuedToken) int { return a.Created.Compare(b.Created) })
	return &body[[]postern.IssuedToken]{all}, err
}

func (c *Coordinator) adminCreateToken(ctx context.Context, in *body[postern.TokenRequest]) (*body[postern.CreatedToken], error) {
	t, err := c.issueToken(ctx, actorOf(ctx), in.Body)
	return &body[postern.CreatedToken]{t}, err
}

func (c *Coordinator) adminRevokeToken(ctx context.Context, in *tokenPath) (*none, error) {
	return nil, c.update(ctx, actorOf(ctx), func(ch *change) error { return ch.revokeToken(in.Token) })
}

func (c *Coordinator) adminNodes(_ context.Context, in *tenantFilter) (*body[[]postern.NodeState], error) {
	all := []postern.NodeState{}
	snap := c.snapshot.Load()
	for _, t := range snap.tenantsNamed(in.Tenant) {
		for _, n := range t.nodes {
			all = append(all, c.nodeState(snap, n))
		}
	}
	return &body[[]postern.NodeState]{all}, nil
}

func (c *Coordinator) adminNode(_ context.Context, in *nodePath) (*body[postern.NodeState], error) {
	snap := c.snapshot.Load()
	n := snap.byID[in.Node]
	if tenant, name, ok := strings.Cut(in.Node, "/"); ok && snap.tenants[tenant] != nil {
		for _, m := range snap.tenants[tenant].nodes {
			if m.Name == name {
				n = m
			}
		}
	}
	if n == nil || n.Role != postern.RoleNode {
		return nil, notFound(ErrNotFound, "node", in.Node, "postern nodes list shows all")
	}
	return &body[postern.NodeState]{c.nodeState(snap, n)}, nil
}

func (c *Coordinator) adminRemoveNode(ctx context.Context, in *nodePath) (*none, error) {
	return nil, c.removeByID(ctx, postern.RoleNode, in.Node)
}

func (c *Coordinator) adminRemoveGateway(ctx context.Context, in *gatewayPath) (*none, error) {
	return nil, c.removeByID(ctx, postern.RoleGateway, in.Gateway)
}

func (c *Coordinator) removeByID(ctx context.Context, role postern.Role, id string) error {
	return c.update(ctx, actorOf(ctx), func(ch *change) error {
		m, err := ch.Members().Get(id)
		if err == nil && m.Role != role {
			err = ErrNotFound
		}
		if err != nil {
			return notFound(err, string(role), id, fmt.Sprintf("postern %ss list shows all", role))
		}
		return ch.removeMember(m)
	})
}

func (c *Coordinator) adminGateways(context.Context, *none) (*body[[]postern.GatewayState], error) {
	all := []postern.GatewayState{}
	for _, g := range c.snapshot.Load().gateways {
		all = append(all, c.gatewayState(g))
	}
	return &body[[]postern.GatewayState]{all}, nil
}

func (c *Coordinator) adminRoutes(_ context.Context, in *tenantFilter) (*body[[]postern.RouteState], error) {
	all := []postern.RouteState{}
	snap := c.snapshot.Load()
	for _, t := range snap.tenantsNamed(in.Tenant) {
		for _, r := range t.section.Routes {
			all = append(all, c.routeState(snap, t, r))
		}
	}
	return &body[[]postern.RouteState]{all}, nil
}

func (c *Coordinator) adminAddRoute(ctx context.Context, in *body[postern.RouteRequest]) (*body[postern.RouteState], error) {
	var r Route
	err := c.update(ctx, actorOf(ctx), func(ch *change) (err error) {
		r, err = ch.addRoute(in.Body)
		return err
	})
	if err != nil {
		return nil, err
	}
	return c.adminMatchRoute(ctx, &hostPath{r.Host})
}

func (c *Coordinator) adminRemoveRoute(ctx context.Context, in *hostPath) (*none, error) {
	return nil, c.update(ctx, actorOf(ctx), func(ch *change) error {
		host, err := postern.ParseHost(in.Host)
		if err != nil {
			return invalid(err, "")
		}
		r, err := ch.Routes().Get(host)
		if err != nil {
			return notFound(err, "custom route", host, "postern routes list shows all; routes of kind auto follow from what nodes publish")
		}
		t, err := ch.Tenants().Get(r.Tenant)
		if err != nil {
			return err
		}
		return ch.removeRoute(t, r)
	})
}

func (c *Coordinator) adminMatchRoute(_ context.Context, in *hostPath) (*body[postern.RouteState], error) {
	host, err := postern.ParseHost(in.Host)
	if err != nil {
		return nil, invalid(err, "")
	}
	snap := c.snapshot.Load()
	for _, t := range snap.tenants {
		i, ok := slices.BinarySearchFunc(t.section.Routes, host, func(r postern.Route, host string) int { return cmp.Compare(r.Host, host) })
		if ok {
			return &body[postern.RouteState]{c.routeState(snap, t, t.section.Routes[i])}, nil
		}
	}
	return nil, notFound(ErrNotFound, "route for", host, "a node has to publish the service, or a custom route has to be added")
}

func (c *Coordinator) adminAudit(ctx context.Context, in *auditQuery) (*body[[]postern.AuditEntry], error) {
	all := []postern.AuditEntry{}
	err := c.cfg.Store.View(ctx, func(tx Tx) error {
		rows, err := tx.Audit(in.After, in.Limit)
		for _, r := range rows {
			all = append(all, r.AuditEntry)
		}
		return err
	})
	return &body[[]postern.AuditEntry]{all}, err
}
