package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/node"
)

const publishHelp = "UPSTREAM is http://…, https://…, unix:/PATH or a folder. Without NAME= it answers at the company's own " +
	"address, else one label below it. What --publish says replaces all that was published before. " +
	"Without --access it is for the people of the company alone, who sign in at the portal."

func serviceFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "publish", Usage: "`SERVICE` to publish, [NAME=]UPSTREAM; may be repeated"},
		&cli.StringSliceFlag{Name: "cert", Usage: "`FILE` with a certificate of your own, [NAME=]FILE"},
		&cli.StringSliceFlag{Name: "key", Usage: "`FILE` with its key, [NAME=]FILE"},
		&cli.StringSliceFlag{Name: "certificate", Usage: "where its certificates come from, [NAME=]`SOURCE`: acme or private-ca (what the deployment says if not given)"},
		&cli.GenericFlag{Name: "access", Value: new(texts), Usage: "`WHO` may open it, [NAME=]public|members|groups:A,B (members if not given)"},
	}
}

// texts is a flag that may be repeated, whose values are taken whole: a StringSlice
// parts them at commas.
type texts []string

// Set appends s.
func (t *texts) Set(s string) error { *t = append(*t, s); return nil }

// String returns all of t, for people.
func (t *texts) String() string { return strings.Join(*t, " ") }

// A publication is what a node is to publish: what a configuration file says, or
// services.
type publication struct {
	file     string // absolute; empty: none
	name     string // wish of the file
	services []node.Service

	authorities []node.Authority // iff there is no file
}

// command is what runs the node with p.
func (p publication) command() string {
	if p.file != "" {
		return "postern node run --config " + p.file
	}
	return "postern node run"
}

// toPublish returns what the options alone say.
func toPublish(c *cli.Context) (publication, error) {
	if !c.IsSet("config") {
		services, err := parseServices(c, nil)
		if err != nil {
			return publication{}, err
		}
		authorities, err := parseAuthorities(c, nil)
		return publication{services: services, authorities: authorities}, err
	}
	if serviceFlagsSet(c) || authorityFlagsSet(c) {
		return publication{}, misuse("say it in the file", "--config and --publish, --cert, --key, --certificate, --access or --acme-… contradict each other")
	}
	file, err := filepath.Abs(c.String("config"))
	if err != nil {
		return publication{}, err
	}
	f, err := node.ReadFile(file)
	return publication{file: file, name: f.Name}, err
}

func serviceFlagsSet(c *cli.Context) bool {
	return c.IsSet("publish") || c.IsSet("cert") || c.IsSet("key") || c.IsSet("certificate") || c.IsSet("access")
}

// settleServices returns what the node in dir is to publish: what the options
// say, else the file in dir, else what dir remembers. It makes dir remember what
// they say.
func settleServices(c *cli.Context, dir *node.Dir) (publication, error) {
	if c.IsSet("config") {
		return toPublish(c)
	}
	file := dir.Path(node.FileName)
	if _, err := os.Stat(file); err == nil {
		if serviceFlagsSet(c) || authorityFlagsSet(c) {
			return publication{}, misuse("say it in the file, or move the file away",
				"what this node publishes is said in %s", file)
		}
		return publication{file: file}, nil
	}
	saved, err := dir.Services()
	if err != nil {
		return publication{}, err
	}
	authorities, err := settleAuthorities(c, dir)
	if err != nil || !serviceFlagsSet(c) {
		return publication{services: saved, authorities: authorities}, err
	}
	services, err := parseServices(c, saved)
	if err != nil {
		return publication{}, err
	}
	return publication{services: services, authorities: authorities}, dir.Remember(services)
}

// parseServices reads what serviceFlags say. Without --publish certificates and access
// go to saved.
func parseServices(c *cli.Context, saved []node.Service) ([]node.Service, error) {
	services := saved
	if c.IsSet("publish") {
		services = nil
	}
	for _, spec := range c.StringSlice("publish") {
		s, err := node.ParseService(spec)
		if err != nil {
			return nil, misuse("such as --publish http://localhost:9000 or --publish docs=/srv/docs", "--publish: %w", err)
		}
		for _, other := range services {
			if other.Name == s.Name {
				return nil, misuse("give each a name of its own, such as --publish docs=/srv/docs", "--publish: service %q is there twice", s.Name)
			}
		}
		services = append(services, s)
	}
	for _, option := range []string{"cert", "key"} {
		for _, spec := range c.StringSlice(option) {
			if err := setFile(services, option, spec); err != nil {
				return nil, err
			}
		}
	}
	for _, spec := range c.StringSlice("certificate") {
		if err := setCertificate(services, spec); err != nil {
			return nil, err
		}
	}
	for _, spec := range *c.Generic("access").(*texts) {
		if err := setAccess(services, spec); err != nil {
			return nil, err
		}
	}
	for _, s := range services {
		if (s.CertFile == "") != (s.KeyFile == "") {
			return nil, misuse("give both, --cert FILE and --key FILE", "service %q has only one of certificate and key", s.Name)
		}
	}
	return services, nil
}

