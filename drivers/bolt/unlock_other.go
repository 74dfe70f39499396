//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package bolt

import "os"

// unlock has nothing to do: the lock ends with the file that is closed.
func unlock(*os.File) {}
