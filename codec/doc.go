// Package codec turns arguments and results into bytes and back.
//
// A message names its content type on the wire, and the reader chooses the
// codec by it, so that producers and workers may change codecs at different
// times. JSON is built in; other codecs live in packages of their own and
// register themselves. Nothing but the standard library may enter this
// package.
package codec
