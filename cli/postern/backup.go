package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"postern"
	"postern/internal/archive"
	"postern/internal/datadir"
)

func backupCommand() *cli.Command {
	return &cli.Command{
		Name: "backup", ArgsUsage: "FILE", Usage: "write all that a coordinator is into one verified file", Action: backup,
		Description: "The registry, the authority's keys, the portal's certificate and the deployment's domain, and what the gateway " +
			"of `postern up` is. The coordinator may run meanwhile. The file is read back and verified before it gets its name, and " +
			"no file is replaced. Whoever has it can pose as the deployment: keep it as you keep keys, or give a passphrase. A " +
			"coordinator makes backups of its registry by itself, too, one an hour, beside it.",
		UsageText: "postern backup /mnt/backup/postern-$(date +%F).backup\n" +
			"postern backup postern.backup --passphrase-file passphrase.txt",
		Flags: []cli.Flag{passphraseFlag(), dataFlag("the coordinator's data `DIR`ectory, or that of postern up")},
	}
}

func passphraseFlag() cli.Flag {
	return &cli.StringFlag{Name: "passphrase-file", Usage: "`FILE`: holds a passphrase that encrypts the backup, - for standard input"}
}

// passphrase returns what --passphrase-file holds, empty without it.
func passphrase(c *cli.Context) (string, error) {
	file := c.String("passphrase-file")
	if file == "" {
		return "", nil
	}
	text, err := readSecret(c, "passphrase", file)
	if err != nil {
		return "", err
	}
	if text = strings.Trim(text, "\r\n"); text == "" {
		return "", misuse("put a passphrase into the file, or leave --passphrase-file away", "the passphrase is empty")
	}
	return text, nil
}

// backupFile returns the backup that c is about, and the passphrase it is under, which is
// empty if there is none.
func backupFile(c *cli.Context) (file, secret string, err error) {
	words, err := operands(c, "FILE")
	if err != nil {
		return "", "", err
	}
	if err := checkBuild(); err != nil {
		return "", "", err
	}
	secret, err = passphrase(c)
	return words[0], secret, err
}

func backup(c *cli.Context) error {
	file, secret, err := backupFile(c)
	if err != nil {
		return err
	}
	m, err := writeBackup(c.Context, partsOf(c.String("data")), file, secret)
	if err != nil {
		return err
	}
	note(c, "%s: %d files of %s, verified.", file, len(m.Files), m.Domain)
	if secret == "" {
		note(c, "The deployment's keys are in it, and it is not encrypted.")
	}
	return nil
}

// parts are the data directories that a backup is of.
type parts struct {
	coordinator string
	gateway     string // empty: there is none beside
}

// partsOf returns what is in the data directory called dir, empty for the one by default:
// a coordinator, or what `up` keeps.
func partsOf(dir string) parts {
	p := parts{coordinator: filepath.Dir(rolePath(dir, postern.RoleCoordinator, configFile))}
	beside := filepath.Join(filepath.Dir(p.coordinator), string(postern.RoleGateway))
	if _, err := os.Stat(filepath.Join(beside, "identity.json")); err == nil && filepath.Base(p.coordinator) == string(postern.RoleCoordinator) {
		p.gateway = beside
	}
	return p
}

// writeBackup writes p to a new file, mode 0600, which is verified before it is there.
func writeBackup(ctx context.Context, p parts, file, passphrase string) (m archive.Manifest, err error) {
	if _, err := os.Lstat(file); err == nil {
		return m, fail("choose another name: no file is replaced", fmt.Errorf("%s: %w", file, fs.ErrExist))
	}
	var cfg config
	data, err := os.ReadFile(filepath.Join(p.coordinator, configFile))
	if errors.Is(err, fs.ErrNotExist) {
		return m, fail("name the coordinator's data directory with --data", fmt.Errorf("%s: there is no coordinator", p.coordinator))
	}
	if err == nil {
		err = json.Unmarshal(data, &cfg)
	}
	if err != nil {
		return m, err
	}
	// Beside the file: where there is room for it, there is for this.
	temp, err := os.MkdirTemp(filepath.Dir(file), "."+filepath.Base(file)+".*.tmp")
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	registry := filepath.Join(temp, registryFile)
	if err := backupRegistry(ctx, filepath.Join(p.coordinator, registryFile), registry); err != nil {
		return m, err
	}
	m = archive.Manifest{Created: time.Now().UTC().Truncate(time.Second), Program: programVersion(), Domain: cfg.Domain}
	if m.Schema, _, err = inspectRegistry(ctx, registry); err != nil {
		return m, err
	}
	sources, err := collect(p.coordinator, postern.RoleCoordinator)
	if err != nil {
		return m, err
	}
	sources = append(sources, archive.Source{Name: path.Join(string(postern.RoleCoordinator), registryFile), Mode: 0o600, Path: registry})
	if p.gateway != "" {
		more, err := collect(p.gateway, postern.RoleGateway)
		if err != nil {
			return m, err
		}
		sources = append(sources, more...)
	}
	packed := filepath.Join(temp, "packed")
	if m, err = packTo(packed, m, sources, passphrase); err != nil {
		return m, err
	}
	// Link, since a rename would replace what came there meanwhile.
	if err := os.Link(packed, file); err != nil {
		if _, lerr := os.Lstat(file); lerr == nil {
			return m, err
		}
		if err := os.Rename(packed, file); err != nil { // no hard links here
			return m, err
		}
	}
	return m, syncPath(filepath.Dir(file))
}

// packTo packs sources into a new file, and verifies what is on disk.
func packTo(file string, m archive.Manifest, sources []archive.Source, passphrase string) (archive.Manifest, error) {
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return m, err
	}
	defer f.Close()
	if m, err = archive.Pack(f, m, sources, passphrase); err != nil {
		return m, err
	}
	if err := f.Sync(); err != nil {
		return m, err
	}
	if _, err := f.Seek(0, 0); err != nil {
		return m, err
	}
	if _, err := archive.Unpack(f, "", passphrase); err != nil {
		return m, fmt.Errorf("what was written does not verify: %w", err)
	}
	return m, f.Close()
}

// maxBackedUp bounds a file of a data directory that is not the registry, in bytes.
const maxBackedUp = 64 << 20

// collect reads the files in role's data directory, those excepted that are nobody's to
// keep: locks, sockets, halves of writes, the registry, which is not to be read so, and
// its backups.
func collect(dir string, role postern.Role) ([]archive.Source, error) {
	var all []archive.Source
	err := filepath.WalkDir(dir, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, file)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name == "backups" {
				return fs.SkipDir
			}
			return nil
		}
		if name == datadir.LockFile || name == datadir.ReserveFile || strings.HasPrefix(name, registryFile) || filepath.Ext(name) == datadir.TempExt {
			return nil
		}
		info, err := os.Stat(file) // of what a link leads to
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() {
			return nil
		}
		if info.Size() > maxBackedUp {
			return fail("move it elsewhere: the data directory is for Postern's own files",
				fmt.Errorf("%s: its %s are more than a backup takes of one file", file, size(uint64(info.Size()))))
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if data == nil {
			data = []byte{}
		}
		all = append(all, archive.Source{Name: path.Join(string(role), filepath.ToSlash(name)), Mode: info.Mode().Perm(), Data: data})
		return nil
	})
	return all, err
}

// syncPath puts a directory's entries on disk, where that can be asked for.
func syncPath(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, fs.ErrInvalid) {
		return err
	}
	return nil
}
