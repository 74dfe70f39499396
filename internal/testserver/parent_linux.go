package testserver

import "syscall"

// EndWithParent has a process end with the tests, even if they panic.
func EndWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
