package amqp_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/amqp"
)

// config is what a program would open a URL with.
func config(tb testing.TB, text string) *driver.Config {
	tb.Helper()
	return &driver.Config{URL: must(url.Parse(text))(tb), Namespace: "ns", Logger: slog.New(slog.DiscardHandler)}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	_, d, err := driver.Default.Lookup("amqps")
	if err != nil {
		t.Fatal(err)
	}
	for _, good := range []string{"amqp:", "amqp://h", "amqp://u:p@h:1/v", "amqps://h/%2F?ca_file=x", "amqps://h?cert_file=c&key_file=k",
		"amqp://h?prefix=shop&queue=classic&passive=true&consumer_timeout=2h", "amqp://h?addr=other:5672&addr=third:1"} {
		if err := d.Check(config(t, good)); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for bad, want := range map[string]string{
		"amqp://h?other=1":                        "parameter other is unknown",
		"amqp://h?queue=mirrored":                 "parameter queue is",
		"amqp://h?passive=maybe":                  "parameter passive is",
		"amqp://h?consumer_timeout=0s":            "parameter consumer_timeout is",
		"amqp://h?consumer_timeout=x":             "parameter consumer_timeout is",
		"amqp://h?prefix=a.b":                     "prefix \"a.b\": want",
		"amqp://h?prefix=a&prefix=b":              "parameter prefix is",
		"amqp://h?ca_file=x":                      "ca_file, cert_file and key_file are for amqps",
		"amqps://h?cert_file=x":                   "go together",
		"amqp://h?addr=noport":                    "parameter addr: address noport",
		"amqp://h?addr=other:x":                   "address other:x: it is no URL",
		"amqp://guest:hunter2@h/vhost/more?what=": "parameter what is unknown",
	} {
		c := config(t, bad)
		err := d.Check(c)
		if err == nil {
			t.Errorf("%s: no error, want one about %q", bad, want)
			continue
		}
		_, what, found := strings.Cut(err.Error(), c.Redacted()+": ") // the URL has the words too
		if !found || !strings.Contains(what, want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: got %v, want an error about %q", bad, err, want)
		}
	}
}

// TestOpenNoURL opens what is no URL: it fails for good, and keeps the password to itself.
func TestOpenNoURL(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"amqp://guest:hunter2%zz@h", "amqp://guest:%zzhunter2@h", "amqp://guest:hunter2/x@h",
		"amqp://guest:hunter2 x@h", "amqp://guest:hunter2@h:port", "amqp://guest:hunter2@h:99999999999", "http://guest:hunter2@h"} {
		ctx, cancel := context.WithTimeout(background, patience)
		b, err := amqp.Open(ctx, []string{"amqp://guest:guest@127.0.0.1:1", bad}, "ns", nil)
		cancel()
		switch {
		case err == nil:
			b.Close(background)
			t.Errorf("%s was opened", bad)
		case strings.Contains(err.Error(), "hunter2"), strings.Contains(err.Error(), "zz"), errors.Is(err, driver.ErrTransient),
			!strings.Contains(err.Error(), "address 2 of 2"):
			t.Errorf("%s: got %v, transient %v; want a lasting error without the password", bad, err, errors.Is(err, driver.ErrTransient))
		}
	}
}

// TestURL opens a broker as programs do, at a virtual host of its own.
func TestURL(t *testing.T) {
	t.Parallel()
	s := sharedServer(t)
	s.ctl(t, "add_vhost", "shop/eu")
	s.ctl(t, "set_permissions", "-p", "shop/eu", "guest", ".*", ".*", ".*")
	_, d, err := driver.Default.Lookup("amqp")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(background, patience)
	defer cancel()
	b := must(d.OpenBroker(ctx, config(t, s.url("guest:guest", "shop/eu")+"?consumer_timeout=1h&queue=classic")))(t)
	defer b.Close(background)
	if got := b.Info().MaxLease; got != time.Hour {
		t.Errorf("MaxLease is %v, want 1h", got)
	}
	if err := b.Publish(ctx, messages(1, "q")); err != nil {
		t.Error(err)
	}
	if out := s.ctl(t, "list_queues", "-p", "shop/eu", "name", "type"); !strings.Contains(out, "chicory.ns.q.q.low\tclassic") {
		t.Errorf("the queue is not in the virtual host, or not classic:\n%s", out)
	}
}

// TestPassive opens a broker for an account that may configure nothing but locks, on
// definitions that an administrator imported.
func TestPassive(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	o := &amqp.Options{Prefix: "passive", Passive: true}
	s.ctl(t, "add_user", "worker", "secret")
	s.ctl(t, "set_permissions", "worker", `^passive\.ns\.lock\.`, `^(passive\.ns\..*|amq\.default)$`, `^passive\.ns\.`)
	b := open(t, s.url("worker:secret", "/"), o)
	if err := b.Publish(background, messages(1, "q")); err == nil || !strings.Contains(err.Error(), "definitions") {
		t.Errorf("without definitions: got %v, want an error that names them", err)
	}
	text := must(amqp.Definitions("/", "ns", []string{"q", "ü"}, "3.10", o))(t)
	if !json.Valid(text) {
		t.Fatal("definitions are no JSON")
	}
	file := filepath.Join(t.TempDir(), "definitions.json")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	s.ctl(t, "import_definitions", file)
	ms := append(messages(1, "q"), messages(1, "ü")...)
	ms[1].Delay, ms[1].Priority = 300*time.Millisecond, 9
	if err := b.Publish(background, ms); err != nil {
		t.Fatal(err)
	}
	sub := subscribe(t, b, 10, "q", "ü")
	ds := receive(t, sub, 2)
	dead := ds[0].Clone()
	dead.Dead = &driver.DeadInfo{Reason: driver.ReasonFailed, LastAt: 1}
	if err := sub.Settle(background, []driver.Settlement{{Delivery: ds[0], Then: []*driver.Message{dead}}, {Delivery: ds[1]}}); err != nil {
		t.Fatal(err)
	}
	if n := must(b.DeadLetters(dead.Queue).Delete(background, []driver.DeadKey{dead.Key()}))(t); n != 1 {
		t.Errorf("%d dead letters, want 1", n)
	}
	// One that may declare finds what was imported to be what it would declare.
	active := open(t, s.url("guest:guest", "/"), &amqp.Options{Prefix: "passive"})
	far := messages(2, "q")
	far[0].Delay, far[1].Delay = 40*24*time.Hour, 1*time.Millisecond
	if err := active.Publish(background, far); err != nil {
		t.Error(err)
	}
}

// ctl runs rabbitmqctl.
func (s *server) ctl(tb testing.TB, args ...string) string {
	tb.Helper()
	ctl := filepath.Join(filepath.Dir(must(program())(tb)), "rabbitmqctl")
	for end := time.Now().Add(patience); ; {
		cmd := exec.Command(ctl, append([]string{"-q"}, args...)...)
		cmd.Env = s.env
		out, err := cmd.CombinedOutput()
		if err == nil {
			return string(out)
		}
		if time.Now().After(end) { // it may still be starting
			tb.Fatal(fmt.Errorf("rabbitmqctl %v: %w: %s", args, err, out))
		}
	}
}
