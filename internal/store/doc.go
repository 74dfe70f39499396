// Package store keeps tasks, records and dead letters in RAM: it is what
// drivers memory and bolt have in common. Drivers wrap its [Broker] and
// [Backend] and say how long a [Store] lives.
//
// Only package driver and the standard library may enter it.
package store
