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

func usersCommand() *cli.Command {
	const login = "LOGIN"
	return &cli.Command{
		Name: "users", Aliases: []string{"user"}, Usage: "people who sign in at the portal: add, invite, grant, revoke and more",
		Subcommands: []*cli.Command{
			{
				Name: "add", ArgsUsage: login, Action: operate(addUser, login), Usage: "add a person, and say what they may open",
				Description: "LOGIN is an e-mail address, or a name without spaces. A person has no password until they choose " +
					"one by the link that --invite prints; no e-mail is sent. Without --tenant they may open nothing yet.",
				UsageText: "postern users add anna@acme.example --name \"Anna Ahlberg\" --tenant acme --invite\n" +
					"postern users add bert@acme.example --tenant acme --group accounting --service books\n" +
					"postern users add cleo@provider.example --operator --invite",
				Flags: adminFlags(append(append([]cli.Flag{
					&cli.StringFlag{Name: "name", Usage: "the person's `NAME` for people"},
					&cli.StringFlag{Name: "tenant", Usage: "grant them this `TENANT`"},
				}, grantFlags()...), append([]cli.Flag{
					&cli.BoolFlag{Name: "operator", Usage: "they operate the whole deployment"},
					&cli.BoolFlag{Name: "invite", Usage: "print an invitation for them"},
				}, outputFlags()...)...)...),
			},
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "list the people and what they may open", Action: operate(listUsers),
				Description: "STATE is invited until they have a password, a passkey or an external issuer, disabled if they are " +
					"kept out, else active.",
				UsageText: "postern users list\npostern users list --tenant acme -o json", Flags: listFlags(tenantFlag()),
			},
			{
				Name: "show", ArgsUsage: login, Usage: "show all that is known of a person", Action: operate(showUser, login),
				UsageText: "postern users show anna@acme.example", Flags: adminFlags(outputFlags()...),
			},
			{
				Name: "invite", ArgsUsage: login, Usage: "print a link by which a person chooses how to sign in", Action: operate(inviteUser, login),
				Description: "The link goes to standard output. It is good once, for 72 hours, and makes earlier ones void. Whoever " +
					"opens it is that person from then on: send it on a way that only they read. It also helps who forgot " +
					"their password or lost their passkey.",
				UsageText: "postern users invite anna@acme.example", Flags: adminFlags(outputFlags()...),
			},
			{
				Name: "grant", ArgsUsage: "LOGIN TENANT", Usage: "let a person open a company's services", Action: operate(grantUser, login, "TENANT"),
				Description: "It takes the place of all that was granted to them of this company before. Members open what the " +
					"services' access says; owners and admins open everything and manage the company's people.",
				UsageText: "postern users grant anna@acme.example acme\n" +
					"postern users grant anna@acme.example acme --group accounting --group board\n" +
					"postern users grant anna@acme.example acme --role admin",
				Flags: adminFlags(append(grantFlags(), outputFlags()...)...),
			},
			{
				Name: "revoke", ArgsUsage: "LOGIN TENANT", Usage: "take a company from a person", Action: operate(revokeUser, login, "TENANT"),
				Description: "Within two seconds its nodes end what they have open.",
				UsageText:   "postern users revoke anna@acme.example acme", Flags: adminFlags(outputFlags()...),
			},
			{
				Name: "disable", ArgsUsage: login, Usage: "sign a person out everywhere and keep them out", Action: operate(switchUser("disable", "Disabled"), login),
				UsageText: "postern users disable anna@acme.example", Flags: adminFlags(outputFlags()...),
			},
			{
				Name: "enable", ArgsUsage: login, Usage: "let a person in again who was disabled", Action: operate(switchUser("enable", "Enabled"), login),
				UsageText: "postern users enable anna@acme.example", Flags: adminFlags(outputFlags()...),
			},
			{
				Name: "remove", Aliases: []string{"rm"}, ArgsUsage: login, Usage: "remove a person with all that was granted to them", Action: operate(removeUser, login),
				Description: "Their sessions end within two seconds. A person who has a way to sign in is removed with --yes only.",
				UsageText:   "postern users remove anna@acme.example --yes",
				Flags:       adminFlags(&cli.BoolFlag{Name: "yes", Usage: "also if they can sign in"}),
			},
		},
	}
}

