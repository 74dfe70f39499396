// Package settings is the one table of what can be configured from outside: by the
// environment, by a file, by flags. It reads the environment, and puts values where they
// belong. No parser of a file format may enter: package config has it.
package settings
