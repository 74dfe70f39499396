package amqp

import (
	"cmp"
	"encoding/json"
	"fmt"

	"github.com/chicory-go/chicory/driver"
)

// Definitions returns a definitions file of RabbitMQ with all that brokers of namespace
// need for queues in a virtual host, as JSON: every queue, exchange and binding. An
// administrator imports it, with "rabbitmqctl import_definitions" or the management
// API, for accounts without the right to configure, whose brokers are opened with
// [Options.Passive]. Such an account writes to and reads from names that begin with the
// prefix; to look through dead letters it also configures, writes and reads the names
// that begin with <prefix>.<namespace>.lock. of the options. Version is the server's, "3.10"
// for example, which decides on arguments that old servers do not know.
func Definitions(vhost, namespace string, queues []string, version string, o *Options) ([]byte, error) {
	var opts Options
	if o != nil {
		opts = *o
	}
	if err := cmp.Or(opts.check(), driver.CheckNamespace(namespace)); err != nil {
		return nil, err
	}
	v, err := parseVersion(version)
	if err != nil {
		return nil, err
	}
	n := newNames(cmp.Or(opts.Prefix, defaultPrefix), namespace)
	var ts []thing
	for _, q := range queues {
		if err := driver.CheckQueue(q); err != nil {
			return nil, fmt.Errorf("amqp: definitions: %w", err)
		}
		ts = append(ts, need{queue: q, dead: true}.things(n, &opts, v)...)
		for level := range levels {
			ts = append(ts, need{queue: q, level: level, digits: digits}.things(n, &opts, v)...)
		}
	}
	return json.MarshalIndent(defined(vhost, ts), "", " ")
}

// A definitions file holds lists of these.
type (
	definedQueue struct {
		Name       string         `json:"name"`
		Vhost      string         `json:"vhost"`
		Durable    bool           `json:"durable"`
		AutoDelete bool           `json:"auto_delete"`
		Arguments  map[string]any `json:"arguments"`
	}
	definedExchange struct {
		Name       string         `json:"name"`
		Vhost      string         `json:"vhost"`
		Type       string         `json:"type"`
		Durable    bool           `json:"durable"`
		AutoDelete bool           `json:"auto_delete"`
		Internal   bool           `json:"internal"`
		Arguments  map[string]any `json:"arguments"`
	}
	definedBinding struct {
		Source          string         `json:"source"`
		Vhost           string         `json:"vhost"`
		Destination     string         `json:"destination"`
		DestinationType string         `json:"destination_type"`
		RoutingKey      string         `json:"routing_key"`
		Arguments       map[string]any `json:"arguments"`
	}
	definitions struct {
		Queues    []definedQueue    `json:"queues"`
		Exchanges []definedExchange `json:"exchanges"`
		Bindings  []definedBinding  `json:"bindings"`
	}
)

// defined lists things, each once.
func defined(vhost string, ts []thing) (d definitions) {
	seen, none := map[string]bool{}, map[string]any{}
	for i := range ts {
		t := &ts[i]
		if seen[t.id()] {
			continue
		}
		seen[t.id()] = true
		switch {
		case t.queue != "":
			d.Queues = append(d.Queues, definedQueue{t.queue, vhost, true, false, t.args})
		case t.exchange != "":
			d.Exchanges = append(d.Exchanges, definedExchange{t.exchange, vhost, "topic", true, false, false, none})
		default:
			kind := "exchange"
			if t.binding.toQueue {
				kind = "queue"
			}
			d.Bindings = append(d.Bindings, definedBinding{t.binding.source, vhost, t.binding.to, kind, t.binding.key, none})
		}
	}
	return d
}
