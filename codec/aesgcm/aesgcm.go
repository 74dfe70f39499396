// Package aesgcm encrypts what another codec encodes, with AES in Galois/Counter
// Mode (NIST SP 800-38D): who can read the store cannot read arguments and
// results, and who can write to it cannot change them unseen.
//
//	c, err := aesgcm.New(codec.JSON, aesgcm.Key{ID: "2026-11", Secret: secret})
//	app, err := chicory.New(chicory.Config{URL: "memory:", Codec: c})
//
// The content type gets the suffix "+aesgcm". Encoded values begin with a
// format byte, the id of their key and a random nonce; all of that and the
// content type are authenticated. They are 30 bytes longer than the plain ones,
// and the id.
//
// # Rotation of keys
//
// To change keys give the new one to everybody as a further key first:
// New(inner, old, new). Then encode with it: New(inner, new, old). Drop the old
// one once nothing encoded with it is left: tasks, dead letters, and results
// until their TTL. Use a key for at most 2^32 values (SP 800-38D, section 8.3).
//
// # What it does not do
//
// Names of tasks and queues, ids, headers and the text of errors are not
// encrypted: a failed task stores what its error says. Who can write to the
// store can delete values, and put an older one in the place of another of the
// same content type. Sizes are not hidden; compression before encryption lets
// them tell more of what was compressed.
package aesgcm

import (
	"crypto/aes"
	"crypto/cipher"
	"errors"
	"fmt"

	"github.com/chicory-go/chicory/codec"
)

// A Key is a secret and the id by which values name it.
type Key struct {
	ID     string // 1 to 255 bytes; it is stored beside each value, unencrypted
	Secret []byte // 16, 24 or 32 random bytes, for AES-128, 192 or 256
}

// Errors of decoding, to match with errors.Is.
var (
	// ErrUnknownKey: the value names a key that the codec does not have.
	ErrUnknownKey = errors.New("aesgcm: unknown key")
	// ErrAuthentication: the value was changed, or it was encoded with another
	// secret or as another content type.
	ErrAuthentication = errors.New("aesgcm: value is not authentic")
)

const (
	format = 1 // byte, length of the id, id, nonce, ciphertext with its tag
	maxID  = 255
)

// New returns a codec that encrypts what inner encodes, with key; it decrypts
// with key and older ones. It keeps copies of the secrets. It is safe for
// concurrent use and has a strict form if inner has one. No error holds a
// secret.
func New(inner codec.Codec, key Key, older ...Key) (codec.Codec, error) {
	t := &transform{keys: map[string]cipher.AEAD{}}
	for _, k := range append([]Key{key}, older...) {
		if k.ID == "" || len(k.ID) > maxID {
			return nil, fmt.Errorf("aesgcm: id of a key has %d bytes, want 1 to %d", len(k.ID), maxID)
		}
		if _, ok := t.keys[k.ID]; ok {
			return nil, fmt.Errorf("aesgcm: two keys of id %q", k.ID)
		}
		block, err := aes.NewCipher(k.Secret)
		if err != nil {
			return nil, fmt.Errorf("aesgcm: key %q: secret has %d bytes, want 16, 24 or 32", k.ID, len(k.Secret))
		}
		if t.keys[k.ID], err = cipher.NewGCMWithRandomNonce(block); err != nil {
			return nil, fmt.Errorf("aesgcm: key %q: %w", k.ID, err)
		}
	}
	t.head = append([]byte{format, byte(len(key.ID))}, key.ID...)
	t.current = t.keys[key.ID]
	return codec.Wrap(inner, t), nil
}

// transform is a codec.Transform.
type transform struct {
	keys    map[string]cipher.AEAD
	current cipher.AEAD
	head    []byte // of what current encrypts
}

func (t *transform) Suffix() string { return "aesgcm" }

func (t *transform) Append(dst, src []byte, contentType string) ([]byte, error) {
	return t.current.Seal(append(dst, t.head...), nil, src, authenticated(t.head, contentType)), nil
}

func (t *transform) Undo(src []byte, contentType string) ([]byte, error) {
	if len(src) < 2 || src[0] != format || len(src) < 2+int(src[1]) {
		return nil, fmt.Errorf("%w: it has no head of format %d", ErrAuthentication, format)
	}
	head, rest := src[:2+int(src[1])], src[2+int(src[1]):]
	id := string(head[2:])
	key, ok := t.keys[id]
	if !ok {
		return nil, fmt.Errorf("%w %q", ErrUnknownKey, id)
	}
	b, err := key.Open(nil, nil, rest, authenticated(head, contentType))
	if err != nil {
		return nil, fmt.Errorf("%w: key %q", ErrAuthentication, id)
	}
	return b, nil
}

// authenticated is what a value's tag covers beside the value. The head tells
// its own length, so that the two parts cannot run into each other.
func authenticated(head []byte, contentType string) []byte {
	return append(append(make([]byte, 0, len(head)+len(contentType)), head...), contentType...)
}
