// Package settings reads configuration from the environment and from a file,
// in that order of precedence.
package settings
