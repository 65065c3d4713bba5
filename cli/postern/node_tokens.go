package main

import (
	"github.com/urfave/cli/v2"

	"postern/node"
)

func nodeTokensCommand(data cli.Flag) *cli.Command {
	return &cli.Command{
		Name: "tokens", Aliases: []string{"token"}, Usage: "tokens that people made here for programs of theirs: list, revoke",
		Subcommands: []*cli.Command{
			{
				Name: "list", Aliases: []string{"ls"}, Usage: "list the tokens, never their secrets", Action: listPersonalTokens,
				Description: "People make them on the page /.well-known/postern/tokens of a service.",
				UsageText:   "postern node tokens list\npostern node tokens list -o json", Flags: append([]cli.Flag{data}, outputFlags()...),
			},
			{
				Name: "revoke", Aliases: []string{"remove", "rm"}, ArgsUsage: "ID", Usage: "make a token useless at once", Action: revokePersonalToken,
				UsageText: "postern node tokens revoke k5zq3xw2n7abcdef", Flags: []cli.Flag{data},
			},
		},
	}
}

func listPersonalTokens(c *cli.Context) error {
	if _, err := operands(c); err != nil {
		return err
	}
	tokens, err := node.ListPersonalTokens(c.Context, nodeSocket(c))
	if err != nil {
		return err
	}
	return show(c, orEmpty(tokens), personalTokenRows)
}

func personalTokenRows(t *table, tokens []node.PersonalToken) {
	t.head("ID", "HOST", "OWNER", "NAME", "MAY", "EXPIRES", "USED")
	for _, v := range tokens {
		t.row(v.ID, v.Host, v.Login, v.Name, v.Scope, t.ago(v.Expires), t.ago(v.Used))
	}
}

func revokePersonalToken(c *cli.Context) error {
	words, err := operands(c, "ID")
	if err != nil {
		return err
	}
	v, err := node.RevokePersonalToken(c.Context, nodeSocket(c), words[0])
	if err != nil {
		return err
	}
	note(c, "Revoked %s of %s at %s.", v.ID, v.Login, v.Host)
	return nil
}
