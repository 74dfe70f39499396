package amqp

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
