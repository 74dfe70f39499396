//go:build windows || 386 || arm || mips || mipsle

package bolt

// canMapAhead is false where a large mapping is short of room, or makes the file large.
const canMapAhead = false
