package coordinator

import (
	"context"

	"github.com/danielgtaylor/huma/v2"

	"postern"
)

type (
	userPath struct {
		User string `path:"user" doc:"id or login"`
	}
	grantPath struct {
		User   string `path:"user" doc:"id or login"`
		Tenant string `path:"tenant"`
	}
	grantBody struct {
		User   string `path:"user" doc:"id or login"`
		Tenant string `path:"tenant"`
		Body   postern.GrantRequest
	}
	issuerPath struct {
		Issuer string `path:"issuer"`
	}
	issuerBody struct {
		Issuer string `path:"issuer"`
		Body   postern.IssuerRequest
	}
)

func (c *Coordinator) registerUsers(api huma.API) {
	operation(c, api, "GET", "/users", "list-users", "List users",
		answering(func(ctx context.Context, o *Operator, in *tenantFilter) ([]postern.UserState, error) {
			return o.Users(ctx, in.Tenant)
		}))
	operation(c, api, "POST", "/users", "add-user", "Add a user, who may open nothing yet",
		answering(func(ctx context.Context, o *Operator, in *body[postern.UserRequest]) (postern.UserState, error) {
			return o.AddUser(ctx, in.Body)
		}))
	operation(c, api, "GET", "/users/{user}", "show-user", "Show a user",
		answering(func(ctx context.Context, o *Operator, in *userPath) (postern.UserState, error) {
			return o.User(ctx, in.User)
		}))
	operation(c, api, "DELETE", "/users/{user}", "remove-user", "Remove a user with their grants and sessions",
		silent(func(ctx context.Context, o *Operator, in *userPath) error { return o.RemoveUser(ctx, in.User) }))
	operation(c, api, "POST", "/users/{user}/invite", "invite-user", "Make a link by which a user chooses how to sign in",
		answering(func(ctx context.Context, o *Operator, in *userPath) (postern.Invite, error) {
			return o.InviteUser(ctx, in.User)
		}))
	operation(c, api, "POST", "/users/{user}/disable", "disable-user", "Sign a user out everywhere and keep them out",
		answering(func(ctx context.Context, o *Operator, in *userPath) (postern.UserState, error) {
			return o.DisableUser(ctx, in.User)
		}))
	operation(c, api, "POST", "/users/{user}/enable", "enable-user", "Let a user in again",
		answering(func(ctx context.Context, o *Operator, in *userPath) (postern.UserState, error) {
			return o.EnableUser(ctx, in.User)
		}))
	operation(c, api, "PUT", "/users/{user}/grants/{tenant}", "grant", "Say what a user may open of a tenant",
		answering(func(ctx context.Context, o *Operator, in *grantBody) (postern.UserState, error) {
			return o.Grant(ctx, in.User, in.Tenant, in.Body)
		}))
	operation(c, api, "DELETE", "/users/{user}/grants/{tenant}", "revoke", "Take a tenant from a user",
		answering(func(ctx context.Context, o *Operator, in *grantPath) (postern.UserState, error) {
			return o.Revoke(ctx, in.User, in.Tenant)
		}))
}

func (c *Coordinator) registerIssuers(api huma.API) {
	operation(c, api, "GET", "/issuers", "list-issuers", "List external OpenID issuers",
		answering(func(ctx context.Context, o *Operator, _ *none) ([]postern.IssuerState, error) { return o.Issuers(ctx) }))
	operation(c, api, "PUT", "/issuers/{issuer}", "put-issuer", "Let a tenant's people sign in at an external OpenID issuer",
		answering(func(ctx context.Context, o *Operator, in *issuerBody) (postern.IssuerState, error) {
			return o.PutIssuer(ctx, in.Issuer, in.Body)
		}))
	operation(c, api, "DELETE", "/issuers/{issuer}", "remove-issuer", "Remove an external issuer with what it granted",
		silent(func(ctx context.Context, o *Operator, in *issuerPath) error { return o.RemoveIssuer(ctx, in.Issuer) }))
}
