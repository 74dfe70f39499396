//go:build !race

package redis_test

const racing = false
