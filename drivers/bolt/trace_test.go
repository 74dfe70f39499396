//go:build linux && (amd64 || arm64)

package bolt_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"unsafe"
)

// trace runs a child, kills it, and returns what it did to the file of path and
// what it said, in order, up to the event that is the last. The child is as every
// other: what is recorded are its system calls. It needs Linux 5.3, and to be
// allowed to trace its own children.
func trace(t *testing.T, env, path string, last func(event) bool) []event {
	t.Helper()
	dir, err := filepath.EvalSymlinks(filepath.Dir(path)) // as the kernel names it
	if err != nil {
		t.Fatal(err)
	}
	tr := tracer{env: env, path: filepath.Join(dir, filepath.Base(path)), last: last, calls: map[int]syscallInfo{}}
	ended := make(chan error)
	go func() {
		runtime.LockOSThread() // the tracer is a thread
		defer runtime.UnlockOSThread()
		ended <- tr.run()
	}()
	switch err := <-ended; {
	case err != nil && len(tr.calls) == 0:
		t.Skipf("NOT TESTED: a loss of power. Children cannot be traced here: %v", err)
	case err != nil:
		t.Fatalf("the child: %v", err)
	}
	return tr.events
}

// A tracer records what one process does to one file.
type tracer struct {
	env    string // has the process be what it is
	path   string
	last   func(event) bool
	ended  bool // the last event was recorded
	pid    int
	memory *os.File
	calls  map[int]syscallInfo // in progress, by thread
	events []event
}

// A syscallInfo is what the kernel says of a system call that begins or ends.
type syscallInfo struct {
	op     uint8 // one of the constants below
	_      [3]uint8
	_      uint32
	_, _   uint64
	number uint64 // or what it returned
	args   [6]uint64
	_      uint64
}

const (
	ptraceSyscallInfo = 0x420e
	ptraceExitKill    = 0x100000
	callBegins        = 1
	callEnds          = 2
)

func (tr *tracer) run() (err error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	tr.pid, err = syscall.ForkExec("/proc/self/exe", os.Args[:1], &syscall.ProcAttr{
		Env:   append(os.Environ(), tr.env),
		Files: []uintptr{null.Fd(), null.Fd(), os.Stderr.Fd()},
		Sys:   &syscall.SysProcAttr{Ptrace: true},
	})
	if err != nil {
		return err
	}
	defer tr.end()
	if _, err := syscall.Wait4(tr.pid, nil, 0, nil); err != nil {
		return err
	}
	if tr.memory, err = os.Open(fmt.Sprintf("/proc/%d/mem", tr.pid)); err != nil {
		return err
	}
	const options = syscall.PTRACE_O_TRACESYSGOOD | syscall.PTRACE_O_TRACECLONE | ptraceExitKill
	if err := syscall.PtraceSetOptions(tr.pid, options); err != nil {
		return err
	}
	for thread, signal := tr.pid, 0; !tr.ended; {
		if err := syscall.PtraceSyscall(thread, signal); err != nil && err != syscall.ESRCH {
			return err
		}
		if thread, signal, err = tr.next(); err != nil {
			return err
		}
	}
	return nil
}

// end kills the child.
func (tr *tracer) end() {
	syscall.Kill(tr.pid, syscall.SIGKILL)
	for {
		// Without the children of other threads, which are other tests'.
		_, err := syscall.Wait4(-1, nil, syscall.WALL|syscall.WNOTHREAD, nil)
		if err != nil && err != syscall.EINTR {
			break
		}
	}
	if tr.memory != nil {
		tr.memory.Close()
	}
}

// next waits until a thread stops, records why, and returns it with the signal
// that it is to get.
func (tr *tracer) next() (thread, signal int, err error) {
	var status syscall.WaitStatus
	for {
		thread, err = syscall.Wait4(-1, &status, syscall.WALL|syscall.WNOTHREAD, nil)
		switch {
		case err == syscall.EINTR:
			continue
		case err != nil:
			return 0, 0, err
		case !status.Stopped() && thread == tr.pid:
			return 0, 0, fmt.Errorf("it has ended: %#x", status)
		case !status.Stopped():
			continue // a thread has ended
		}
		break
	}
	switch s := status.StopSignal(); s {
	case syscall.SIGTRAP | 0x80:
		return thread, 0, tr.call(thread)
	case syscall.SIGTRAP, syscall.SIGSTOP: // a new thread
		return thread, 0, nil
	default:
		return thread, int(s), nil
	}
}

// call records the system call that a thread begins or ends.
func (tr *tracer) call(thread int) error {
	var info syscallInfo
	_, _, errno := syscall.RawSyscall6(syscall.SYS_PTRACE, ptraceSyscallInfo, uintptr(thread), unsafe.Sizeof(info),
		uintptr(unsafe.Pointer(&info)), 0, 0)
	switch {
	case errno == syscall.ESRCH: // it was killed
		return nil
	case errno != 0:
		return errno
	case info.op == callBegins:
		tr.calls[thread] = info
		return tr.begins(info)
	case info.op == callEnds:
		return tr.ends(tr.calls[thread], int64(info.number))
	}
	return nil
}

func (tr *tracer) begins(c syscallInfo) error {
	switch c.number {
	case syscall.SYS_WRITE:
		if c.args[0] == 1 {
			return tr.record(said, 0, c.args[1], int64(c.args[2]))
		}
		if tr.isFile(c) {
			return fmt.Errorf("it writes %s without saying where", tr.path)
		}
	case syscall.SYS_FDATASYNC, syscall.SYS_FSYNC:
		if tr.isFile(c) {
			tr.add(event{what: syncing})
		}
	}
	return nil
}

func (tr *tracer) ends(c syscallInfo, returned int64) error {
	switch c.number {
	case syscall.SYS_PWRITE64:
		if returned > 0 && tr.isFile(c) {
			return tr.record(wrote, int64(c.args[3]), c.args[1], returned)
		}
	case syscall.SYS_FTRUNCATE:
		if returned == 0 && tr.isFile(c) {
			tr.add(event{what: resized, at: int64(c.args[1])})
		}
	case syscall.SYS_FDATASYNC, syscall.SYS_FSYNC:
		switch name := tr.name(c); {
		case returned != 0:
		case name == tr.path:
			tr.add(event{what: synced})
		case name == filepath.Dir(tr.path):
			tr.add(event{what: dirSynced})
		}
	case syscall.SYS_RENAMEAT:
		if returned == 0 {
			tr.add(event{what: renamed})
		}
	}
	return nil
}

// isFile reports whether a call, whose first argument is a descriptor, is about
// the file.
func (tr *tracer) isFile(c syscallInfo) bool { return tr.name(c) == tr.path }

// name returns the path of the file that a call is about.
func (tr *tracer) name(c syscallInfo) string {
	name, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", tr.pid, c.args[0]))
	return name
}

func (tr *tracer) add(e event) {
	if !tr.ended {
		tr.events = append(tr.events, e)
		tr.ended = tr.last(e)
	}
}

// record records n bytes of the child's memory.
func (tr *tracer) record(what what, at int64, address uint64, n int64) error {
	data := make([]byte, n)
	if _, err := tr.memory.ReadAt(data, int64(address)); err != nil {
		return err
	}
	tr.add(event{what, at, data})
	return nil
}
