//go:build !linux

package bolt_test

import (
	"errors"
	"testing"
)

func onSmallDisk(*testing.T) error { return errors.New("known for Linux only") }
