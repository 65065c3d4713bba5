package main

import (
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/node"
)

func nodePasskeysCommand(data cli.Flag) *cli.Command {
	return &cli.Command{
		Name: "passkeys", Aliases: []string{"passkey"}, Usage: "passkeys that this node asks people for itself: invite, list, remove",
		Subcommands: []*cli.Command{
			{
				Name: "invite", ArgsUsage: "LOGIN", Action: invitePasskey,
				Usage: "print a link by which a person makes a passkey",
				Description: "LOGIN is what the person signs in with at the portal. The link goes to standard output, one for each " +
					"address of the service. It is good once, for 72 hours, and makes earlier ones void. Whoever opens it has the " +
					"passkey of that person: hand it to them on a way that neither the portal nor its operator can read.",
				UsageText: "postern node passkeys invite anna@acme.example\n" +
					"postern node passkeys invite anna@acme.example --service books",
				Flags: append([]cli.Flag{
					&cli.StringFlag{Name: "service", Usage: "`NAME` of the service that asks for it (the one that requires passkeys if not given)"}, data,
				}, outputFlags()...),
			},
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "list the passkeys, and the links that are still good", Action: listPasskeys,
				UsageText: "postern node passkeys list\npostern node passkeys list -o json", Flags: append([]cli.Flag{data}, outputFlags()...),
			},
			{
				Name: "remove", Aliases: []string{"rm"}, ArgsUsage: "ID", Usage: "forget a passkey", Action: removePasskey,
				Description: "Whoever used it is asked for another at once, and the tokens that they made with it end.",
				UsageText:   "postern node passkeys remove k5zq3xw2n7abcdef", Flags: []cli.Flag{data},
			},
		},
	}
}

func nodeSocket(c *cli.Context) string {
	return filepath.Join(dataDir(c, postern.RoleNode), node.Socket)
}

func invitePasskey(c *cli.Context) error {
	words, err := operands(c, "LOGIN")
	if err != nil {
		return err
	}
	format, err := outputFormat(c)
	if err != nil {
		return err
	}
	links, err := node.InvitePasskey(c.Context, nodeSocket(c), node.PasskeyRequest{Login: words[0], Service: c.String("service")})
	if err != nil {
		return err
	}
	if format != "table" {
		return write(c.App.Writer, format, links, nil)
	}
	for _, l := range links.Links {
		note(c, "%s makes a passkey for %s with it, once, until %s:", l.Login, l.Host, minute(l.Expires))
		if _, err := fmt.Fprintln(c.App.Writer, l.URL); err != nil {
			return err
		}
	}
	if !links.Required {
		note(c, "Service %s does not ask for passkeys yet: have it say `require: %s`.", links.Service, postern.RequirePasskey)
	}
	return nil
}

func listPasskeys(c *cli.Context) error {
	if _, err := operands(c); err != nil {
		return err
	}
	keys, err := node.ListPasskeys(c.Context, nodeSocket(c))
	if err != nil {
		return err
	}
	return show(c, keys, passkeyRows)
}

func passkeyRows(t *table, keys node.Passkeys) {
	t.head("ID", "HOST", "LOGIN", "MADE", "USED")
	for _, k := range keys.Passkeys {
		t.row(k.ID, k.Host, k.Login, t.ago(k.Created), t.ago(k.Used))
	}
	for _, i := range keys.Invitations {
		t.row("-", i.Host, i.Login, "invited", "link ends "+t.ago(i.Expires))
	}
}

func removePasskey(c *cli.Context) error {
	words, err := operands(c, "ID")
	if err != nil {
		return err
	}
	k, err := node.RemovePasskey(c.Context, nodeSocket(c), words[0])
	if err != nil {
		return err
	}
	note(c, "Removed the passkey of %s at %s.", k.Login, k.Host)
	return nil
}
