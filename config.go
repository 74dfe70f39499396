package chicory

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/chicory-go/chicory/codec"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/engine"
	"github.com/chicory-go/chicory/internal/settings"
)

// BrokerType names a broker's driver. Any registered name works; the constants
// are those of this module.
type BrokerType string

// The brokers of this module.
const (
	BrokerMemory BrokerType = "memory" // in this process: drivers/memory
	BrokerBolt   BrokerType = "bolt"   // in one file: drivers/bolt
	BrokerRedis  BrokerType = "redis"  // Redis: drivers/redis
	BrokerAMQP   BrokerType = "amqp"   // RabbitMQ: drivers/amqp
)

// BackendType names a backend's driver. Any registered name works.
type BackendType string

// The backends of this module.
const (
	BackendMemory BackendType = "memory" // in this process: drivers/memory
	BackendBolt   BackendType = "bolt"   // in one file: drivers/bolt
	BackendRedis  BackendType = "redis"  // Redis: drivers/redis
	// BackendNone says on purpose that results are not kept.
	BackendNone BackendType = "none"
)

// Config configures an app. URL alone is enough; every other zero value is the
// documented default. What is zero and can be written as a text is first taken
// from the environment: URL from CHICORY_URL, MaxRetries from
// CHICORY_MAX_RETRIES, and so on; docs/configuration.md lists all. URL, Broker,
// BrokerURL, Backend and BackendURL are one: if any of them is set, none is
// taken from the environment. A variable that is wrong, or that nobody knows,
// is an error of New. Package config reads a file too.
type Config struct {
	// URL of the store for messages and, if its driver has a backend, results:
	// "memory:", "bolt:jobs.db", "redis://localhost:6379", "amqp://localhost".
	URL string
	// Broker and BrokerURL set the broker apart. A type without a URL takes
	// URL if the scheme fits, otherwise the driver's default.
	Broker    BrokerType
	BrokerURL string
	// Backend and BackendURL set the backend apart.
	Backend    BackendType
	BackendURL string

	// Namespace keeps applications on one store apart: [a-z0-9_-]+, default
	// "chicory".
	Namespace string
	// Queue of tasks that name none; default "default".
	Queue string
	// Delivery of tasks that say nothing: AtLeastOnceDelivery.
	Delivery DeliveryMode
	// MaxRetries is attempts beyond the first: 0 is 3, NoRetries is none.
	MaxRetries int
	// Backoff between attempts: the zero value is Exponential(time.Second,
	// 5*time.Minute).
	Backoff Backoff
	// Timeout of handlers: 0 is 15 minutes, NoTimeout is none.
	Timeout time.Duration
	// ResultTTL from the end of the task: 0 is 24 hours, Forever is for ever.
	ResultTTL time.Duration
	// NoDeadLetters ends tasks that failed for good as FAILURE.
	NoDeadLetters bool
	// MaxPayload and MaxResult are the limits of an encoded argument with its
	// headers, and of a result, in bytes: 0 is 1 MiB.
	MaxPayload, MaxResult int

	// ResultSweep is how often, on average, the records of results that are
	// waited for are read again although nothing was pushed: a safety net for
	// lost notifications. 0 is 5 seconds, NoSweep is never. Backends without
	// notifications are polled whatever it says.
	ResultSweep time.Duration

	// Validation says which values are checked of tasks that do not say it:
	// empty is ValidationInputs.
	Validation ValidationMode
	// Validator checks values beside their own Validate methods, of every task
	// whose mode asks for it, such as by struct tags: see package validate. It
	// must be safe for concurrent use; nil is none.
	Validator func(v any) error

	// Codec encodes arguments and results; nil is JSON.
	Codec codec.Codec
	// Codecs are further codecs to decode with, beside Codec and those
	// registered with package codec: the content type of what arrives chooses
	// one. A task of another content type is dead-lettered with the reason
	// "undecodable".
	Codecs []codec.Codec
	// Middleware wraps every dispatch, the first outermost.
	Middleware []Middleware
	// Logger is where the app reports; nil is slog.Default.
	Logger *slog.Logger
	// Registry of drivers; nil is the one that imports register with.
	Registry *driver.Registry
}

// DeliveryMode is what a task may assume about being run.
type DeliveryMode string

// The delivery modes.
const (
	// AtLeastOnceDelivery runs a task again when its worker dies.
	AtLeastOnceDelivery DeliveryMode = "at-least-once"
	// AtMostOnceDelivery never runs what may have started before.
	AtMostOnceDelivery DeliveryMode = "at-most-once"
)

const (
	defaultNamespace = "chicory"
	defaultQueue     = "default"
	defaultRetries   = 3
	defaultTimeout   = 15 * time.Minute
	defaultResultTTL = 24 * time.Hour
	defaultSize      = 1 << 20
)

