package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/chicory-go/chicory/driver"
	"github.com/chicory-go/chicory/internal/store"
)

// Options configure a file that is opened. The zero value is ready.
type Options struct {
	// MaxSize limits the file, in bytes. Beyond, new messages are refused with
	// [driver.ErrFull] while those that are there can be worked off. The limit
	// may be met up to 16 MiB early. Zero is no limit.
	MaxSize int64
	// MaxPending limits how many messages may be ready, delayed or leased.
	// Zero is no limit.
	MaxPending int
	// Logger is told of damaged values. Nil is none.
	Logger *slog.Logger

	cached int // records that stay in RAM, see store.Options
}

func (o *Options) logger() *slog.Logger {
	if o.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return o.Logger
}

// A Store holds the tasks and records of any number of namespaces in a file.
// Its brokers and backends are clients: several of them on one file behave
// like several processes on one server. The file is closed with the Store and
// the last of them. It is safe for concurrent use.
type Store struct {
	file   *file
	shared *shared
	closed atomic.Bool
}

// Open opens the file of path, which it creates if need be; its directory must
// exist. Within a process all who open one file share it, and must ask for the
// same MaxSize and MaxPending. Another process that has it open is an error, after a second.
// Close the Store after use.
func Open(ctx context.Context, path string, o *Options) (*Store, error) {
	if o == nil {
		o = &Options{}
	}
	s, err := files.open(ctx, path, o)
	if err != nil {
		return nil, err
	}
	return &Store{file: s.file, shared: s}, nil
}

// Broker returns a new broker on the file. Close it after use.
func (s *Store) Broker(namespace string) *Broker {
	return &Broker{s.file.core.Broker(namespace), s.file}
}

// Backend returns a new backend on the file. Close it after use. From then on
// the brokers of the same file and namespace cover it.
func (s *Store) Backend(namespace string) *Backend {
	return &Backend{s.file.core.Backend(namespace), s.file}
}

// Close lets go of the file. Its brokers and backends go on.
func (s *Store) Close() error {
	if !s.closed.CompareAndSwap(false, true) {
		return nil
	}
	return files.leave(s.shared)
}

// A Broker is a [driver.Broker] on a file. It also is a [driver.Coverer],
// [driver.Control], [driver.Inspector] and [driver.Purger].
type Broker struct {
	*store.Broker
	file *file
}

// A Backend is a [driver.Backend] on a file. It also is a [driver.Notifier]
// and [driver.Control].
type Backend struct {
	*store.Backend
	file *file
}

var (
	_ driver.Broker    = (*Broker)(nil)
	_ driver.Coverer   = (*Broker)(nil)
	_ driver.Control   = (*Broker)(nil)
	_ driver.Inspector = (*Broker)(nil)
	_ driver.Purger    = (*Broker)(nil)
	_ driver.Backend   = (*Backend)(nil)
	_ driver.Notifier  = (*Backend)(nil)
	_ driver.Control   = (*Backend)(nil)
)

// files are the files that this process has open. The lock of a file keeps
// other processes out, and would keep out a second opening in this one.
var files registry

// A registry finds open files.
type registry struct {
	mu  sync.Mutex
	all []*shared
}

// A shared is a file that is open, or on its way to be or no longer to be.
type shared struct {
	path   string // absolute
	opened chan struct{}
	closed chan struct{}

	// Once opened is closed:
	file *file
	err  error

	// The rest is guarded by registry.mu.
	info    fs.FileInfo // nil while the file is being made
	refs    int         // Stores that have it
	leaving bool
}

// canonical returns the one name of a path, which is all the identity that a
// new file has.
func canonical(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return path, err
	}
	if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
		path = filepath.Join(dir, filepath.Base(path))
	}
	return path, nil
}

// open returns the file of path. The caller leaves it after use.
func (r *registry) open(ctx context.Context, path string, o *Options) (*shared, error) {
	path, err := canonical(path)
	if err != nil {
		return nil, fmt.Errorf("bolt: open %s: %w", path, err)
	}
	for {
		if err := ctx.Err(); err != nil {
			return nil, driver.Transient(err)
		}
		s, mine := r.enter(path)
		if mine {
			s.file, s.err = open(path, o, func() { r.close(s, false) })
			r.entered(s)
			return s, s.err
		}
		if ready, err := s.wait(ctx); err != nil {
			return nil, err
		} else if !ready {
			continue // it was being closed
		}
		if err := s.file.agrees(o); err != nil {
			return nil, errors.Join(fmt.Errorf("bolt: open %s: %w", path, err), r.leave(s))
		}
		return s, nil
	}
}

// alone calls do while nobody in this process has the file of path. Who opens it
// meanwhile waits.
func (r *registry) alone(ctx context.Context, path string, do func() error) error {
	for {
		if err := ctx.Err(); err != nil {
			return driver.Transient(err)
		}
		s, mine := r.enter(path)
		if mine {
			defer r.gone(s)
			return do()
		}
		if ready, err := s.wait(ctx); err != nil {
			return err
		} else if ready {
			return errors.Join(errors.New("it is in use by this process"), r.leave(s))
		}
	}
}

// gone says of s, which was never opened, that it is closed.
func (r *registry) gone(s *shared) {
	r.mu.Lock()
	s.leaving = true
	r.mu.Unlock()
	r.remove(s)
	close(s.opened)
	close(s.closed)
}

// enter finds or adds the file of path, and reports whether it was added.
func (r *registry) enter(path string) (s *shared, mine bool) {
	info, _ := os.Stat(path)
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.all {
		if s.is(path, info) {
			if !s.leaving {
				s.refs++
			}
			return s, false
		}
	}
	s = &shared{path: path, info: info, refs: 1, opened: make(chan struct{}), closed: make(chan struct{})}
	r.all = append(r.all, s)
	return s, true
}

// entered says that s is open, or cannot be.
func (r *registry) entered(s *shared) {
	if s.err != nil {
		r.remove(s)
	} else {
		r.mu.Lock()
		s.info = s.file.info
		r.mu.Unlock()
	}
	close(s.opened)
}

// is reports whether s is the file of path. The registry is locked.
func (s *shared) is(path string, info fs.FileInfo) bool {
	return s.path == path || s.info != nil && info != nil && os.SameFile(s.info, info)
}

// wait waits until s is open, or reports that it was being closed and is.
func (s *shared) wait(ctx context.Context) (ready bool, err error) {
	select {
	case <-s.opened:
	case <-ctx.Done():
		return false, driver.Transient(ctx.Err())
	}
	if s.err != nil {
		return false, s.err
	}
	files.mu.Lock()
	leaving := s.leaving
	files.mu.Unlock()
	if !leaving {
		return true, nil
	}
	select {
	case <-s.closed:
		return false, nil
	case <-ctx.Done():
		return false, driver.Transient(ctx.Err())
	}
}

// leave gives a reference back.
func (r *registry) leave(s *shared) error { return r.close(s, true) }

// close closes the file of s if nobody has it any more.
func (r *registry) close(s *shared, leave bool) error {
	r.mu.Lock()
	if leave {
		s.refs--
	}
	if s.refs > 0 || s.leaving || !s.file.core.Idle() {
		r.mu.Unlock()
		return nil
	}
	s.leaving = true
	r.mu.Unlock()
	err := s.file.close()
	r.remove(s)
	close(s.closed)
	if err != nil {
		return fmt.Errorf("bolt: close %s: %w", s.path, err)
	}
	return nil
}

func (r *registry) remove(s *shared) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, other := range r.all {
		if other == s {
			r.all = append(r.all[:i], r.all[i+1:]...)
			return
		}
	}
}
