package redis_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/redis"
	"github.com/chicory-go/chicory/internal/testserver"
	goredis "github.com/redis/go-redis/v9"
)

// openURL opens a pair by URL.
func openURL(t *testing.T, s *server, text string) (*pair, error) {
	t.Helper()
	cfg, d := config(t, text)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	b, err := d.OpenBroker(ctx, cfg)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { b.Close(context.Background()) })
	cfg.Broker = b
	be, err := d.OpenBackend(ctx, cfg)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { be.Close(context.Background()) })
	p := &pair{t: t, server: s, prefix: "chicory", broker: b.(*redis.Broker), backend: be.(*redis.Backend)}
	if !p.broker.Covers(be) {
		t.Fatal("the broker does not cover the backend")
	}
	p.subscribe()
	return p, nil
}

// works does one task.
func (p *pair) works() {
	p.t.Helper()
	p.publish(message("a"))
	if got := p.one(); got != "a" {
		p.t.Fatalf("got %s, want a", got)
	}
	rs, err := p.backend.Get(p.t.Context(), []string{"a"})
	if err != nil || rs[0] == nil || rs[0].State != driver.Success {
		p.t.Fatalf("the record of a: got %v, %v, want a success", rs, err)
	}
}

// An authority makes certificates.
type authority struct {
	t    *testing.T
	dir  string
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("ca", &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"},
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue writes a certificate and its key to files.
func (a *authority) issue(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	t := a.t
	t.Helper()
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(t)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der := must(x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer))(t)
	a.write(name+".crt", "CERTIFICATE", der)
	a.write(name+".key", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(key))(t))
	return must(x509.ParseCertificate(der))(t), key
}

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(a.file(name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// serve starts a server that a has certified, and returns the address for TLS.
func (a *authority) serve(clients string) (*server, string) {
	a.t.Helper()
	a.issue("server", &x509.Certificate{SerialNumber: big.NewInt(2), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	addr := must(testserver.FreeAddr())(a.t)
	_, port, _ := net.SplitHostPort(addr)
	return newServer(a.t, "--tls-port", port, "--tls-cert-file", a.file("server.crt"), "--tls-key-file", a.file("server.key"),
		"--tls-ca-cert-file", a.file("ca.crt"), "--tls-auth-clients", clients), addr
}

// TestTLS trusts the authority that a URL names, and no other.
func TestTLS(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	ours, other := newAuthority(t), newAuthority(t)
	s, addr := ours.serve("no")
	p, err := openURL(t, s, "rediss://"+addr+"?ca_file="+ours.file("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	p.works()
	for query, want := range map[string]string{
		"":                                      "ca_file",
		"?ca_file=" + other.file("ca.crt"):      "unknown authority",
		"?ca_file=" + other.file("missing.crt"): "missing.crt: no such file",
		"?ca_file=" + ours.file("server.key"):   "no certificate",
		"?ca_file=" + ours.file("ca.crt") + "&cert_file=" + ours.file("server.crt") + "&key_file=" + ours.file("ca.key"): "cert_file",
	} {
		if _, err := openURL(t, s, "rediss://"+addr+query); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want an error with %q", query, err, want)
		}
	}
	if _, err := openURL(t, s, "rediss://"+strings.Replace(addr, "127.0.0.1", "localhost", 1)+"?ca_file="+ours.file("ca.crt")); err == nil ||
		!strings.Contains(err.Error(), "localhost") {
		t.Errorf("got %v, want that the certificate is not for localhost", err)
	}
}

// TestClientCertificate shows a certificate to a server that wants one.
func TestClientCertificate(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	a := newAuthority(t)
	a.issue("client", &x509.Certificate{SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "client"}})
	s, addr := a.serve("yes")
	url := "rediss://" + addr + "?ca_file=" + a.file("ca.crt")
	p, err := openURL(t, s, url+"&cert_file="+a.file("client.crt")+"&key_file="+a.file("client.key"))
	if err != nil {
		t.Fatal(err)
	}
	p.works()
	if _, err := openURL(t, s, url); err == nil {
		t.Error("opened without a certificate")
	}
}

// TestSocket is served over a socket, with a password and in another database.
func TestSocket(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	dir, err := os.MkdirTemp("", "redis") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "redis.sock")
	s := newServer(t, "--unixsocket", socket, "--requirepass", "secret")
	p, err := openURL(t, s, "unix://:secret@"+socket+"?db=1")
	if err != nil {
		t.Fatal(err)
	}
	p.works()
	ro := client(s)
	ro.Password, ro.DB = "secret", 1
	c := goredis.NewClient(ro)
	defer c.Close()
	if n := must(c.DBSize(t.Context()).Result())(t); n == 0 {
		t.Error("nothing is in database 1")
	}
}

// TestOwnClient works on a client of the caller's, which stays open.
func TestOwnClient(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	c := goredis.NewClient(&goredis.Options{Addr: s.addr, Protocol: 2})
	defer c.Close()
	o := &redis.Options{Prefix: fmt.Sprint("test", prefixes.Add(1))}
	p := &pair{t: t, server: s, prefix: o.Prefix}
	p.broker = must(redis.NewBroker(t.Context(), c, "ns", o))(t)
	p.backend = must(redis.NewBackend(t.Context(), c, "ns", o))(t)
	if !p.broker.Covers(p.backend) {
		t.Error("the broker does not cover a backend on its client")
	}
	p.subscribe()
	p.works()
	p.broker.Close(t.Context())
	p.backend.Close(t.Context())
	if err := c.Ping(t.Context()).Err(); err != nil {
		t.Errorf("the client: %v", err)
	}
	checkInvariants(t, s, o.Prefix)
}

// TestLeastRights lets a user do all that the package's documentation says that it
// needs, and finds that everything does, and that everything was needed.
func TestLeastRights(t *testing.T) {
	t.Parallel()
	sharedServer(t)
	words := rights(t)
	s := newServer(t, append([]string{"--user", "user", "on", ">password"}, words...)...)
	p, err := openURL(t, s, "redis://user:password@"+s.addr+"/0")
	if err != nil {
		t.Fatal(err)
	}
	p.everything()

	admin := goredis.NewClient(client(s))
	defer admin.Close()
	for _, entry := range must(admin.ACLLog(t.Context(), 100).Result())(t) {
		t.Errorf("refused: %s of %s", entry.Reason, entry.Object)
	}
	stats := must(admin.Info(t.Context(), "commandstats").Result())(t)
	for _, word := range words {
		command, ok := strings.CutPrefix(word, "+")
		rare := command == "ping" || command == "zscore" // after a silence; after thousands of removals
		if ok && !rare && !strings.Contains(stats, "cmdstat_"+command+":") && !strings.Contains(stats, "cmdstat_"+command+"|") {
			t.Errorf("%s is granted, and not needed", command)
		}
	}
	checkInvariants(t, s, p.prefix)
}

// rights are those that the documentation says a user needs.
func rights(t *testing.T) []string {
	t.Helper()
	doc := must(os.ReadFile("doc.go"))(t)
	found := regexp.MustCompile(`(?s)ACL SETUSER user on >password (.*?)\n//\n`).FindSubmatch(doc)
	if found == nil {
		t.Fatal("doc.go names no rights")
	}
	return strings.Fields(strings.ReplaceAll(string(found[1]), "//", ""))
}

// clusterRights are those that it names besides for a cluster.
func clusterRights(t *testing.T) []string {
	t.Helper()
	doc := must(os.ReadFile("doc.go"))(t)
	found := regexp.MustCompile(`(?m)^//\t(\+cluster.*)$`).FindSubmatch(doc)
	if found == nil {
		t.Fatal("doc.go names no rights for a cluster")
	}
	return strings.Fields(string(found[1]))
}

// everything calls all there is to call, once.
func (p *pair) everything() {
	t, ctx := p.t, p.t.Context()
	t.Helper()
	ok := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	p.waits()
	n := must(p.backend.Notify(ctx))(t)
	ok(n.Watch(ctx, []string{"a"}))
	urgent, late := message("urgent"), message("late")
	urgent.Priority, late.Delay = 9, time.Millisecond
	p.publish(message("a"), urgent, late)
	take := func(limit int) []*driver.Delivery {
		t.Helper()
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		return must(p.sub.Receive(ctx, limit))(t)
	}
	d := take(1)[0] // urgent
	ok(p.sub.Extend(ctx, []*driver.Delivery{d}))
	dead := message(d.ID)
	dead.Seq, dead.Dead = d.Seq, &driver.DeadInfo{LastAt: time.Now().UnixMilli(), Reason: driver.ReasonFailed}
	other := *dead
	other.ID = "other"
	ok(p.sub.Settle(ctx, []driver.Settlement{{Delivery: d, Then: []*driver.Message{dead, &other}}}))
	letters := p.broker.DeadLetters("q")
	key := driver.DeadKey{ID: d.ID}
	must(letters.Get(ctx, d.ID))(t)
	must(letters.Len(ctx))(t)
	_, cursor, err := letters.List(ctx, "", 1)
	ok(err)
	if ms, _, err := letters.List(ctx, cursor, 1); err != nil || len(ms) != 1 {
		t.Fatalf("dead letters, second page: got %v, %v, want one", ms, err)
	}
	must(letters.Replay(ctx, []driver.DeadKey{key}))(t)
	must(letters.Delete(ctx, []driver.DeadKey{key}))(t)
	must(letters.Purge(ctx, time.Time{}))(t)
	released := map[string]bool{}
	for done := 0; done < 3; {
		for _, d := range take(3) {
			if !released[d.ID] {
				released[d.ID] = true
				ok(p.sub.Settle(ctx, []driver.Settlement{{Delivery: d, Action: driver.Release}}))
				continue
			}
			if _, err := p.backend.Start(ctx, []driver.Start{{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq, Copy: d.Copy, Count: d.Count, Delivery: d}}); err != nil {
				t.Fatal(err)
			}
			ok(p.sub.Settle(ctx, []driver.Settlement{{Delivery: d, Record: &driver.Update{ID: d.ID, Epoch: d.Epoch, Seq: d.Seq,
				State: driver.Success, TTL: time.Hour}}}))
			done++
		}
	}
	must(n.Next(ctx))(t)
	ok(n.Close())
	ok(p.backend.Apply(ctx, []driver.Update{{ID: "b", State: driver.Success, TTL: time.Hour}}))
	must(p.backend.Get(ctx, []string{"a", "b"}))(t)
	must(p.backend.Delete(ctx, []string{"b"}))(t)
	must(p.broker.Queues(ctx))(t)
	must(p.broker.Inspect(ctx, []string{"q"}))(t)
	p.publish(message("purged"))
	must(p.broker.PurgeQueue(ctx, "q"))(t)
	_, rev, err := p.broker.Entries(ctx, "k/")
	ok(err)
	ok(p.broker.Put(ctx, "k/a", []byte("v"), time.Minute))
	ok(p.broker.Await(ctx, "k/", rev))
	ok(p.broker.Remove(ctx, "k/a"))
	ok(p.sub.Close(ctx))
}

// waits has p's subscription wait in vain, until it is known to.
func (p *pair) waits() {
	p.t.Helper()
	ctx, cancel := context.WithCancel(p.t.Context())
	received := make(chan error, 1)
	go func() {
		_, err := p.sub.Receive(ctx, 1)
		received <- err
	}()
	p.eventually("the subscription waits", func() bool { return len(p.waiting()) > 0 })
	cancel()
	if err := <-received; !errors.Is(err, context.Canceled) {
		p.t.Fatalf("Receive: got %v, want that it was cancelled", err)
	}
}

// waiting returns who waits for q.
func (p *pair) waiting() []string {
	p.t.Helper()
	c := goredis.NewClient(client(p.server))
	defer c.Close()
	return must(c.ZRange(context.Background(), p.prefix+":ns:{q}:w", 0, -1).Result())(p.t)
}

// eventually waits until what holds.
func (p *pair) eventually(what string, holds func() bool) {
	p.t.Helper()
	for begin := time.Now(); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > 30*time.Second {
			p.t.Fatalf("in vain: %s", what)
		}
	}
}
