package amqp

import (
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// levels is the number of priorities, each a queue of its own: a quorum queue of
// RabbitMQ before 4.3 knows none, or two.
const levels = 3

// suffixes are the ends of the names of a queue's levels.
var suffixes = [levels]string{"low", "mid", "high"}

// level maps a priority to one of three: 0 to 2, 3 to 6, 7 to 9.
func level(priority uint8) int {
	switch {
	case priority < 3:
		return 0
	case priority < 7:
		return 1
	}
	return 2
}

const (
	digits  = 8  // of a delay in milliseconds
	radix   = 16 // each with queues of its own
	maxName = 120
)

// maxDelay is how long, in milliseconds, the server's queues wait at once.
const maxDelay = 1<<(4*digits) - 1

// names are those of queues and exchanges on the server, of at most 255 bytes, all
// under one prefix and namespace:
//
//	<base>.q.<queue>.<low|mid|high>  tasks
//	<base>.dead.<queue>              dead letters
//	<base>.lock.<queue>              who has it looks through the dead letters
//	<base>.delay.<l>.<v>             waits v * 16^l ms
//	<base>.delay.<l>, <base>.delay   exchanges before and behind these
type names struct{ base string }

func newNames(prefix, namespace string) names { return names{prefix + "." + namespace} }

func escape(queue string) string { return driver.EscapeMax(queue, maxName) }

func (n names) task(queue string, level int) string { return n.base + ".q." + key(queue, level) }
func (n names) dead(queue string) string            { return n.base + ".dead." + escape(queue) }
func (n names) lock(queue string) string            { return n.base + ".lock." + escape(queue) }
func (n names) wait(l, v int) string                { return fmt.Sprintf("%s.delay.%d.%d", n.base, l, v) }
func (n names) due() string                         { return n.base + ".delay" }

// digit is the exchange before the queues of digit l of a delay.
func (n names) digit(l int) string { return fmt.Sprintf("%s.delay.%d", n.base, l) }

// behind is the exchange behind the queues of digit l.
func (n names) behind(l int) string {
	if l == 0 {
		return n.due()
	}
	return n.digit(l - 1)
}

// key is the end of a routing key.
func key(queue string, level int) string { return escape(queue) + "." + suffixes[level] }

// queueOf is the queue whose level has a name on the server: false if it has none of n's,
// or one that was too long to be kept in it.
func (n names) queueOf(name string) (queue string, ok bool) {
	rest, ok := strings.CutPrefix(name, n.base+".q.")
	end := strings.LastIndexByte(rest, '.')
	if !ok || end < 0 {
		return "", false
	}
	queue, err := url.PathUnescape(rest[:end])
	return queue, err == nil && escape(queue) == rest[:end]
}

// A delay is one that the server's queues wait for at once.
type delay struct {
	ms  int64
	top int // its highest digit that is not 0
}

// delayOf is what is waited for at once of ms, more than 0: longest at most.
func delayOf(ms, longest int64) delay {
	d := delay{ms: min(ms, longest)}
	for v := d.ms >> 4; v > 0; v >>= 4 {
		d.top++
	}
	return d
}

func (d delay) digit(l int) int { return int(d.ms>>(4*l)) % radix }

// key is the routing key of a message that waits for d and goes on to end.
func (d delay) key(end string) string {
	b := make([]byte, 0, 3*digits+len(end))
	for l := digits - 1; l >= 0; l-- {
		b = append(strconv.AppendInt(b, int64(d.digit(l)), 10), '.')
	}
	return string(append(b, end...))
}

// pattern is the binding key for value v of digit l.
func pattern(l, v int) string {
	return strings.Repeat("*.", digits-1-l) + fmt.Sprintf("%d.#", v)
}

// millis rounds up.
func millis(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	return int64((d-1)/time.Millisecond) + 1
}
