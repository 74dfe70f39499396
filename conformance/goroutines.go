package conformance

import (
	"bytes"
	"fmt"
	"regexp"
	"runtime/pprof"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// labelKey is the profiling label of the goroutines of a case.
const labelKey = "conformance"

// await waits for the goroutines of a case to end and returns those that do
// not.
func await(label string) (gs []string) {
	const patience = 1500 * time.Millisecond
	for pause := 5 * time.Millisecond; ; pause *= 2 {
		if gs = left(label); len(gs) == 0 || pause > patience/2 {
			return gs
		}
		time.Sleep(pause)
	}
}

var stackHead = regexp.MustCompile(`(?m)^(\d+) @ .*$`)

// left returns the stacks of the goroutines with label.
func left(label string) (gs []string) {
	mark := fmt.Sprintf("%q:%q", labelKey, label)
	for _, stack := range allGoroutines.now() {
		if strings.Contains(stack, mark) {
			gs = append(gs, stackHead.ReplaceAllString(stack, "$1 goroutine(s):"))
		}
	}
	return gs
}

// A census lists the goroutines of the process. That is dear, and many cases
// end at one moment: those that ask while one is under way share the next.
type census struct {
	begun  atomic.Int64
	mu     sync.Mutex
	stacks []string
}

var allGoroutines census

// now returns a list that was begun after the call.
func (c *census) now() []string {
	asked := c.begun.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.begun.Load() > asked {
		return c.stacks
	}
	c.begun.Add(1)
	var b bytes.Buffer
	pprof.Lookup("goroutine").WriteTo(&b, 1)
	c.stacks = strings.Split(b.String(), "\n\n")
	return c.stacks
}
