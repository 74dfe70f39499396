//go:build race

package redis_test

// racing says that the race detector is on, under which all takes longer.
const racing = true