// grantFlags say what a person may open of a tenant.
func grantFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "role", Usage: "`ROLE`: owner, admin or member (member if not given)"},
		&cli.StringSliceFlag{Name: "group", Usage: "`GROUP` that they are in, as services name it; may be repeated"},
		&cli.StringSliceFlag{Name: "service", Usage: "only this `SERVICE` of those that members may open; may be repeated"},
	}
}

// grantRequest returns what grantFlags say.
func grantRequest(c *cli.Context) (postern.GrantRequest, error) {
	req := postern.GrantRequest{Role: c.String("role"), Groups: c.StringSlice("group"), Services: c.StringSlice("service")}
	if err := checkRole("--role", req.Role); err != nil {
		return req, err
	}
	for _, g := range req.Groups {
		if err := postern.CheckLabel("group", g); err != nil {
			return req, misuse("such as --group accounting", "--group: %w", err)
		}
	}
	for _, s := range req.Services {
		if err := postern.CheckLabel("service", s); err != nil {
			return req, misuse("`postern nodes show` lists the services of a node", "--service: %w", err)
		}
	}
	return req, nil
}

func checkRole(option, role string) error {
	if role == "" {
		return nil
	}
	for _, r := range postern.TenantRoles {
		if r == role {
			return nil
		}
	}
	return misuse("choose one of "+strings.Join(postern.TenantRoles, ", "), "%s: there is no role %q", option, role)
}

// userPath returns the path of the user with that login or id, and of what is below.
func userPath(login string, below ...string) (string, error) {
	if strings.TrimSpace(login) == "" {
		return "", misuse("`postern users list` shows all", "the login is empty")
	}
	path := "/users/" + url.PathEscape(login)
	for _, b := range below {
		path += "/" + url.PathEscape(b)
	}
	return path, nil
}

// An addedUser is what `users add` shows a program.
type addedUser struct {
	User   postern.UserState `json:"user"`
	Invite *postern.Invite   `json:"invite,omitempty"`
}

func addUser(c *cli.Context, a *admin, words []string) error {
	grant, err := grantRequest(c)
	if err != nil {
		return err
	}
	format, err := outputFormat(c)
	if err != nil {
		return err
	}
	tenant := c.String("tenant")
	if tenant == "" && (c.IsSet("role") || c.IsSet("group") || c.IsSet("service")) {
		return misuse("name the company with --tenant NAME", "--role, --group and --service are about a company")
	}
	var added addedUser
	req := postern.UserRequest{Login: words[0], Name: c.String("name"), Operator: c.Bool("operator")}
	if err := a.call(c.Context, http.MethodPost, "/users", req, &added.User); err != nil {
		return err
	}
	login := added.User.Login
	if tenant != "" {
		path, err := userPath(added.User.ID, "grants", tenant)
		if err == nil {
			err = a.call(c.Context, http.MethodPut, path, grant, &added.User)
		}
		if err != nil {
			return fail("grant it yourself: postern users grant "+login+" TENANT",
				fmt.Errorf("%q is added, and may open nothing: %w", login, err))
		}
	}
	if c.Bool("invite") {
		added.Invite = new(postern.Invite)
		if err := a.invite(c, added.User.ID, added.Invite); err != nil {
			return fail("invite them yourself: postern users invite "+login,
				fmt.Errorf("%q is added, the invitation is not: %w", login, err))
		}
		added.User = added.Invite.User
	}
	if format != "table" {
		return write(c.App.Writer, format, added, nil)
	}
	note(c, "Added %s: %s.", login, opens(added.User))
	if added.Invite != nil {
		return showInvite(c, *added.Invite)
	}
	note(c, "To let them choose a password or a passkey: postern users invite %s", login)
	return nil
}

// opens says what a person may open, for people.
func opens(u postern.UserState) string {
	var words []string
	if u.Operator {
		words = append(words, "operates the deployment")
	}
	for _, g := range u.Grants {
		words = append(words, g.Role+" of "+g.Tenant)
	}
	if len(words) == 0 {
		return "may open nothing yet"
	}
	return strings.Join(words, ", ")
}

func (a *admin) invite(c *cli.Context, user string, into *postern.Invite) error {
	path, err := userPath(user, "invite")
	if err != nil {
		return err
	}
	return a.call(c.Context, http.MethodPost, path, nil, into)
}

func inviteUser(c *cli.Context, a *admin, words []string) error {
	var i postern.Invite
	if err := a.invite(c, words[0], &i); err != nil {
		return err
	}
	if isData(c) {
		return show(c, i, nil)
	}
	return showInvite(c, i)
}

