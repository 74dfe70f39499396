package redis

import (
	"context"
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/redis/go-redis/v9"
)

//go:embed lua/*.lua
var sources embed.FS

// A script is what a call does, in one step. It is made of parts, those that
// it needs and no others: the server runs all of it at every call.
type script struct{ text, sha string }

func newScript(parts ...string) *script {
	var b strings.Builder
	for _, part := range parts {
		text, err := sources.ReadFile("lua/" + part + ".lua")
		if err != nil {
			panic(err) // it is embedded
		}
		b.Write(text)
	}
	text := inline(b.String())
	sum := sha1.Sum([]byte(text))
	return &script{text, hex.EncodeToString(sum[:])}
}

// numbers are lines that give names to numbers.
var numbers = regexp.MustCompile(`(?m)^local ([A-Z_]+(?:, [A-Z_]+)*) = ([0-9* ]+(?:, [0-9* ]+)*)(?: --.*)?$`)

// inline puts numbers where their names stand: a function that is made pays for
// every name that it takes from outside, at each run.
func inline(text string) string {
	for _, line := range numbers.FindAllStringSubmatch(text, -1) {
		text = strings.Replace(text, line[0], "", 1)
		values := strings.Split(line[2], ", ")
		for i, name := range strings.Split(line[1], ", ") {
			text = regexp.MustCompile(`\b`+name+`\b`).ReplaceAllString(text, "("+strings.TrimSpace(values[i])+")")
		}
	}
	return text
}

var (
	publishScript    = newScript("record", "queue", "add", "publish")
	claimScript      = newScript("record", "queue", "claim")
	leaveScript      = newScript("queue", "leave")
	settleScript     = newScript("drains", "record", "queue", "add", "settle")
	extendScript     = newScript("queue", "extend")
	subscribeScript  = newScript("drains", "subscribe")
	listScript       = newScript("drains", "list")
	startScript      = newScript("drains", "record", "queue", "start")
	applyScript      = newScript("drains", "record", "apply")
	getScript        = newScript("record", "get")
	deleteScript     = newScript("drains", "record", "delete")
	deadListScript   = newScript("dead_list")
	deadGetScript    = newScript("dead_get")
	deadRemoveScript = newScript("record", "dig", "dead_remove")
	deadPurgeScript  = newScript("record", "dig", "dead_purge")
	deadReplayScript = newScript("record", "queue", "dig", "dead_replay")
	purgeScript      = newScript("record", "queue", "purge")
	inspectScript    = newScript("record", "queue", "inspect")
	controlScript    = newScript("drains", "record", "control")
)

// A reply is what a script returned.
type reply struct {
	value any
	err   error
}

// run runs s on the node of a cluster that has key. It obeys the deadline of ctx, and
// its cancellation before anything is sent: a call that it does not wait for any more
// may still be carried out.
func (c *conn) run(ctx context.Context, s *script, key string, args ...any) (any, error) {
	if err := ctx.Err(); err != nil {
		return nil, driver.Transient(err)
	}
	if c.bounded {
		value, err := c.eval(ctx, s, key, args)
		if err != nil && ctx.Err() != nil {
			err = ctx.Err()
		}
		return value, err
	}
	r, late := c.start(ctx, func(ctx context.Context) (any, error) { return c.eval(ctx, s, key, args) })
	if late != nil {
		return nil, ctx.Err()
	}
	return r.value, r.err
}

// start starts a call. If ctx ends before there is a reply, that will be in late; but
// for a cancellation the caller waits, rather than that each call were another
// goroutine's.
func (c *conn) start(ctx context.Context, call func(ctx context.Context) (any, error)) (r reply, late <-chan reply) {
	if err := ctx.Err(); err != nil {
		return reply{nil, driver.Transient(err)}, nil
	}
	if _, limited := ctx.Deadline(); ctx.Done() == nil || c.bounded && !limited {
		value, err := call(context.WithoutCancel(ctx))
		return reply{value, err}, nil
	}
	replies := make(chan reply, 1)
	c.behind(func() {
		value, err := call(context.WithoutCancel(ctx))
		replies <- reply{value, err}
	})
	select {
	case r := <-replies:
		return r, nil
	case <-ctx.Done():
		return reply{}, replies
	}
}

// behind calls do from a goroutine that is idle, or from a new one: they are kept for
// a while, as the stack that a call has grown is worth keeping.
func (c *conn) behind(do func()) {
	select {
	case c.idle <- do:
	default:
		go c.serve(do)
	}
}

func (c *conn) serve(do func()) {
	rest := time.NewTimer(idleFor)
	defer rest.Stop()
	for {
		do()
		rest.Reset(idleFor)
		select {
		case do = <-c.idle:
		case <-rest.C:
			return
		case <-c.hub.ended:
			return
		}
	}
}

func (c *conn) eval(ctx context.Context, s *script, key string, args []any) (any, error) {
	value, err := c.once(ctx, "evalsha", s.sha, key, args)
	if redis.HasErrorPrefix(err, "NOSCRIPT") { // nothing was done
		value, err = c.once(ctx, "eval", s.text, key, args)
	}
	if err != nil {
		return nil, c.classify(err)
	}
	c.silence.answered()
	return value, nil
}

func (c *conn) once(ctx context.Context, command, s, key string, args []any) (any, error) {
	all := append(make([]any, 0, 5+len(args)), command, s)
	if c.cluster { // two keys, so that a slot that is being moved is no use until it has: see lua/drains.lua
		all = append(all, 2, key, key+":")
	} else {
		all = append(all, 0)
	}
	cmd := once{redis.NewCmd(ctx, append(all, args...)...)}
	c.rdb.Process(ctx, cmd)
	return cmd.Result()
}

// A once is a command that its client does not repeat after a lost reply, whatever
// the client's MaxRetries is: it may have been carried out.
type once struct{ *redis.Cmd }

// NoRetry implements [redis.Cmder].
func (once) NoRetry() bool { return true }

// Clone implements [redis.Cmder].
func (o once) Clone() redis.Cmder { return once{o.Cmd.Clone().(*redis.Cmd)} }

// refusals begin the errors with which a server says that it has done nothing.
var refusals = []string{"LOADING", "READONLY", "MASTERDOWN", "MISCONF", "BUSY", "NOREPLICAS",
	"CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK"}

// classify says of an error what it means: after a transient one nothing was
// done.
func (c *conn) classify(err error) error {
	if errors.Is(err, redis.ErrClosed) {
		if c.closed.Load() {
			return driver.ErrClosed
		}
		return driver.Transient(fmt.Errorf("redis: %w", err))
	}
	wrapped := fmt.Errorf("redis: %w", err)
	if strings.Contains(err.Error(), "OOM command not allowed") {
		return driver.Transient(fmt.Errorf("redis: %w: %w", driver.ErrFull, err))
	}
	for _, refusal := range refusals {
		if redis.HasErrorPrefix(err, refusal) {
			return driver.Transient(wrapped)
		}
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Op == "dial" || errors.Is(err, redis.ErrPoolTimeout) || errors.Is(err, redis.ErrPoolExhausted) {
		return driver.Transient(wrapped)
	}
	return wrapped // io.EOF and others: nobody knows
}
