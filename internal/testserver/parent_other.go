//go:build !linux

package testserver

import "syscall"

// EndWithParent has a process end with the tests where that can be had, which is not here.
func EndWithParent() *syscall.SysProcAttr { return nil }
