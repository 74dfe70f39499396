package engine

import (
	"bytes"
	"errors"
	"reflect"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/chicory-go/chicory/driver"
)

func full() Envelope {
	return Envelope{
		Name: "images.resize", ContentType: "application/json", Body: []byte(`{"a":1}`),
		Headers: map[string]string{"k": "v", "": ""},
		Policy: Policy{Set: FieldTimeout | FieldRetries | FieldBackoff | FieldTTL | FieldIgnore | FieldDead,
			Timeout: -1, Retries: 0, TTL: time.Hour, IgnoreResult: true,
			Backoff: Backoff{Curve: Exponential, Base: time.Second, Max: time.Minute, Factor: 1.5, Jitter: 0.25}},
		History: []driver.FailedAttempt{{Attempt: 1, At: 5, Kind: "k", Message: "m", Worker: "w"}},
	}
}

func TestEnvelopeRoundTrip(t *testing.T) {
	t.Parallel()
	for _, want := range []Envelope{full(), {Name: "n", ContentType: "x", Body: []byte{}}} {
		var got Envelope
		if err := DecodeEnvelope(want.Encode(), &got); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got  %+v\nwant %+v", got, want)
		}
	}
}

func TestEnvelopeKeepsUnknownFields(t *testing.T) {
	t.Parallel()
	e := full()
	newer := protowire.AppendString(protowire.AppendTag(e.Encode(), 99, protowire.BytesType), "later")
	var got Envelope
	if err := DecodeEnvelope(newer, &got); err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(got.Encode(), []byte("later")) {
		t.Error("a field of a newer writer was lost on republish")
	}
}

func TestEnvelopeRefuses(t *testing.T) {
	t.Parallel()
	newer := protowire.AppendVarint(protowire.AppendTag(nil, fVersion, protowire.VarintType), EnvelopeVersion+1)
	tests := []struct {
		name string
		in   []byte
		want error
	}{
		{"empty", nil, ErrEnvelope},
		{"garbage", []byte("\xff\xff\xff"), ErrEnvelope},
		{"truncated", (&Envelope{Name: "abc"}).Encode()[:4], ErrEnvelope},
		{"no name", (&Envelope{Body: []byte("x")}).Encode(), ErrEnvelope},
		{"newer", newer, ErrNewerEnvelope},
	}
	for _, tt := range tests {
		var e Envelope
		if err := DecodeEnvelope(tt.in, &e); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	e := full()
	whole := e.Encode()
	f.Add(whole)
	f.Add(whole[:len(whole)/2])
	f.Add(append(bytes.Clone(whole), whole...)) // the last of each field counts
	f.Add(protowire.AppendString(protowire.AppendTag(bytes.Clone(whole), 99, protowire.BytesType), "later"))
	f.Add(protowire.AppendTag(bytes.Clone(whole), 50, protowire.StartGroupType))
	f.Add(protowire.AppendVarint(protowire.AppendTag(nil, fVersion, protowire.VarintType), EnvelopeVersion+1))
	f.Add((&Envelope{Name: "n", ContentType: "application/json+zstd+aesgcm"}).Encode())
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		var e, again Envelope
		if DecodeEnvelope(b, &e) != nil {
			return
		}
		if err := DecodeEnvelope(e.Encode(), &again); err != nil {
			t.Fatalf("what was decoded does not survive encoding: %v", err)
		}
		if again.Name != e.Name || !bytes.Equal(again.Body, e.Body) || again.Policy.Set != e.Policy.Set {
			t.Fatalf("got %+v, want %+v", again, e)
		}
	})
}

func TestBackoffNeverExceedsItsMaximum(t *testing.T) {
	t.Parallel()
	for _, b := range []Backoff{
		{Curve: Fixed, Base: time.Second, Max: time.Second},
		{Curve: Linear, Base: time.Second, Max: 5 * time.Second, Jitter: 0.2},
		{Curve: Exponential, Base: time.Second, Max: 100 * time.Second, Factor: 2, Jitter: 1},
		{Curve: Exponential, Base: time.Hour, Factor: 10},
	} {
		for n := uint32(0); n < 200; n++ {
			if d := b.Wait(n); d < 0 || b.Max > 0 && d > b.Max {
				t.Fatalf("%+v after attempt %d: got %v", b, n, d)
			}
		}
	}
	exact := Backoff{Curve: Exponential, Base: time.Second, Max: time.Minute, Factor: 2}
	for n, want := range map[uint32]time.Duration{1: time.Second, 2: 2 * time.Second, 4: 8 * time.Second, 9: time.Minute} {
		if got := exact.Wait(n); got != want {
			t.Errorf("attempt %d: got %v, want %v", n, got, want)
		}
	}
}

func TestPolicyOver(t *testing.T) {
	t.Parallel()
	base := Policy{Set: FieldRetries | FieldQueue, Retries: 3, Queue: "base"}
	got := Policy{Set: FieldRetries, Retries: 0}.Over(&base)
	if got.Retries != 0 || got.Queue != "base" {
		t.Errorf("got %+v, want what is set kept, zero included, and the rest from the base", got)
	}
}
