// Package wire encodes messages and what goes with them for drivers that keep
// bytes: fields in a fixed order, numbers as varints, text and bytes with their
// length before them. It knows nothing of stores; what surrounds the fields, a
// version or a checksum, is each driver's own.
package wire
