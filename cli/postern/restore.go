package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/coordinator"
	"postern/internal/archive"
	"postern/internal/datadir"
)

func restoreCommand() *cli.Command {
	return &cli.Command{
		Name: "restore", ArgsUsage: "FILE", Usage: "bring a coordinator back from a backup", Action: restore,
		Description: "All of the backup is verified before any of it is put in place, and nothing is replaced: the data directory " +
			"has to be empty, or not to be there. Members that knew a newer registry take up the restored one. What happened after " +
			"the backup is lost: machines that joined have to join anew, and what was taken away has to be taken away again.",
		UsageText: "postern restore /mnt/backup/postern-2026-03-01.backup\n" +
			"postern restore postern.backup --passphrase-file - --data /srv/postern\n" +
			"postern restore postern.backup --check",
		Flags: []cli.Flag{
			passphraseFlag(),
			&cli.BoolFlag{Name: "check", Usage: "only verify the backup"},
			dataFlag("new data `DIR`ectory of the coordinator, or of postern up (the same as by default, if not given)"),
		},
	}
}

func restore(c *cli.Context) error {
	file, secret, err := backupFile(c)
	if err != nil {
		return err
	}
	if c.Bool("check") {
		temp, err := os.MkdirTemp("", "postern-restore-*")
		if err != nil {
			return err
		}
		m, err := unpackBackup(c.Context, file, temp, secret)
		if err := errors.Join(err, os.RemoveAll(temp)); err != nil {
			return err
		}
		tellBackup(c, file, m)
		return nil
	}
	m, err := archiveOf(file, secret)
	if err != nil {
		return err
	}
	whole := slices.ContainsFunc(m.Files, func(f archive.File) bool { return isOf(f.Name, postern.RoleGateway) })
	dir := c.String("data")
	if dir == "" && whole {
		dir = defaultData("")
	} else if dir == "" {
		dir = defaultData(postern.RoleCoordinator)
	}
	if m, err = restoreBackup(c.Context, file, dir, secret, whole); err != nil {
		return err
	}
	tellBackup(c, file, m)
	command := "postern coordinator run"
	if whole {
		command = "postern up"
	}
	if c.String("data") != "" {
		command += " --data " + dir
	}
	note(c, "It is in %s. Stop what is left of the old coordinator, then: %s", dir, command)
	return nil
}

func tellBackup(c *cli.Context, file string, m archive.Manifest) {
	note(c, "%s: %d files of %s, of %s, by postern %s, verified.", file, len(m.Files), m.Domain, m.Created.Local().Format("2006-01-02 15:04:05"), m.Program)
}

// isOf reports whether a file of an archive is of role's data directory.
func isOf(name string, role postern.Role) bool { return strings.HasPrefix(name, string(role)+"/") }

// archiveOf verifies the archive in file, but for what is inside the registry.
func archiveOf(file, passphrase string) (archive.Manifest, error) {
	f, err := os.Open(file)
	if err != nil {
		return archive.Manifest{}, err
	}
	defer f.Close()
	m, err := archive.Unpack(f, "", passphrase)
	if err != nil {
		return m, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

// staging is where a backup is unpacked before it is put in place, in the directory that
// is to have it.
const staging = ".restore"

// restoreBackup puts the backup in file into dir, which is empty or not there, once all of
// it is verified. With whole, dir is as `up` has it. When it fails, dir is as it was.
func restoreBackup(ctx context.Context, file, dir, passphrase string, whole bool) (m archive.Manifest, err error) {
	made, err := emptyDir(dir)
	if err != nil {
		return m, err
	}
	temp := filepath.Join(dir, staging)
	if err := os.Mkdir(temp, 0o700); err != nil {
		return m, err
	}
	defer func() {
		err = errors.Join(err, os.RemoveAll(temp))
		if err != nil && made {
			os.Remove(dir) // is empty again, or stays
		}
	}()
	if m, err = unpackBackup(ctx, file, temp, passphrase); err != nil {
		return m, err
	}
	if err := ownAs(dir, temp); err != nil {
		return m, err
	}
	from := temp
	if !whole {
		from = filepath.Join(temp, string(postern.RoleCoordinator))
	}
	if err := moveIn(from, dir); err != nil {
		return m, err
	}
	return m, syncPath(dir)
}

// emptyDir makes dir, if need be, and refuses one that has anything in it.
func emptyDir(dir string) (made bool, err error) {
	entries, err := os.ReadDir(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return true, os.MkdirAll(dir, 0o700)
	case err != nil:
		return false, err
	case len(entries) > 0:
		return false, fail("move it away, or name another directory with --data: nothing is replaced",
			fmt.Errorf("%s is not empty (%s)", dir, entries[0].Name()))
	}
	return false, nil
}

// moveIn moves what is in from to dir, the marks last: without them, what was cut off in
// between is nobody's data directory.
func moveIn(from, dir string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	slices.SortStableFunc(entries, func(a, b fs.DirEntry) int {
		switch {
		case a.Name() == datadir.MarkFile:
			return 1
		case b.Name() == datadir.MarkFile:
			return -1
		}
		return 0
	})
	for _, e := range entries {
		if err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// unpackBackup unpacks the backup in file into dir, and checks that it is a coordinator:
// its mark, its domain, its registry and its keys.
func unpackBackup(ctx context.Context, file, dir, passphrase string) (archive.Manifest, error) {
	f, err := os.Open(file)
	if err != nil {
		return archive.Manifest{}, err
	}
	defer f.Close()
	m, err := archive.Unpack(f, dir, passphrase)
	if err != nil {
		return m, fmt.Errorf("%s: %w", file, err)
	}
	for _, f := range m.Files {
		if !isOf(f.Name, postern.RoleCoordinator) && !isOf(f.Name, postern.RoleGateway) {
			return m, fmt.Errorf("%s: %w: %s belongs nowhere", file, archive.ErrDamaged, f.Name)
		}
	}
	if err := checkSeat(ctx, filepath.Join(dir, string(postern.RoleCoordinator))); err != nil {
		return m, fmt.Errorf("%s: %w", file, err)
	}
	return m, nil
}

// checkSeat checks what was unpacked of a coordinator.
func checkSeat(ctx context.Context, dir string) error {
	_, deployment, err := inspectRegistry(ctx, filepath.Join(dir, registryFile))
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(dir, datadir.MarkFile)); err != nil { // Open would make it
		return err
	}
	d, err := datadir.Open(dir, postern.RoleCoordinator)
	if err != nil {
		return err
	}
	defer d.Remove(datadir.LockFile)
	defer d.Close()
	var cfg config
	if err := d.ReadJSON(configFile, &cfg); err != nil {
		return err
	}
	authority, err := coordinator.OpenAuthority(d.Path("authority"), cfg.Domain, nil)
	if err != nil {
		return err
	}
	if id := authority.Deployment(); id != deployment {
		return fmt.Errorf("the registry is deployment %s's and the authority's keys are %s's", deployment, id)
	}
	return nil
}
