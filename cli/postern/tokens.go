package main

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postern"
)

func tokensCommand() *cli.Command {
	return &cli.Command{
		Name: "tokens", Aliases: []string{"token"}, Usage: "what lets machines join and operators in: create, list, revoke",
		Subcommands: []*cli.Command{
			{
				Name: "create", Aliases: []string{"add"}, Action: operate(createToken),
				Usage: "print a new token for nodes, a gateway or an operator",
				Description: "The token goes to standard output and is shown once. The coordinator keeps only what it needs " +
					"to recognise it.",
				UsageText: "postern tokens create --tenant acme > acme.token\n" +
					"postern tokens create --tenant acme --uses 5 --ttl 72h\n" +
					"postern tokens create --gateway > gateway.token\n" +
					"postern tokens create --admin --note \"the office laptop\" > admin.token",
				Flags: adminFlags(append([]cli.Flag{
					&cli.StringFlag{Name: "tenant", Usage: "for nodes of this `TENANT`"},
					&cli.BoolFlag{Name: "gateway", Usage: "for a gateway"},
					&cli.BoolFlag{Name: "admin", Usage: "for operating from afar"},
					&cli.IntFlag{Name: "uses", Usage: "`N`: how many machines it is good for (1 if not given)"},
					&cli.DurationFlag{Name: "ttl", Usage: "`TIME`: how long it is good, such as 72h, at most 720h (24h if not given)"},
					&cli.StringFlag{Name: "note", Usage: "`TEXT`: for people, shown in lists"},
				}, outputFlags()...)...),
			},
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "list the tokens, never their secrets", Action: operate(listTokens),
				UsageText: "postern tokens list\npostern tokens list --tenant acme -o json", Flags: listFlags(tenantFlag()),
			},
			{
				Name: "revoke", Aliases: []string{"remove", "rm"}, ArgsUsage: "ID", Action: operate(revokeToken, "ID"),
				Usage:       "make a token useless at once",
				Description: "Machines that joined with it stay members; `postern nodes remove` is for them.",
				UsageText:   "postern tokens revoke k5zq3xw2n7abcdef", Flags: adminFlags(),
			},
		},
	}
}

func tenantFlag() cli.Flag {
	return &cli.StringFlag{Name: "tenant", Usage: "only those of this `TENANT`"}
}

func createToken(c *cli.Context, a *admin, words []string) error {
	req, err := tokenRequest(c)
	if err != nil {
		return err
	}
	format, err := outputFormat(c)
	if err != nil {
		return err
	}
	var token postern.CreatedToken
	if err := a.call(c.Context, http.MethodPost, "/tokens", req, &token); err != nil {
		return err
	}
	if format != "table" {
		return write(c.App.Writer, format, token, nil)
	}
	return showToken(c, token)
}

func tokenRequest(c *cli.Context) (postern.TokenRequest, error) {
	req := postern.TokenRequest{
		Tenant: c.String("tenant"), Uses: c.Int("uses"),
		TTL: postern.Duration(c.Duration("ttl")), Note: c.String("note"),
	}
	kinds := 0
	for _, given := range []bool{req.Tenant != "", c.Bool("gateway"), c.Bool("admin")} {
		if given {
			kinds++
		}
	}
	switch {
	case kinds != 1:
		return req, misuse("say what the token is for: --tenant NAME, --gateway or --admin",
			"%s: want exactly one of --tenant, --gateway and --admin", c.Command.HelpName)
	case c.IsSet("uses") && req.Uses < 1:
		return req, misuse("one token is good for 1 machine or more", "--uses %d makes no sense", req.Uses)
	case c.IsSet("ttl") && c.Duration("ttl") <= 0:
		return req, misuse("such as --ttl 72h, at most 720h", "--ttl %v makes no sense", c.Duration("ttl"))
	case c.Bool("admin") && c.IsSet("uses"):
		return req, misuse("an admin token is good until it expires or is revoked", "--uses does not go with --admin")
	case c.Bool("gateway"):
		req.Role = postern.RoleGateway
	case c.Bool("admin"):
		req.Kind = postern.AdminToken
	}
	return req, nil
}

// showToken prints the secret, and beside it, for a person, what to do with it.
func showToken(c *cli.Context, t postern.CreatedToken) error {
	until := "until " + minute(t.Expires) + " (" + span(time.Until(t.Expires).Round(time.Minute)) + ")"
	switch {
	case t.Kind == postern.AdminToken:
		note(c, "Token %s operates this deployment from afar, %s.", t.ID, until)
		note(c, "Keep it secret, in a file: postern tenants list --admin-token-file FILE\n")
	case t.Role == postern.RoleGateway:
		note(c, "Token %s lets %s join, %s.", t.ID, count(t.Uses, "gateway"), until)
		note(c, "Keep it secret. On the gateway, with the coordinator's own address:")
		note(c, "  postern gateway join --token-file FILE --coordinator https://COORDINATOR:8443\n")
	default:
		note(c, "Token %s lets %s of %s join, %s.", t.ID, count(t.Uses, "node"), t.Tenant, until)
		note(c, "Keep it secret. On the office machine:")
		note(c, "  postern node join --token-file FILE --publish http://localhost:9000\n")
	}
	_, err := fmt.Fprintln(c.App.Writer, t.Secret)
	return err
}

func listTokens(c *cli.Context, a *admin, words []string) error {
	return list(c, fetch[postern.IssuedToken](a, query("/tokens", c.String("tenant"))), tokenRows)
}

func tokenRows(t *table, tokens []postern.IssuedToken) {
	t.head("ID", "FOR", "STATE", "LEFT", "EXPIRES", "NOTE")
	for _, v := range tokens {
		left := strconv.Itoa(v.Uses)
		if v.Kind == postern.AdminToken {
			left = "-"
		}
		t.row(v.ID.String(), tokenPurpose(v), v.State, left, t.ago(v.Expires), dash(v.Note))
	}
}

func tokenPurpose(t postern.IssuedToken) string {
	switch {
	case t.Kind == postern.AdminToken:
		return "operator"
	case t.Role == postern.RoleGateway:
		return "gateway"
	default:
		return strings.TrimSpace("node of " + t.Tenant)
	}
}

func revokeToken(c *cli.Context, a *admin, words []string) error {
	var id postern.TokenID
	if err := id.UnmarshalText([]byte(words[0])); err != nil {
		return misuse("`postern tokens list` shows the ids", "%w", err)
	}
	if err := a.call(c.Context, http.MethodDelete, "/tokens/"+url.PathEscape(id.String()), nil, nil); err != nil {
		return err
	}
	note(c, "Revoked %s.", id)
	return nil
}
