package bolt

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	bbolt "go.etcd.io/bbolt"
)

// create makes f's file if there is none: whole or not at all, even if the
// power fails. Where that is impossible, and where something is wrong with the
// path, it leaves it to bbolt, whose first write may be torn.
func (f *file) create() error {
	if _, err := os.Lstat(f.path); !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	temp, err := os.CreateTemp(filepath.Dir(f.path), ".chicory*")
	if err != nil {
		return nil
	}
	defer os.Remove(temp.Name())
	temp.Close()
	db, err := bbolt.Open(temp.Name(), 0o600, &bbolt.Options{Timeout: lockTimeout})
	if err != nil {
		return err
	}
	if err := db.Close(); err != nil {
		return err
	}
	if os.Link(temp.Name(), f.path) != nil {
		return nil // another process was faster, or there are no hard links
	}
	return syncDir(f.path)
}

// syncDir has the name of path survive a loss of power, where that can be asked
// for.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if errors.Is(err, fs.ErrPermission) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	if err := dir.Sync(); err != nil && !errors.Is(err, errors.ErrUnsupported) && !errors.Is(err, syscall.EINVAL) {
		return err
	}
	return nil
}
