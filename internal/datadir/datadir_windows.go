package datadir

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/windows"
)

// tryLock takes the lock that LockFileEx gives, which dies with the process.
func tryLock(f *os.File) error {
	err := windows.LockFileEx(windows.Handle(f.Fd()),
		windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return ErrInUse
	}
	return err
}

// guarded lets the system, administrators and owners have a directory and all that will
// be in it, and nobody else: what is in %ProgramData% is for everybody to read otherwise,
// and everybody may make folders there, whose owners they are.
const guarded = "D:P(A;OICI;FA;;;SY)(A;OICI;FA;;;BA)(A;OICI;FA;;;OW)"

// guard has nobody get at the directory at path but who guarded says.
func guard(path string) error {
	sd, err := windows.SecurityDescriptorFromString(guarded)
	if err != nil {
		return fmt.Errorf("security descriptor: %w", err)
	}
	dacl, _, err := sd.DACL()
	if err != nil {
		return fmt.Errorf("security descriptor: %w", err)
	}
	user, err := windows.GetCurrentProcessToken().GetTokenUser()
	if err != nil {
		return fmt.Errorf("this process' user: %w", err)
	}
	what := windows.SECURITY_INFORMATION(windows.DACL_SECURITY_INFORMATION | windows.PROTECTED_DACL_SECURITY_INFORMATION)
	ours, err := isOurs(path, user.User.Sid)
	if err != nil {
		return fmt.Errorf("its owner: %w", err)
	}
	if !ours {
		what |= windows.OWNER_SECURITY_INFORMATION
	}
	if err := windows.SetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, what, user.User.Sid, nil, dacl, nil); err != nil {
		return fmt.Errorf("keep others out of it: %w", err)
	}
	return nil
}

// isOurs reports whether the directory at path belongs to user, administrators or the
// system.
func isOurs(path string, user *windows.SID) (bool, error) {
	sd, err := windows.GetNamedSecurityInfo(path, windows.SE_FILE_OBJECT, windows.OWNER_SECURITY_INFORMATION)
	if err != nil {
		return false, err
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return false, err
	}
	return owner.Equals(user) || owner.IsWellKnown(windows.WinBuiltinAdministratorsSid) || owner.IsWellKnown(windows.WinLocalSystemSid), nil
}

// renameFor is how long rename tries.
const renameFor = 2 * time.Second

// rename replaces to with from. Who has one of them open for a moment, such as a virus
// scanner or a backup, keeps it from being replaced: then it tries again.
func rename(from, to string) error {
	for wait, end := time.Millisecond, time.Now().Add(renameFor); ; wait *= 2 {
		err := os.Rename(from, to)
		busy := errors.Is(err, windows.ERROR_ACCESS_DENIED) || errors.Is(err, windows.ERROR_SHARING_VIOLATION)
		if !busy || time.Until(end) < wait {
			return err
		}
		time.Sleep(wait)
	}
}

// syncDir does nothing: NTFS journals renames, and a directory cannot be synced.
func syncDir(string) error { return nil }