// showInvite prints the link, and beside it, for a person, what to do with it.
func showInvite(c *cli.Context, i postern.Invite) error {
	note(c, "This link lets %s choose a password or a passkey, once, until %s (%s).", i.User.Login,
		minute(i.Expires), span(time.Until(i.Expires).Round(time.Minute)))
	note(c, "Whoever opens it is that person: send it on a way that only they read.\n")
	_, err := fmt.Fprintln(c.App.Writer, i.URL)
	return err
}

func listUsers(c *cli.Context, a *admin, words []string) error {
	return list(c, fetch[postern.UserState](a, query("/users", c.String("tenant"))), userRows)
}

func userRows(t *table, users []postern.UserState) {
	t.head("LOGIN", "NAME", "STATE", "OPENS", "SIGNED IN")
	for _, u := range users {
		var grants []string
		if u.Operator {
			grants = append(grants, "deployment:operator")
		}
		for _, g := range u.Grants {
			grants = append(grants, g.Tenant+":"+g.Role)
		}
		t.row(u.Login, dash(u.Name), u.State, commas(grants), t.ago(u.SignedIn))
	}
}

func showUser(c *cli.Context, a *admin, words []string) error {
	u, err := getUser(c, a, words[0])
	if err != nil {
		return err
	}
	return show(c, u, userFields)
}

// getUser finds a user by login or id.
func getUser(c *cli.Context, a *admin, login string) (u postern.UserState, err error) {
	path, err := userPath(login)
	if err == nil {
		err = a.call(c.Context, http.MethodGet, path, nil, &u)
	}
	return u, err
}

func userFields(t *table, u postern.UserState) {
	t.field("Login", u.Login)
	t.field("Name", dash(u.Name))
	t.field("State", u.State)
	t.field("ID", u.ID)
	if u.Operator {
		t.field("Operates", "the deployment")
	}
	for _, g := range u.Grants {
		t.field("Grant", g.Role+" of "+g.Tenant)
		if len(g.Groups) > 0 {
			t.field("", "groups "+commas(g.Groups))
		}
		if len(g.Services) > 0 {
			t.field("", "only services "+commas(g.Services))
		}
		if g.Issuer != "" {
			t.field("", "by the issuer "+g.Issuer)
		}
	}
	password := "no"
	if u.Password {
		password = "yes"
	}
	t.field("Password", password)
	t.field("Passkeys", strconv.Itoa(u.Passkeys))
	if !u.Invited.IsZero() {
		t.field("Invited", "until "+t.when(u.Invited))
	}
	t.field("Signed in", t.when(u.SignedIn))
	t.field("Added", t.when(u.Created))
}

func grantUser(c *cli.Context, a *admin, words []string) error {
	req, err := grantRequest(c)
	if err != nil {
		return err
	}
	return changeUser(c, a, http.MethodPut, req, "Granted %[2]s to %[1]s", words, "grants", words[1])
}

func revokeUser(c *cli.Context, a *admin, words []string) error {
	return changeUser(c, a, http.MethodDelete, nil, "Revoked %[2]s from %[1]s", words, "grants", words[1])
}

func switchUser(operation, done string) func(*cli.Context, *admin, []string) error {
	return func(c *cli.Context, a *admin, words []string) error {
		return changeUser(c, a, http.MethodPost, nil, done+" %[1]s", append(words, ""), operation)
	}
}

// changeUser calls what is below the user that words begin with, and says what was
// done, in words, or shows the user to a program.
func changeUser(c *cli.Context, a *admin, method string, req any, done string, words []string, below ...string) error {
	path, err := userPath(words[0], below...)
	if err != nil {
		return err
	}
	var u postern.UserState
	if err := a.call(c.Context, method, path, req, &u); err != nil {
		return err
	}
	if isData(c) {
		return show(c, u, nil)
	}
	note(c, done+".", u.Login, words[1])
	return nil
}

func removeUser(c *cli.Context, a *admin, words []string) error {
	u, err := getUser(c, a, words[0])
	if err != nil {
		return err
	}
	if !c.Bool("yes") && u.State != postern.UserInvited {
		return misuse("to remove them with all that was granted to them: postern users remove "+u.Login+" --yes; `postern users disable` keeps them out",
			"%q has a way to sign in", u.Login)
	}
	path, err := userPath(u.ID)
	if err != nil {
		return err
	}
	if err := a.call(c.Context, http.MethodDelete, path, nil, nil); err != nil {
		return err
	}
	note(c, "Removed %s.", u.Login)
	return nil
}
