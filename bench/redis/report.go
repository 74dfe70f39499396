package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
)

// A table has a row per figure of a workload, in the order in which they came.
type table struct{ rows []*row }

// A row is one figure of every peer, with a value per round.
type row struct {
	name, unit string
	more       bool
	values     map[string][]float64
}

func (t *table) add(workload, peer string, f figure) {
	name := workload
	if f.name != "" {
		name += ": " + f.name
	}
	i := slices.IndexFunc(t.rows, func(r *row) bool { return r.name == name })
	if i < 0 {
		i = len(t.rows)
		t.rows = append(t.rows, &row{name, f.unit, f.more, map[string][]float64{}})
	}
	t.rows[i].values[peer] = append(t.rows[i].values[peer], f.value)
}

// ratios are those of peer to Chicory in each round: above one where Chicory is ahead.
func (r *row) ratios(peer string) []float64 {
	var rs []float64
	for i, own := range r.values[chicoryPeer.name] {
		other := r.values[peer][i]
		if r.more {
			own, other = other, own
		}
		rs = append(rs, other/own)
	}
	return rs
}

// fastest returns the name of the best peer, "" if there is none.
func (r *row) fastest() (best string) {
	for _, p := range []peer{asynqPeer, asynqDefault, gocraftPeer, taskqPeer} {
		vs, ok := r.values[p.name]
		if ok && (best == "" || (quantile(vs, 0.5) > quantile(r.values[best], 0.5)) == r.more) {
			best = p.name
		}
	}
	return best
}

// ahead reports whether Chicory is ahead of all peers.
func (r *row) ahead() bool { return quantile(r.ratios(r.fastest()), 0.5) > 1 }

// report writes what was measured as Markdown: where Chicory is not ahead, where it
// is, and what nobody else has.
func (b *bench) report(ctx context.Context, w io.Writer) error {
	if err := b.head(ctx, w); err != nil {
		return err
	}
	var behind, ahead, own []*row
	for _, r := range b.table.rows {
		switch {
		case r.fastest() == "":
			own = append(own, r)
		case r.ahead():
			ahead = append(ahead, r)
		default:
			behind = append(behind, r)
		}
	}
	writeRows(w, "Not ahead of every peer", behind)
	writeRows(w, "Ahead of every peer", ahead)
	writeOwn(w, own)
	return nil
}

// head says what was measured, and where.
func (b *bench) head(ctx context.Context, w io.Writer) error {
	version, err := b.server.field(ctx, "server", "redis_version")
	if err != nil {
		return err
	}
	near, err := latency(ctx, b.server.addr)
	if err != nil {
		return err
	}
	far, err := latency(ctx, b.far)
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "Chicory %s; %s; Redis %s; %s %s/%s, %d cores\n\n", commit(ctx), strings.Join(versions(), ", "), version,
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	fmt.Fprintf(w, "n %d, rounds %d, samples %d; append-only file %s; PING %.2f ms, through the proxy %.2f ms\n", *tasks, *rounds, *samples, cmp.Or(*fsync, "none"), inMs(near), inMs(far))
	return nil
}

func commit(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "of an unknown commit"
	}
	return strings.TrimSpace(string(out))
}

// versions are those of the peers' modules, and of the client libraries.
func versions() (vs []string) {
	info, _ := debug.ReadBuildInfo()
	for _, path := range []string{"github.com/hibiken/asynq", "github.com/gocraft/work", "github.com/gomodule/redigo",
		"github.com/vmihailenco/taskq/v4", "github.com/redis/go-redis/v9"} {
		for _, m := range info.Deps {
			if m.Path == path {
				vs = append(vs, strings.TrimPrefix(path, "github.com/")+" "+m.Version)
			}
		}
	}
	return vs
}

func writeRows(w io.Writer, title string, rows []*row) {
	if len(rows) == 0 {
		return
	}
	columns := []string{chicoryPeer.name, asynqPeer.name, asynqDefault.name, gocraftPeer.name, taskqPeer.name, rawPeer.name}
	fmt.Fprintf(w, "\n## %s\n\n| what | unit | %s | to the best peer | to asynq |\n|---|---|%s\n", title,
		strings.Join(columns, " | "), strings.Repeat("---:|", len(columns)+2))
	for _, r := range rows {
		fmt.Fprintf(w, "| %s | %s |", r.name, r.unit)
		for _, name := range columns {
			fmt.Fprintf(w, " %s |", r.cell(name))
		}
		best := r.fastest()
		fmt.Fprintf(w, " %s %s | %s |\n", ratioText(r.ratios(best)), best, ratioText(r.ratios(asynqPeer.name)))
	}
}

func writeOwn(w io.Writer, rows []*row) {
	if len(rows) == 0 {
		return
	}
	fmt.Fprint(w, "\n## Without a counterpart\n\n| what | unit | chicory | least to greatest |\n|---|---|---:|---:|\n")
	for _, r := range rows {
		vs := r.values[chicoryPeer.name]
		fmt.Fprintf(w, "| %s | %s | %s | %s to %s |\n", r.name, r.unit, r.cell(chicoryPeer.name), number(slices.Min(vs)), number(slices.Max(vs)))
	}
}

// cell is the median of a peer, or empty.
func (r *row) cell(peer string) string {
	vs := r.values[peer]
	if len(vs) == 0 {
		return ""
	}
	return number(quantile(vs, 0.5))
}

func ratioText(rs []float64) string {
	return fmt.Sprintf("%.2f× (%.2f to %.2f)", quantile(rs, 0.5), slices.Min(rs), slices.Max(rs))
}

// number has three digits that matter, or all before the point.
func number(v float64) string {
	switch {
	case v >= 100 || v == 0:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}
