package amqp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

// managementTimeout is how long the management API may take to answer.
const managementTimeout = 10 * time.Second

// A management is a client of the server's management API.
type management struct {
	url    *url.URL // of the virtual host's queues
	client *http.Client
}

// A storedQueue is what the API tells of a queue.
type storedQueue struct {
	Name           string `json:"name"`
	Unacknowledged int    `json:"messages_unacknowledged"`
}

// newManagement returns nil if none is configured. Options have been checked; user and
// password are those of the broker's URL if they are not given.
func newManagement(broker string, o *Options) *management {
	if o.Management == "" {
		return nil
	}
	u, err := url.Parse(o.Management)
	at, err2 := amqp.ParseURI(broker)
	if err != nil || err2 != nil {
		return nil // nobody can have connected
	}
	if u.User == nil {
		u.User = url.UserPassword(at.Username, at.Password)
	}
	m := &management{url: u.JoinPath("api", "queues", url.PathEscape(at.Vhost))}
	transport := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConns: 1, IdleConnTimeout: time.Minute}
	if o.TLS != nil {
		transport.TLSClientConfig = o.TLS.Clone()
	}
	m.client = &http.Client{Transport: transport, Timeout: managementTimeout}
	m.url.RawQuery = url.Values{"columns": {"name,messages_unacknowledged"}}.Encode()
	return m
}

// queues returns the queues of the virtual host.
func (m *management) queues(ctx context.Context) (stored []storedQueue, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, m.url.String(), nil)
	if err != nil {
		return nil, errors.New("amqp: the URL of the management API is not one")
	}
	resp, err := m.client.Do(req) // its error tells no password
	if err != nil {
		return nil, fmt.Errorf("amqp: the management API: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("amqp: the management API at %s answers %s", m.url.Redacted(), resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(&stored); err != nil {
		return nil, fmt.Errorf("amqp: the management API: %w", err)
	}
	return stored, nil
}

func (m *management) close() {
	if m != nil {
		m.client.CloseIdleConnections()
	}
}
