package bolt_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chicory-go/chicory/drivers/bolt"
)

// mountVariable has the test program mount a small file system on the directory
// that it names, before it runs tests.
const (
	mountVariable = "BOLT_TEST_MOUNT"
	cannotMount   = 77 // exit code
)

func init() {
	dir := os.Getenv(mountVariable)
	if dir == "" {
		return
	}
	os.Unsetenv(mountVariable)
	if err := syscall.Mount("none", dir, "tmpfs", 0, "size=8m"); err != nil {
		fmt.Println("mount:", err)
		os.Exit(cannotMount)
	}
}

// TestReadOnlyDisk finds a file that not even the superuser can write.
func TestReadOnlyDisk(t *testing.T) {
	if *smallDir == "" {
		t.Parallel()
		inSmallDisk(t)
		return
	}
	path := filepath.Join(*smallDir, "readonly.db")
	written(t, path)
	if err := syscall.Mount("none", *smallDir, "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	defer syscall.Mount("none", *smallDir, "", syscall.MS_REMOUNT, "")
	for name, path := range map[string]string{"a file": path, "a new file": path + ".new"} {
		_, err := bolt.Open(t.Context(), path, nil)
		wantErr(t, name, err, syscall.EROFS)
		if err != nil && !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v does not name the file", name, err)
		}
	}
	wantErr(t, "Compact", bolt.Compact(t.Context(), path), syscall.EROFS)
}

// onSmallDisk runs t once more, in a process whose mounts are its own, as is the
// small file system among them: they end with it. The superuser may do so, and
// in many places everybody, as the superuser of a user namespace. The error is
// that nobody may here.
func onSmallDisk(t *testing.T) (err error) {
	t.Helper()
	for _, attr := range []*syscall.SysProcAttr{
		{Unshareflags: syscall.CLONE_NEWNS},
		{Unshareflags: syscall.CLONE_NEWNS, Cloneflags: syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}},
	} {
		dir := t.TempDir()
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-bolt.small="+dir)
		cmd.Env = append(os.Environ(), mountVariable+"="+dir)
		cmd.SysProcAttr = attr
		said, failed := cmd.CombinedOutput()
		switch {
		case cmd.ProcessState == nil:
			err = failed
		case cmd.ProcessState.ExitCode() == cannotMount:
			err = fmt.Errorf("%s", said)
		default:
			if t.Logf("%s", said); failed != nil {
				t.Error(failed)
			}
			return nil
		}
	}
	return err
}
