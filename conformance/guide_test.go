package conformance_test

import (
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
)

var empty = flag.Bool("empty", false, "run the suite on a driver that is not written yet")

// An emptyBroker is where a driver begins: what is not written yet panics.
type emptyBroker struct{ driver.Broker }

func (emptyBroker) Info() driver.BrokerInfo {
	return driver.BrokerInfo{Name: "empty", Contract: 1, Priorities: 3}
}

func (emptyBroker) Publish(context.Context, []*driver.Message) error {
	return errors.New("empty: publish is not written yet")
}

func (emptyBroker) Close(context.Context) error { return nil }

func TestEmpty(t *testing.T) {
	if !*empty {
		t.Skip("only with -empty: docs/writing-a-driver.md shows how it fails")
	}
	conformance.RunBroker(t, func(testing.TB) *conformance.Harness {
		return &conformance.Harness{
			Bubble:     true, // the store lives in this process
			OpenBroker: func(testing.TB, string) driver.Broker { return emptyBroker{} },
		}
	})
}

var (
	driverConsole = regexp.MustCompile("(?s)```console\n(.*?)```")
	driverCommand = regexp.MustCompile(`^go test \./conformance -run (\S+)(?: -args (.*))?$`)
	varying       = regexp.MustCompile(`\d+\.\d+s|go:\d+`) // times and lines
)

// TestGuide runs what docs/writing-a-driver.md shows, with this binary for go test.
func TestGuide(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/writing-a-driver.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := driverConsole.FindAllStringSubmatch(string(page), -1)
	if len(blocks) == 0 {
		t.Fatal("no console block")
	}
	for _, block := range blocks {
		for _, part := range strings.Split("\n"+block[1], "\n$ ")[1:] {
			command, want, _ := strings.Cut(strings.TrimSpace(part), "\n")
			m := driverCommand.FindStringSubmatch(command)
			if m == nil {
				t.Fatalf("want go test ./conformance -run X, got %q", command)
			}
			out, failed := exec.CommandContext(t.Context(), os.Args[0], append([]string{"-test.run=" + m[1]}, strings.Fields(m[2])...)...).Output()
			got := strings.TrimSpace(string(out))
			if failed != nil { // what go test adds
				got += "\nFAIL\tgithub.com/chicory-go/chicory/conformance\t0.00s\nFAIL"
			} else {
				got = strings.TrimSuffix(got, "PASS") + "ok  \tgithub.com/chicory-go/chicory/conformance\t0.00s"
			}
			if got, want := varying.ReplaceAllString(got, "#"), varying.ReplaceAllString(want, "#"); got != want {
				t.Errorf("%s\ngot\n%s\nwant\n%s", command, got, want)
			}
		}
	}
}
