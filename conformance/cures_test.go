package conformance_test

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/chicory-go/chicory/conformance"
	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/drivers/memory"
)

var cures = flag.Bool("cures", false, "take each cure out of the contract, and ask the simulation to find that")

// A cure is a part of core, of a driver or of the rules that was added because
// without it the protocol lost a task or ran it twice; docs/decisions tells of
// each. Taking it out replaces its text. Two stand behind others and show only
// where those fail: that an update refused by a newer run releases (behind the
// Count of a start) is tested in internal/engine, and that a start carries its
// delivery (behind skeletons) is looked at in every call of the simulation.
type cure struct {
	name, file, with, without string
}

var curesTaken = []cure{
	{"M1 an at-most-once task found STARTED is lost", "driver/rules.go",
		"	case s.Once:\n		return ErrStarted\n	}\n	return nil\n}\n\n// CheckUpdate", "	}\n	return nil\n}\n\n// CheckUpdate"},
	{"M1 a redelivery finishes a recorded verdict", "worker/job.go",
		"return a.Finish(g.Record, time.Now()), false", "return a.Done(), false"},
	{"M2 a start carries its Count", "driver/rules.go", "case s.Copy != r.Copy, s.Count < r.Count:", "case s.Copy != r.Copy:"},
	{"M3 a give-back keeps its Copy", "conformance/publishfirst_test.go", "keep = st.Delivery.Copy", "keep = \"\""},
	{"M4 a redelivery finishes a recorded DEAD_LETTERED", "internal/engine/verdict.go",
		"v.Then = []*driver.Message{a.dead(r.Error)}", "v.Then = nil"},
	{"M4 RETRY closes its seq", "driver/rules.go", "if u.State == Success || u.State == Cancelled {", "if u.State.Terminal() {"},
	{"M4 what must not run passes over no terminal state", "driver/rules.go",
		"	if r.Skeleton || u.Epoch < r.Epoch ||", "	if u.Run == 0 && u.State == DeadLettered && u.Seq == r.Seq {\n		return nil\n	}\n	if r.Skeleton || u.Epoch < r.Epoch ||"},
	{"M5 a replay writes PENDING of the new epoch", "internal/engine/records.go",
		"if e.Backend == nil || e.Covered {\n		return\n	}\n	var us", "if true {\n		return\n	}\n	var us"},
	{"M6 the time to live of a cancellation begins when its message is met", "driver/rules.go",
		"n.Held = n.State == Cancelled && outside", "n.Held = false && outside"},
	{"M7 a skeleton outlives the record", "driver/backend.go", "SkeletonAge = 2 * time.Hour", "SkeletonAge = 2 * time.Millisecond"},
	{"a skeleton of a dead-lettered record is finished", "driver/rules.go",
		"case r.State == DeadLettered && s.Version() == r.Version():", "case false:"},
	{"M8 the record of a chosen id is provisional before the publish", "internal/engine/engine.go", "p.Provisional = true", "p.Provisional = false"},
	{"M9 nothing is handed out against its record", "driver/rules.go",
		"func CheckClaim(r *Record, v Version) error {\n	if r == nil {", "func CheckClaim(r *Record, v Version) error {\n	if true {"},
	{"M9 a stale record acknowledges without Then", "internal/store/settle.go",
		"	if err == nil {\n		s.follow(", "	if true {\n		s.follow("},
	{"M10 at-most-once without a record, redelivered, is lost", "worker/job.go",
		"case d.Once && !a.HasRecord && d.Count > 1:", "case d.Once && !a.HasRecord && d.Count > 1e6:"},
	{"M10 such a task is not replayed where nothing tells a second copy", "internal/engine/records.go",
		"if m.Once && m.NoRecord && !e.Broker", "if false && !e.Broker"},
	{"M11 a give-back by republish carries the deaths", "conformance/publishfirst_test.go",
		"m.Deliveries, m.Delay = uint32(st.Delivery.Count-1), st.Delay", "m.Delay = st.Delay"},
	{"M12 a publish that nothing would tell from the first is never repeated", "internal/engine/engine.go",
		"return !m.NoRecord }", "return true }"},
	{"M12 nor is a settlement", "worker/settle.go", "return j.d.Once && j.d.NoRecord && len(v.Then) > 0", "return false && len(v.Then) > 0"},
	{"M13 a start carries its delivery", "worker/job.go", "		it.start.Delivery = d\n", "		it.start.Delivery = nil\n"},
	{"M14 entries of one dead letter are one", "conformance/publishfirst_test.go",
		"d.store.Delete(ctx, inner[1:]); err", "d.store.Delete(ctx, nil); err"},
}

// TestSimulation runs core and worker on every pairing of broker and backend.
func TestSimulation(t *testing.T) {
	t.Parallel()
	t.Run("SameStore", func(t *testing.T) {
		conformance.RunApp(t, func(testing.TB) *conformance.Harness {
			store := memory.New()
			return &conformance.Harness{Bubble: true,
				OpenBroker:  func(_ testing.TB, ns string) driver.Broker { return store.Broker(ns) },
				OpenBackend: func(_ testing.TB, ns string, _ driver.Broker) driver.Backend { return store.Backend(ns) },
			}
		})
	})
	t.Run("SeparateStores", func(t *testing.T) {
		conformance.RunApp(t, func(testing.TB) *conformance.Harness {
			messages, records := memory.New(), memory.New()
			return &conformance.Harness{Bubble: true,
				OpenBroker:  func(_ testing.TB, ns string) driver.Broker { return messages.Broker(ns) },
				OpenBackend: func(_ testing.TB, ns string, _ driver.Broker) driver.Backend { return records.Backend(ns) },
			}
		})
	})
	t.Run("PublishFirst", func(t *testing.T) { conformance.RunApp(t, publishingFirst) })
}

var failedCase = regexp.MustCompile(`--- FAIL: Test(?:Simulation|LostConfirms)/(\w+/App/\w+/\w+|App/\w+/\w+)`)

// TestCures takes each cure out: the simulation must find what comes back. The
// short form only looks for the text of each.
func TestCures(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range curesTaken {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			changed := c.take(t, root)
			if !*cures {
				return
			}
			out := simulate(t, root, filepath.Join(root, c.file), changed)
			found := failedCase.FindAllStringSubmatch(out, -1)
			if len(found) == 0 {
				t.Fatalf("survives:\n%.2000s", out)
			}
			var names []string
			for _, f := range found {
				names = append(names, f[1])
			}
			t.Logf("found by %d cases: %s", len(names), strings.Join(names[:min(4, len(names))], ", "))
		})
	}
}

// take returns the text of the cure's file without the cure.
func (c cure) take(t *testing.T, root string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, c.file))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), c.with) != 1 {
		t.Fatalf("%s: %q is there %d times, want once", c.file, c.with, strings.Count(string(text), c.with))
	}
	return strings.Replace(string(text), c.with, c.without, 1)
}

// simulate runs the simulation with another text of one file, and returns what
// it printed if it failed.
func simulate(t *testing.T, root, path, text string) string {
	t.Helper()
	dir := t.TempDir()
	changed := filepath.Join(dir, "changed.go")
	if err := os.WriteFile(changed, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {path: changed}})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("go", "test", "-overlay", file, "-run", "^(TestSimulation|TestLostConfirms)$", "-vet=off", "./conformance")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err == nil {
		return ""
	}
	if strings.Contains(string(out), "[build failed]") {
		t.Fatalf("does not build:\n%s", out)
	}
	return string(out)
}
