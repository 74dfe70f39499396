package redis

import (
	"context"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/redis/go-redis/v9"
)

// OpenBroker opens a broker with a client of its own.
func OpenBroker(ctx context.Context, ro *redis.Options, namespace string, o *Options) (*Broker, error) {
	c, err := dial(ctx, ro, o, namespace)
	if err != nil {
		return nil, err
	}
	return newBroker(c), nil
}

// OpenBackend opens a backend that shares the client of broker, if that is of
// the same server and namespace.
func OpenBackend(ctx context.Context, ro *redis.Options, namespace string, o *Options, broker driver.Broker) (*Backend, error) {
	if b, ok := driver.As[*Broker](broker); ok && b.conn.ns == namespace && b.conn.share() {
		return newBackend(b.conn), nil
	}
	c, err := dial(ctx, ro, o, namespace)
	if err != nil {
		return nil, err
	}
	return newBackend(c), nil
}

// DecodeMessage and DecodeDead decode what is stored.
var (
	DecodeMessage = decodeMessage
	DecodeDead    = decodeDead
)

// Scripts are some of the scripts.
var Scripts = map[string]*script{"publish": publishScript, "claim": claimScript, "settle": settleScript, "apply": applyScript,
	"control": controlScript, "get": getScript}

// Text is the source of s.
func (s *script) Text() string { return s.text }

// Digest is how clients name s to the server.
func (s *script) Digest() string { return s.sha }

// Watches counts the calls that watch an ID.
func Watches(n driver.Notifications, id string) int {
	own := n.(*notifications)
	own.mu.Lock()
	defer own.mu.Unlock()
	return own.ids[id]
}

// Awaits counts those who wait for a change of a control key.
func Awaits(b *Broker) int {
	h := b.conn.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.changes)
}

// Relist says that it is time to list queues anew.
func Relist(b *Broker) {
	h := b.conn.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	h.relists = time.Time{}
}

// Leaves counts how often a subscription was to wait no more.
func Leaves(s driver.Subscription) uint64 { return s.(*subscription).leaves.Load() }
