//go:build !linux

package amqp_test

import "syscall"

func endWithParent() *syscall.SysProcAttr { return nil }
