//go:build !(windows || 386 || arm || mips || mipsle)

package bolt

// canMapAhead says that a mapping may be larger than the file, at no cost.
const canMapAhead = true
