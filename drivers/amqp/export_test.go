package amqp

import (
	"net"
	"strings"
)

// Kill ends b as the death of its process would: without a goodbye.
func Kill(b *Broker) {
	for _, l := range []*link{b.publishing, b.consuming} {
		l.rude.Store(true)
		l.mu.Lock()
		l.closed = true
		s := l.current
		l.mu.Unlock()
		l.cancel()
		if s != nil {
			s.raw.Close()
		}
	}
}

// Cut cuts b's connections, which it opens again.
func Cut(b *Broker) {
	for _, l := range []*link{b.publishing, b.consuming} {
		l.mu.Lock()
		s := l.current
		l.mu.Unlock()
		if s != nil {
			s.raw.Close()
		}
	}
}

// SetLongest has b wait for ms milliseconds at once, and arm longer delays again.
func SetLongest(b *Broker, ms int64) { b.longest = ms }

// Names are all names and keys on the server that a queue makes, and the longest delay's.
func Names(prefix, namespace, queue string) []string {
	n := newNames(prefix, namespace)
	out := []string{n.dead(queue), n.lock(queue)}
	for level := range levels {
		out = append(out, n.task(queue, level), delayOf(maxDelay, maxDelay).key(key(queue, level)))
	}
	return append(out, n.wait(digits-1, radix-1))
}

// QueueOf is the queue that a name on the server tells.
func QueueOf(prefix, namespace, name string) (string, bool) {
	return newNames(prefix, namespace).queueOf(name)
}

// Waits is how long a message waits whose delay is ms, as the server's queues would have
// it: at each digit's exchange it goes to the queue, or past them, that its key names.
func Waits(ms int64) (total int64) {
	d := delayOf(ms, maxDelay)
	k := strings.Split(d.key("q"), ".")
	for l := d.top; l >= 0; l-- {
		for v := range radix {
			if words := strings.Split(pattern(l, v), "."); words[len(words)-2] == k[len(words)-2] && v > 0 {
				total += names{}.waitThings(l, v)[0].args["x-message-ttl"].(int64)
			}
		}
	}
	return total
}

// Behind returns c, written to without waiting.
func Behind(c net.Conn) net.Conn { return newConn(c) }

// UpTo adds tags to a set, and returns up to which all are in it and how many runs it has.
func UpTo(add ...uint64) (last uint64, runs int) {
	var s tags
	for _, tag := range add {
		s.add(tag)
	}
	return s.upTo(), len(s.runs)
}
