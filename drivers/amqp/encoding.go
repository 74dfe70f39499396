package amqp

import (
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/wire"
	amqp "github.com/rabbitmq/amqp091-go"
)

// A body is a version, then fields of package wire: the copy, the moment it is due in
// Unix milliseconds if its delay is longer than the queues wait at once, the message.
// Nothing is kept in headers: the server adds to them, and what it adds must not come
// back to it.
const bodyVersion = 1

// contentType tells people who look at a queue what they see.
const contentType = "application/vnd.chicory.message"

// An item is a message on its way to the server.
type item struct {
	m     *driver.Message
	copy  string
	ms    int64 // delay
	again bool  // it is given back, and keeps its copy
}

// encode makes a publishing of i.
func (i *item) encode(longest int64) amqp.Publishing {
	var due int64
	if i.ms > longest {
		due = time.Now().UnixMilli() + i.ms
	}
	m := *i.m
	m.Delay = 0
	e := wire.Encoder{B: make([]byte, 0, 96+len(m.ID)+len(m.Queue)+len(m.ReplyTo)+len(m.Envelope))}
	e.B = append(e.B, bodyVersion)
	e.Text(i.copy)
	e.Int(due)
	e.Message(&m)
	p := amqp.Publishing{DeliveryMode: amqp.Persistent, ContentType: contentType, MessageId: m.ID,
		CorrelationId: i.copy, Timestamp: time.Now(), Body: e.B}
	if m.Dead != nil {
		p.Type = m.Dead.Reason
	}
	return p
}

// decode takes a body apart.
func decode(body []byte) (m *driver.Message, copyName string, due int64, err error) {
	if len(body) == 0 || body[0] != bodyVersion {
		return nil, "", 0, wire.ErrDamaged
	}
	d := wire.Decoder{B: body[1:]}
	copyName, due = d.Text(), d.Int()
	m = d.Message()
	if d.Err == nil && (driver.CheckID(m.ID) != nil || driver.CheckQueue(m.Queue) != nil) {
		d.Err = wire.ErrDamaged
	}
	return m, copyName, due, d.Err
}

// deaths is how often a stored message came to a worker that died. Of a classic queue
// only whether it did is known.
func deaths(d *amqp.Delivery) int {
	if n, ok := d.Headers["x-delivery-count"].(int64); ok {
		return int(n)
	}
	if d.Redelivered {
		return 1
	}
	return 0
}
