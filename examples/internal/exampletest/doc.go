// Package exampletest runs examples and checks what they print.
package exampletest