// fill takes what is empty from the environment, then from the defaults.
func (c *Config) fill() error {
	env, err := settings.Load()
	if err := errors.Join(err, env.Fill(c, false)); err != nil {
		return invalid(err)
	}
	def(&c.Namespace, defaultNamespace)
	def(&c.Queue, defaultQueue)
	def(&c.Delivery, AtLeastOnceDelivery)
	def(&c.MaxRetries, defaultRetries)
	def(&c.Backoff, Exponential(time.Second, 5*time.Minute))
	def(&c.Timeout, defaultTimeout)
	def(&c.ResultTTL, defaultResultTTL)
	def(&c.MaxPayload, defaultSize)
	def(&c.MaxResult, defaultSize)
	def(&c.Validation, ValidationInputs)
	if c.Codec == nil {
		c.Codec = codec.JSON
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Registry == nil {
		c.Registry = &driver.Default
	}
	return c.check()
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

func (c *Config) check() error {
	errs := []error{
		invalid(driver.CheckNamespace(c.Namespace)),
		invalid(driver.CheckQueue(c.Queue)),
		positive("Config.Timeout", c.Timeout),
		positive("Config.ResultTTL", c.ResultTTL),
		c.Backoff.check(),
		c.Validation.check(),
	}
	if c.Delivery != AtLeastOnceDelivery && c.Delivery != AtMostOnceDelivery {
		errs = append(errs, fmt.Errorf("%w: Config.Delivery %q", ErrValidation, c.Delivery))
	}
	if c.MaxRetries < NoRetries {
		errs = append(errs, fmt.Errorf("%w: Config.MaxRetries %d", ErrValidation, c.MaxRetries))
	}
	if slices.ContainsFunc(c.Middleware, func(m Middleware) bool { return m == nil }) {
		errs = append(errs, fmt.Errorf("%w: nil Config.Middleware", ErrValidation))
	}
	decoders := map[string]bool{}
	for _, d := range c.decoders() {
		if d == nil {
			errs = append(errs, fmt.Errorf("%w: nil in Config.Codecs", ErrValidation))
			continue
		}
		if decoders[d.ContentType()] {
			errs = append(errs, fmt.Errorf("%w: two codecs for %s in Config.Codec and Config.Codecs", ErrValidation, d.ContentType()))
		}
		decoders[d.ContentType()] = true
	}
	if c.MaxPayload < 0 || c.MaxResult < 0 {
		errs = append(errs, fmt.Errorf("%w: negative Config.MaxPayload or MaxResult", ErrValidation))
	}
	return errors.Join(errs...)
}

// decoders are the app's own codecs, the one it encodes with first.
func (c *Config) decoders() []codec.Codec { return append([]codec.Codec{c.Codec}, c.Codecs...) }

// validation is the mode of a task of these settings.
func (c *Config) validation(s *taskSettings) ValidationMode {
	if s.validation != "" {
		return s.validation
	}
	return c.Validation
}

// policy returns the defaults, every field set but the expiry.
func (c *Config) policy() engine.Policy {
	return engine.Policy{
		Set:   ^engine.FieldExpiry,
		Queue: c.Queue, Retries: max(0, c.MaxRetries), Backoff: c.Backoff.b, Timeout: c.Timeout,
		TTL: c.ResultTTL, Once: c.Delivery == AtMostOnceDelivery, DeadLetter: !c.NoDeadLetters,
	}
}

// A source is where a store comes from.
type source struct {
	name string
	drv  driver.Driver
	cfg  *driver.Config
}

// sources finds the drivers of broker and backend, without I/O. The backend's
// is empty if there is none.
func (c *Config) sources() (broker, backend source, err error) {
	if c.URL == "" && c.Broker == "" && c.BrokerURL == "" {
		if c.Backend != "" || c.BackendURL != "" {
			return broker, backend, fmt.Errorf("%w: a backend is set, but neither URL nor Broker; who sets one sets the other: the program, the environment (CHICORY_URL) or the file", ErrValidation)
		}
		return broker, backend, fmt.Errorf(`%w: neither Config.URL nor Config.Broker nor CHICORY_URL is set; try URL: "memory:"`, ErrValidation)
	}
	broker, err = c.source("broker", string(c.Broker), c.BrokerURL)
	if err != nil {
		return broker, backend, err
	}
	if broker.drv.OpenBroker == nil {
		return broker, backend, fmt.Errorf("%w: driver %s is no broker", ErrValidation, broker.name)
	}
	if c.Backend == BackendNone {
		return broker, source{}, nil
	}
	if c.Backend == "" && c.BackendURL == "" {
		if broker.drv.OpenBackend == nil {
			return broker, source{}, nil
		}
		return broker, broker, nil
	}
	backend, err = c.source("backend", string(c.Backend), c.BackendURL)
	if err == nil && backend.drv.OpenBackend == nil {
		err = fmt.Errorf("%w: driver %s is no backend; set Config.Backend", ErrValidation, backend.name)
	}
	return broker, backend, err
}

func (c *Config) source(role, name, raw string) (s source, err error) {
	if raw == "" && (name == "" || c.fits(name)) {
		raw = c.URL
	}
	if raw == "" {
		raw = name + ":"
	}
	u, err := settings.ParseURL(raw)
	if err != nil {
		return s, fmt.Errorf("%w: %s URL: %w", ErrValidation, role, err)
	}
	def(&name, u.Scheme)
	if s.name, s.drv, err = c.Registry.Lookup(name); err != nil {
		return s, fmt.Errorf("chicory: %s: %w", role, err)
	}
	s.cfg = &driver.Config{URL: u, Namespace: c.Namespace, Logger: c.Logger}
	if s.drv.Check != nil {
		if err := s.drv.Check(s.cfg); err != nil {
			return s, fmt.Errorf("%w: %s URL %s: %w", ErrValidation, role, s.cfg.Redacted(), err)
		}
	}
	return s, nil
}

// fits reports whether URL's scheme belongs to the driver of that name.
func (c *Config) fits(name string) bool {
	scheme, _, _ := strings.Cut(c.URL, ":")
	found, _, err := c.Registry.Lookup(scheme)
	return err == nil && found == name
}
