// Package codec turns arguments and results into bytes and back.
//
// A message names its content type on the wire, and the reader chooses the
// codec by it, so that producers and workers may change codecs at different
// times: first everybody accepts the new one (chicory.Config.Codecs, or
// Register), then one after the other sends it (chicory.Config.Codec). JSON is
// built in. Other codecs live in packages of their own:
//
//	codec/cbor      application/cbor: small, fast, typed; RFC 8949
//	codec/msgpack   application/vnd.msgpack: MessagePack
//	codec/gob       application/x-gob: Go's own, for Go on both sides
//	codec/zstd      …+zstd: compresses what another codec made
//	codec/aesgcm    …+aesgcm: encrypts what another codec made
//
// Nothing but the standard library may enter this package.
package codec