// setFile gives the service in spec, [NAME=]FILE, its certificate or key.
func setFile(services []node.Service, option, spec string) error {
	name, file, ok := strings.Cut(spec, "=")
	if !ok || strings.ContainsAny(name, `/\`) {
		name, file = postern.DefaultService, spec
	}
	file, err := filepath.Abs(file) // the node may run elsewhere next time
	if err != nil {
		return err
	}
	for i := range services {
		if services[i].Name == name {
			if option == "cert" {
				services[i].CertFile = file
			} else {
				services[i].KeyFile = file
			}
			return nil
		}
	}
	return misuse("publish it first: --publish "+name+"=UPSTREAM", "--%s %s: no service %q", option, spec, name)
}

// setCertificate says where the certificates of the service in spec, [NAME=]SOURCE, come
// from.
func setCertificate(services []node.Service, spec string) error {
	name, source, ok := strings.Cut(spec, "=")
	if !ok {
		name, source = postern.DefaultService, spec
	}
	if source != postern.SourceACME && source != postern.SourcePrivate {
		return misuse("choose acme or private-ca; files of your own are named with --cert and --key", "--certificate %s: there is no such source", spec)
	}
	for i := range services {
		if services[i].Name == name {
			services[i].Certificate = source
			return nil
		}
	}
	return misuse("publish it first: --publish "+name+"=UPSTREAM", "--certificate %s: no service %q", spec, name)
}

// setAccess says who may open the service in spec, [NAME=]public|members|groups:A,B.
func setAccess(services []node.Service, spec string) error {
	name, who, ok := strings.Cut(spec, "=")
	if !ok {
		name, who = postern.DefaultService, spec
	}
	who, list, grouped := strings.Cut(who, ":")
	var groups []string
	if grouped {
		groups = strings.Split(list, ",")
	}
	switch {
	case who == postern.AccessGroups && !grouped:
		return misuse("such as --access groups:accounting,board", "--access %s: no groups", spec)
	case who != postern.AccessGroups && grouped, who != postern.AccessGroups && who != postern.AccessPublic && who != postern.AccessMembers:
		return misuse("choose one of public, members and groups:A,B", "--access %s: there is no such access", spec)
	}
	for _, g := range groups {
		if err := postern.CheckLabel("group", g); err != nil {
			return misuse("such as --access groups:accounting,board", "--access %s: %w", spec, err)
		}
	}
	for i := range services {
		if services[i].Name == name {
			services[i].Access, services[i].Groups = who, groups
			return nil
		}
	}
	return misuse("publish it first: --publish "+name+"=UPSTREAM", "--access %s: no service %q", spec, name)
}

// accessText returns who may open a service, in a few words.
func accessText(access string, groups []string, exceptions int, require string) string {
	text := cmp.Or(access, postern.AccessMembers)
	if len(groups) > 0 {
		text += " " + strings.Join(groups, " ")
	}
	if require != "" {
		text += ", " + require + " required"
	}
	if exceptions > 0 {
		text += ", " + counted(exceptions, "exception")
	}
	return text
}

// checkFile tells what a configuration file says, or what is wrong with it.
func checkFile(c *cli.Context) error {
	file := c.Args().First()
	if c.NArg() > 1 {
		_, err := operands(c, "FILE")
		return err
	}
	if file == "" {
		file = filepath.Join(dataDir(c, postern.RoleNode), node.FileName)
	}
	f, err := node.ReadFile(file)
	if err != nil {
		return err
	}
	fmt.Fprintf(c.App.Writer, "%s is good. It publishes %s.\n", file, counted(len(f.Services), "service"))
	for _, s := range f.Services {
		line := "  " + cmp.Or(s.Name, postern.DefaultService)
		if s.Title != "" {
			line += " (" + s.Title + ")"
		}
		if n := len(s.Entries); n > 0 {
			line += ", " + counted(n, "entry")
		}
		line += ", " + accessText(s.Access, s.Groups, len(s.Exceptions), s.Require)
		fmt.Fprintln(c.App.Writer, line)
	}
	return nil
}

// counted returns n and the noun in the number that goes with it.
func counted(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if stem, ok := strings.CutSuffix(noun, "y"); ok {
		return fmt.Sprintf("%d %sies", n, stem)
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
