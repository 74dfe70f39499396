package amqp_test

import "syscall"

// endWithParent has a server end with the tests, even if they panic.
func endWithParent() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }
