package main

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"postern"
)

func issuersCommand() *cli.Command {
	return &cli.Command{
		Name: "issuers", Aliases: []string{"issuer"}, Usage: "where else a company's people sign in (OpenID Connect): list, add, remove",
		Subcommands: []*cli.Command{
			{
				Name: "add", ArgsUsage: "NAME", Action: operate(addIssuer, "NAME"),
				Usage: "let a company's people sign in at its own OpenID issuer, or change how",
				Description: "The issuer is Microsoft Entra, Google, Keycloak or whatever speaks OpenID Connect. Register a client " +
					"there first; the redirect URI that it asks for is printed by this command, and is " +
					"https://portal.DOMAIN/sign-in/callback/NAME.\n\n" +
					"--map says what a group of the issuer is worth here: VALUE=ROLE or VALUE=ROLE:GROUP,GROUP, where VALUE is " +
					"one of the values of the groups claim, ROLE is owner, admin or member, and each GROUP a group that " +
					"services here name. VALUE * is everybody who can sign in at the issuer. Who has several gets the most " +
					"powerful role and all groups; who has none stays outside. It is looked up anew at each sign-in.",
				UsageText: "postern issuers add acme --tenant acme --url https://login.acme.example --client-id postern \\\n" +
					"  --client-secret-file secret.txt --map '*=member' --map bookkeepers=member:accounting --map it=admin",
				Flags: adminFlags(append([]cli.Flag{
					&cli.StringFlag{Name: "tenant", Usage: "the `TENANT` whose people sign in there"},
					&cli.StringFlag{Name: "url", Usage: "the issuer's `URL`, as its discovery document says"},
					&cli.StringFlag{Name: "client-id", Usage: "`ID` of the client that is registered there"},
					&cli.StringFlag{Name: "client-secret-file", Usage: "`FILE`: holds the client's secret, - for standard input (the one held if not given)"},
					&cli.StringFlag{Name: "title", Usage: "`TEXT` on the button (NAME if not given)"},
					&cli.StringFlag{Name: "groups-claim", Usage: "`CLAIM` of its ID tokens that tells groups (groups if not given)"},
					&cli.GenericFlag{Name: "map", Value: new(texts), Usage: "`VALUE=ROLE` that a group is worth, see above; may be repeated"},
				}, outputFlags()...)...),
			},
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "list the issuers, never their secrets", Action: operate(listIssuers),
				UsageText: "postern issuers list\npostern issuers list -o json", Flags: listFlags(),
			},
			{
				Name: "remove", Aliases: []string{"rm"}, ArgsUsage: "NAME", Action: operate(removeIssuer, "NAME"),
				Usage:       "let nobody sign in there any more",
				Description: "What it granted is taken back, and whoever signed in there is signed out. The people stay listed.",
				UsageText:   "postern issuers remove acme", Flags: adminFlags(),
			},
		},
	}
}

// issuerRequest returns what the options say.
func issuerRequest(c *cli.Context) (postern.IssuerRequest, error) {
	req := postern.IssuerRequest{
		Title: c.String("title"), URL: c.String("url"), ClientID: c.String("client-id"),
		Tenant: c.String("tenant"), GroupsClaim: c.String("groups-claim"),
	}
	for _, needed := range []string{"tenant", "url", "client-id", "map"} {
		if !c.IsSet(needed) {
			return req, misuse("`"+c.Command.HelpName+" --help` tells what it is", "%s: --%s is missing", c.Command.HelpName, needed)
		}
	}
	var err error
	if req.Roles, err = parseRoles(*c.Generic("map").(*texts)); err != nil {
		return req, err
	}
	if file := c.String("client-secret-file"); file != "" {
		secret, err := readSecret(c, "client secret", file)
		if err != nil {
			return req, err
		}
		if req.ClientSecret = strings.TrimSpace(secret); req.ClientSecret == "" {
			return req, fail("put the secret into it that the issuer shows for the client", fmt.Errorf("client secret file %s: it is empty", file))
		}
	}
	return req, nil
}

// parseRoles reads what --map says, VALUE=ROLE or VALUE=ROLE:GROUP,GROUP; VALUE may
// itself have equals signs, as names in LDAP do.
func parseRoles(specs []string) (map[string]postern.IssuerRole, error) {
	roles := make(map[string]postern.IssuerRole)
	for _, spec := range specs {
		at := strings.LastIndexByte(spec, '=')
		if at < 1 {
			return nil, misuse("such as --map bookkeepers=member:accounting, or --map '*=member' for everybody", "--map %s: want VALUE=ROLE", spec)
		}
		value := spec[:at]
		role, list, grouped := strings.Cut(spec[at+1:], ":")
		var groups []string
		if grouped {
			groups = strings.Split(list, ",")
		}
		if err := checkRole("--map "+spec, role); err != nil {
			return nil, err
		}
		for _, g := range groups {
			if err := postern.CheckLabel("group", g); err != nil {
				return nil, misuse("such as --map bookkeepers=member:accounting,board", "--map %s: %w", spec, err)
			}
		}
		if _, twice := roles[value]; twice {
			return nil, misuse("give it one role, with all its groups behind a colon", "--map: %q is there twice", value)
		}
		roles[value] = postern.IssuerRole{Role: role, Groups: groups}
	}
	return roles, nil
}

func addIssuer(c *cli.Context, a *admin, words []string) error {
	if err := postern.CheckLabel("issuer", words[0]); err != nil {
		return misuse("a name is a DNS label such as acme: letters a to z, digits and hyphens", "%w", err)
	}
	req, err := issuerRequest(c)
	if err != nil {
		return err
	}
	var i postern.IssuerState
	if err := a.call(c.Context, http.MethodPut, "/issuers/"+url.PathEscape(words[0]), req, &i); err != nil {
		return err
	}
	if isData(c) {
		return show(c, i, nil)
	}
	note(c, "People of %s can sign in with %s.", i.Tenant, i.Title)
	note(c, "Register this redirect URI there, exactly:\n")
	_, err = fmt.Fprintln(c.App.Writer, i.Callback)
	return err
}

func listIssuers(c *cli.Context, a *admin, words []string) error {
	return list(c, fetch[postern.IssuerState](a, "/issuers"), issuerRows)
}

func issuerRows(t *table, issuers []postern.IssuerState) {
	t.head("NAME", "TENANT", "URL", "CLIENT", "ROLES", "CREATED")
	for _, i := range issuers {
		var roles []string
		for _, value := range slices.Sorted(maps.Keys(i.Roles)) {
			r := i.Roles[value]
			text := value + "=" + r.Role
			if r.Role == "" {
				text += postern.TenantMember
			}
			if len(r.Groups) > 0 {
				text += ":" + strings.Join(r.Groups, ",")
			}
			roles = append(roles, text)
		}
		t.row(i.Name, i.Tenant, i.URL, i.ClientID, strings.Join(roles, " "), t.ago(i.Created))
	}
}

func removeIssuer(c *cli.Context, a *admin, words []string) error {
	if err := a.call(c.Context, http.MethodDelete, "/issuers/"+url.PathEscape(words[0]), nil, nil); err != nil {
		return err
	}
	note(c, "Removed %s.", words[0])
	return nil
}
