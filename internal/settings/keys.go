package settings

import (
	"strings"
	"time"

	"github.com/chicory-go/chicory/driver"
)

// A Key is one setting.
type Key struct {
	Name    string   // in a file; see also Variable and Flag
	Fields  []string // of chicory.Config and worker.Options that it sets
	Default string   // as a value is written; empty: what Doc says
	Doc     string   // one sentence
	HasFlag bool     // worker.Main has a flag for it
	Secret  bool     // it may hold a password: no error repeats it, and a file may hold it

	store bool // where messages and results are: one source says all of these
	kind  kind
}

// Variable is the name of the key in the environment.
func (k *Key) Variable() string { return Prefix + strings.ToUpper(k.Name) }

// Flag is the name of the key as a flag, without dashes before it.
func (k *Key) Flag() string { return strings.ReplaceAll(k.Name, "_", "-") }

// Want says what its values are, after the word "want".
func (k *Key) Want() string { return k.kind.want }

// IsSwitch reports whether its values are true and false.
func (k *Key) IsSwitch() bool { return k.kind.want == wantSwitch }

// KeyLogLevel is the key that sets no field: it makes a logger.
const KeyLogLevel = "log_level"

// Keys are all keys, those of apps before those of workers.
var Keys = []Key{
	{Name: "url", Fields: []string{"Config.URL"}, store: true, Secret: true, HasFlag: true, kind: address,
		Doc: "Store for messages and, if its driver has a backend, results."},
	{Name: "broker", Fields: []string{"Config.Broker"}, store: true, kind: driverName,
		Doc: "Driver of the broker; by default the one of its URL's scheme."},
	{Name: "broker_url", Fields: []string{"Config.BrokerURL"}, store: true, Secret: true, kind: address,
		Doc: "Store for messages, apart from `url`."},
	{Name: "backend", Fields: []string{"Config.Backend"}, store: true, kind: driverName,
		Doc: "Driver of the backend; `none` keeps no results."},
	{Name: "backend_url", Fields: []string{"Config.BackendURL"}, store: true, Secret: true, kind: address,
		Doc: "Store for results, apart from `url`."},
	{Name: "namespace", Fields: []string{"Config.Namespace"}, Default: "chicory",
		kind: text("a text of a-z, 0-9, _ and -", driver.CheckNamespace),
		Doc:  "Keeps applications on one store apart."},
	{Name: "queue", Fields: []string{"Config.Queue"}, Default: "default",
		kind: text("the name of a queue, 1 to 200 bytes", driver.CheckQueue),
		Doc:  "Queue of tasks that name none."},
	{Name: "delivery", Fields: []string{"Config.Delivery"}, Default: "at-least-once", kind: oneOf("at-least-once", "at-most-once"),
		Doc: "Delivery of tasks that say nothing."},
	{Name: "max_retries", Fields: []string{"Config.MaxRetries"}, Default: "3", kind: numberOrNone,
		Doc: "Attempts beyond the first."},
	{Name: "backoff", Fields: []string{"Config.Backoff"}, Default: "exponential 1s 5m",
		kind: itself("`fixed 30s`, `linear 10s 5m` or `exponential 1s 5m`, then `factor=3` or `jitter=0.5` if wanted"),
		Doc:  "Wait between attempts: the first, and the longest."},
	{Name: "timeout", Fields: []string{"Config.Timeout"}, Default: "15m", kind: duration("none"),
		Doc: "How long a handler may run."},
	{Name: "result_ttl", Fields: []string{"Config.ResultTTL"}, Default: "24h", kind: duration("forever"),
		Doc: "How long a result is kept from the end of its task."},
	{Name: "dlq", Fields: []string{"Config.NoDeadLetters", "Options.NoDeadLetters"}, Default: "true", HasFlag: true, kind: inverse,
		Doc: "Keep tasks that failed for good among the dead letters."},
	{Name: "max_payload", Fields: []string{"Config.MaxPayload"}, Default: "1048576", kind: number,
		Doc: "Most bytes of an encoded argument with its headers."},
	{Name: "max_result", Fields: []string{"Config.MaxResult"}, Default: "1048576", kind: number,
		Doc: "Most bytes of an encoded result."},
	{Name: "result_sweep", Fields: []string{"Config.ResultSweep"}, Default: "5s", kind: duration("none"),
		Doc: "How often results that are waited for are read although nothing was pushed."},
	{Name: "validation", Fields: []string{"Config.Validation"}, Default: "inputs", kind: oneOf("none", "inputs", "outputs", "strict"),
		Doc: "Values that are checked of tasks that say nothing."},
	{Name: "codec", Fields: []string{"Config.Codec"}, Default: "application/json", kind: codecName,
		Doc: "Encoding of arguments and results."},

	{Name: "concurrency", Fields: []string{"Options.Concurrency"}, HasFlag: true, kind: number,
		Doc: "Handlers that run at once; by default the number of cores."},
	{Name: "queues", Fields: []string{"Options.Queues"}, HasFlag: true,
		kind: itself("names with weights, as in `images=3,mail`; in a file also a list"),
		Doc:  "Queues to serve; by default those of the registered tasks."},
	{Name: "strict", Fields: []string{"Options.Strict"}, Default: "false", HasFlag: true, kind: boolean,
		Doc: "Serve a queue only while those before it are empty."},
	{Name: "prefetch", Fields: []string{"Options.Prefetch"}, kind: number,
		Doc: "Most deliveries held and not settled; by default twice the concurrency."},
	{Name: "lease", Fields: []string{"Options.Lease"}, Default: "30s", kind: within(time.Second, driver.MaxLease),
		Doc: "How long a silent worker keeps its tasks; all workers of a queue must agree."},
	{Name: "max_deliveries", Fields: []string{"Options.MaxDeliveries"}, Default: "5", kind: number,
		Doc: "Deliveries of a task whose workers die, before it is poison."},
	{Name: "shutdown_timeout", Fields: []string{"Options.ShutdownTimeout"}, Default: "25s", HasFlag: true, kind: durationOrZero,
		Doc: "Grace for running handlers at a stop."},
	{Name: "dead_letter_age", Fields: []string{"Options.DeadLetterAge"}, Default: "720h", kind: duration("forever"),
		Doc: "How long dead letters are kept."},
	{Name: "worker_name", Fields: []string{"Options.Name"}, kind: text("a text", nil),
		Doc: "Tells a worker from others; by default host, process and a number."},
	{Name: KeyLogLevel, Default: "info", HasFlag: true, kind: level,
		Doc: "Least level of what a worker logs to standard error."},
}

// Find returns the key of that name, or nil.
func Find(name string) *Key {
	for i := range Keys {
		if Keys[i].Name == name {
			return &Keys[i]
		}
	}
	return nil
}

// Defaults are the values that the table calls defaults, for tests to compare with what
// is done.
func Defaults() Values {
	values := Values{}
	for _, k := range Keys {
		if k.Default != "" {
			values[k.Name] = Value{Texts: []string{k.Default}, From: k.Name}
		}
	}
	return values
}
