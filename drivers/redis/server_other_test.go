//go:build !linux

package redis_test

import "syscall"

func endWithParent() *syscall.SysProcAttr { return nil }
