package chicory_test

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/codec/aesgcm"
	"github.com/chicory-go/chicory/codec/cbor"
	"github.com/chicory-go/chicory/codec/gob"
	"github.com/chicory-go/chicory/codec/msgpack"
	"github.com/chicory-go/chicory/codec/zstd"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/internal/engine"
	"github.com/chicory-go/chicory/worker"
)

// pair is a producer and a worker on one store, each with codecs of its own.
func pair(t *testing.T, producer, consumer chicory.Config) (sends, runs *chicory.App) {
	t.Helper()
	broker, backend := memory.New(), memory.New()
	apps := make([]*chicory.App, 2)
	for i, cfg := range []chicory.Config{producer, consumer} {
		app, err := chicory.NewWith(broker.Broker("ns"), backend.Backend("ns"), cfg)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := app.Close(); err != nil {
				t.Error(err)
			}
		})
		if err := app.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		apps[i] = app
	}
	chicory.Define[addArgs, addArgs]("swap").Handle(apps[1], func(_ context.Context, in addArgs) (addArgs, error) {
		return addArgs{in.Y, in.X}, nil
	})
	start(t, apps[1], worker.Options{})
	return apps[0], apps[1]
}

func wrapped(t *testing.T, inner codec.Codec) codec.Codec {
	t.Helper()
	small, err := zstd.New(inner, zstd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	secret, err := aesgcm.New(small, aesgcm.Key{ID: "k", Secret: make([]byte, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// TestTheContentTypeChoosesTheDecoder: producer and worker encode differently,
// and accept what the other sends.
func TestTheContentTypeChoosesTheDecoder(t *testing.T) {
	t.Parallel()
	all := []codec.Codec{codec.JSON, cbor.Codec, msgpack.Codec, gob.Codec, wrapped(t, codec.JSON), wrapped(t, cbor.Codec)}
	for i, mine := range all {
		theirs := all[(i+1)%len(all)]
		t.Run(mine.ContentType(), func(t *testing.T) {
			t.Parallel()
			sends, _ := pair(t, chicory.Config{Codec: mine, Codecs: []codec.Codec{theirs}}, chicory.Config{Codec: theirs, Codecs: []codec.Codec{mine}})
			res, err := chicory.Define[addArgs, addArgs]("swap").On(sends).Delay(t.Context(), addArgs{1, 2})
			if err != nil {
				t.Fatal(err)
			}
			if v, err := res.Get(t.Context()); v != (addArgs{2, 1}) || err != nil {
				t.Errorf("got %v, %v", v, err)
			}
		})
	}
}

// registered is a codec that all apps of the process know.
var registered = sync.OnceValue(func() codec.Codec {
	c := chicory.Must(zstd.New(gob.Codec, zstd.Options{}))
	codec.Register(c)
	return c
})

// TestRegisteredCodecsServeAllApps: what the worker's app was not given is found
// among the registered.
func TestRegisteredCodecsServeAllApps(t *testing.T) {
	t.Parallel()
	sends, _ := pair(t, chicory.Config{Codec: registered()}, chicory.Config{})
	res, err := chicory.Define[addArgs, addArgs]("swap").On(sends).Delay(t.Context(), addArgs{1, 2})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := res.Get(t.Context()); v != (addArgs{2, 1}) || err != nil {
		t.Errorf("got %v, %v", v, err)
	}
}

// TestWhatNobodyCanDecodeIsDeadLettered sends what the worker has no codec or no
// key for, or what was tampered with: it is kept as it came, unrun, and the
// worker lives.
func TestWhatNobodyCanDecodeIsDeadLettered(t *testing.T) {
	t.Parallel()
	secret := func(b byte) codec.Codec {
		c, err := aesgcm.New(codec.JSON, aesgcm.Key{ID: string('a' + b), Secret: bytes.Repeat([]byte{b}, 32)})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	small, err := zstd.New(codec.JSON, zstd.Options{MaxSize: 10})
	if err != nil {
		t.Fatal(err)
	}
	large, err := zstd.New(codec.JSON, zstd.Options{})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name          string
		sends, runs   codec.Codec
		contentType   string
		message, that string
	}{
		{"unknown content type", cbor.Codec, codec.JSON, "application/cbor", "unknown content type", "application/json"},
		{"wrapped and not", wrapped(t, codec.JSON), codec.JSON, "application/json+zstd+aesgcm", "unknown content type", "application/json"},
		{"not wrapped", codec.JSON, wrapped(t, codec.JSON), "", "", ""}, // JSON is always known
		{"unknown key", secret(1), secret(2), "application/json+aesgcm", "unknown key", `"b"`},
		{"tampered", tampering{secret(1)}, secret(1), "application/json+aesgcm", "not authentic", `"b"`},
		{"bomb", large, small, "application/json+zstd", "too large", "limit 10"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			sends, runs := pair(t, chicory.Config{Codec: tt.sends}, chicory.Config{Codec: tt.runs})
			task := chicory.Define[addArgs, addArgs]("swap").On(sends)
			res, err := task.Delay(t.Context(), addArgs{1, 2})
			if err != nil {
				t.Fatal(err)
			}
			_, err = res.Get(t.Context())
			if tt.message == "" { // the worker read it; the producer cannot read the answer
				if !errors.Is(err, codec.ErrUnknown) {
					t.Errorf("got %v, want that the result's codec is unknown", err)
				}
				return
			}
			var te *chicory.TaskError
			if !errors.As(err, &te) || te.Reason != "undecodable" || te.Attempt != 1 || te.State != chicory.StateDeadLettered ||
				!strings.Contains(te.Message, tt.message) || !strings.Contains(te.Message, tt.that) {
				t.Fatalf("got %v, want it dead-lettered as undecodable, with %q and %q", err, tt.message, tt.that)
			}
			dead, err := runs.DeadLetters("default").Get(t.Context(), res.ID())
			if err != nil || dead.Reason != "undecodable" {
				t.Fatalf("dead letter: %+v, %v", dead, err)
			}
			eng, err := runs.Core().Engine()
			if err != nil {
				t.Fatal(err)
			}
			ms, err := eng.Broker.DeadLetters("default").Get(t.Context(), res.ID())
			var env engine.Envelope
			if err != nil || len(ms) != 1 || engine.DecodeEnvelope(ms[0].Envelope, &env) != nil || env.ContentType != tt.contentType {
				t.Errorf("what is kept: %v, %v, content type %q", ms, err, env.ContentType)
			}
			if tt.name == "bomb" {
				return // no argument is small enough
			}
			again, err := chicory.Define[addArgs, addArgs]("swap").On(runs).Delay(t.Context(), addArgs{X: 1})
			if err != nil {
				t.Fatal(err)
			}
			if v, err := again.Get(t.Context()); v.Y != 1 || err != nil {
				t.Errorf("the task after it: %v, %v", v, err)
			}
		})
	}
}

// tampering flips the last bit of what it encodes.
type tampering struct{ codec.Codec }

func (c tampering) Append(dst []byte, v any) ([]byte, error) {
	b, err := c.Codec.Append(dst, v)
	if err == nil {
		b[len(b)-1] ^= 1
	}
	return b, err
}

func TestCodecMistakes(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]chicory.Config{
		"nil":       {URL: "memory:", Codecs: []codec.Codec{nil}},
		"twice":     {URL: "memory:", Codecs: []codec.Codec{cbor.Codec, cbor.Codec}},
		"own again": {URL: "memory:", Codecs: []codec.Codec{codec.JSON}},
	} {
		if _, err := chicory.New(cfg); !errors.Is(err, chicory.ErrValidation) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
