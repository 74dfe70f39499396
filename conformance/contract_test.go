package conformance_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/amqp"
	"github.com/chicory-go/chicory/drivers/bolt"
	"github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/drivers/redis"
)

var update = flag.Bool("update", false, "write docs/contract.md")

// A column tells what a driver claims, so what the cases prove of it.
type column struct {
	name    string
	info    driver.BrokerInfo
	backend driver.BackendInfo
	covers  bool
	server  bool
	size    bool // its harness can tell how much it keeps
	broker  bool // it is no backend
}

func columns(t *testing.T) []column {
	m := memory.New()
	mb, mbe := m.Broker("contract"), m.Backend("contract")
	f, err := bolt.Open(t.Context(), filepath.Join(t.TempDir(), "jobs.db"), nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	onCluster := (&redis.Broker{}).Info()
	onCluster.Settle = driver.SettlePublishFirst
	fb, fbe := f.Broker("contract"), f.Backend("contract")
	return []column{
		{name: "memory", info: mb.Info(), backend: mbe.Info(), covers: mb.Covers(mbe), size: true},
		{name: "bolt", info: fb.Info(), backend: fbe.Info(), covers: fb.Covers(fbe), size: true},
		{name: "redis", info: (&redis.Broker{}).Info(), backend: (&redis.Backend{}).Info(), covers: true, size: true, server: true},
		{name: "redis cluster", info: onCluster, backend: (&redis.Backend{}).Info(), size: true, server: true},
		{name: "amqp", info: (&amqp.Broker{}).Info(), server: true, broker: true},
	}
}

// claims says what a case, or a group of cases, that can be denied depends on.
var claims = map[string]func(c column) bool{
	"Publish/Oversize":  func(c column) bool { return c.info.MaxMessage > 0 },
	"Publish/Duplicate": func(c column) bool { return c.info.Dedup },
	"Publish/Repeat":    func(c column) bool { return c.info.Dedup },
	"Settle/ThenAlive":  func(c column) bool { return c.info.Dedup },
	"Settle/Kill":       func(c column) bool { return c.info.Settle == driver.SettleAtomic },
	"Receive/FIFO":      func(c column) bool { return c.info.FIFO },
	"Lease/Mismatch":    func(c column) bool { return c.info.Lease == driver.LeaseTimed },
	"Once/Restart":      func(c column) bool { return c.info.Durable },
	"Life/Restart":      func(c column) bool { return c.info.Durable },
	"Life/RestartData":  func(c column) bool { return c.info.Durable },
	"Store/Outage":      func(c column) bool { return c.server && c.info.Lease == driver.LeaseTimed },
	"Store/Leftovers":   func(c column) bool { return c.size },
	"Life/Reconnect":    func(c column) bool { return c.server },
	"Record/Oversize":   func(c column) bool { return c.backend.MaxBody > 0 },
	"Cover":             func(c column) bool { return c.covers },
	"Notify":            func(column) bool { return true },
	"Inspector/Counts":  func(c column) bool { return c.info.Lease == driver.LeaseTimed },
	"Inspector":         func(column) bool { return true },
	"Purger":            func(c column) bool { return !c.broker },
	"Control":           func(c column) bool { return !c.broker },
}

// proves returns what a case proves of a driver.
func proves(t *testing.T, c *conformance.Case, col column) string {
	if c.Suite == "Backend" && col.broker {
		return "–"
	}
	if c.Denied == "" {
		return "yes"
	}
	claim := claims[c.Name]
	if claim == nil {
		group, _, _ := strings.Cut(c.Name, "/")
		claim = claims[group]
	}
	if claim == nil {
		t.Errorf("%s can be denied, and the table does not know by what", c.FullName())
		return "?"
	}
	if claim(col) {
		return "yes"
	}
	return "denied"
}

// TestContractTable keeps docs/contract.md equal to the table of cases.
func TestContractTable(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	cols := columns(t)
	b.WriteString("# The contract\n\n")
	b.WriteString("Every sentence that package [conformance](../conformance) proves, on every driver. This\n")
	b.WriteString("page is generated from the table of cases. *yes*: proved. *denied*: the driver does not\n")
	b.WriteString("claim it, and what stands in brackets is proved instead; –: the driver is no backend.\n")
	titles := map[string]string{"Broker": "Brokers", "Backend": "Backends", "App": "Core and worker, on any driver"}
	suite, group := "", ""
	for _, c := range conformance.Cases() {
		if c.Suite != suite {
			suite, group = c.Suite, ""
			fmt.Fprintf(&b, "\n## %s\n", titles[suite])
		}
		if g, _, _ := strings.Cut(c.Name, "/"); g != group {
			group = g
			fmt.Fprintf(&b, "\n### %s\n\n| case | sentence |", group)
			for _, col := range cols {
				fmt.Fprintf(&b, " %s |", col.name)
			}
			b.WriteString("\n| --- | --- |" + strings.Repeat(" --- |", len(cols)) + "\n")
		}
		sentence := c.Contract
		if c.Denied != "" {
			sentence += " [" + c.Denied + "]"
		}
		fmt.Fprintf(&b, "| %s | %s |", c.Name, sentence)
		for _, col := range cols {
			fmt.Fprintf(&b, " %s |", proves(t, &c, col))
		}
		b.WriteString("\n")
	}
	const path = "../docs/contract.md"
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, b.Bytes()) {
		t.Errorf("%s is not what the cases say (%v); write it with: go test ./conformance -run ContractTable -args -update", path, err)
	}
}

// TestDefectsHaveCases holds the tables of defects against the names of cases.
func TestDefectsHaveCases(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../docs/decisions/0010-defects-and-cases.md")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range conformance.Cases() {
		names = append(names, c.Name)
	}
	seen := map[string]bool{}
	for _, row := range regexp.MustCompile(`(?m)^\| ([DEM]\d[^|]*) \|[^|]*\|(.*)\|$`).FindAllStringSubmatch(string(text), -1) {
		for _, d := range regexp.MustCompile(`[DEM]\d+`).FindAllString(row[1], -1) {
			seen[d] = true
		}
		for _, name := range regexp.MustCompile(`\b[A-Z]\w+/(?:[A-Z]\w*|\*)`).FindAllString(row[2], -1) {
			group, rest, _ := strings.Cut(name, "/")
			found := slices.ContainsFunc(names, func(n string) bool { return n == name || rest == "*" && strings.HasPrefix(n, group+"/") })
			if !found {
				t.Errorf("%s: no case is called %s", row[1], name)
			}
		}
	}
	for letter, last := range map[string]int{"D": 51, "E": 8, "M": 14} {
		for n := 1; n <= last; n++ {
			if !seen[fmt.Sprint(letter, n)] {
				t.Errorf("%s%d is not in the tables", letter, n)
			}
		}
	}
}
