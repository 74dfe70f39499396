package codec

// A Transform turns the bytes of a codec into others and back: to compress
// them, to encrypt them. It is safe for concurrent use.
type Transform interface {
	// Suffix names the transform in content types: "zstd".
	Suffix() string
	// Append appends to dst what stands for src. contentType is that of the
	// result.
	Append(dst, src []byte, contentType string) ([]byte, error)
	// Undo returns the src that was given to Append, or an error if there is
	// none. It must not change or keep its own src.
	Undo(src []byte, contentType string) ([]byte, error)
}

// Wrap returns a codec that encodes with inner and passes the bytes through t.
// Its content type is that of inner with t's suffix: "application/json+zstd".
// Of a codec that is wrapped twice the suffixes are in the order of encoding:
// "application/json+zstd+aesgcm" is compressed, then encrypted. It has a strict
// form if inner has one.
func Wrap(inner Codec, t Transform) Codec {
	w := wrapped{inner: inner, transform: t, contentType: inner.ContentType() + "+" + t.Suffix()}
	if _, ok := inner.(Stricter); ok {
		return strictable{w}
	}
	return w
}

type wrapped struct {
	inner       Codec
	transform   Transform
	contentType string
}

func (w wrapped) ContentType() string { return w.contentType }

func (w wrapped) Append(dst []byte, v any) ([]byte, error) {
	src, err := w.inner.Append(nil, v)
	if err != nil {
		return dst, err
	}
	b, err := w.transform.Append(dst, src, w.contentType)
	if err != nil {
		return dst, err
	}
	return b, nil
}

func (w wrapped) Decode(src []byte, v any) error {
	b, err := w.transform.Undo(src, w.contentType)
	if err != nil {
		return err
	}
	return w.inner.Decode(b, v)
}

// strictable is a wrapped codec whose inner one has a strict form.
type strictable struct{ wrapped }

func (s strictable) Strict() Codec {
	s.inner = s.inner.(Stricter).Strict()
	return s.wrapped
}
