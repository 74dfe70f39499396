package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"time"

	"github.com/chicory-go/chicory/internal/store"
	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	driverName  = "bolt"
	lockTimeout = 900 * time.Millisecond // for the lock of the file; zero would be for ever
	mapSize     = 1 << 30                // below it, a growing file makes no reader wait
	replacedFor = 10 * time.Second       // and no longer, while the lock is waited for
	maxValue    = 16 << 20               // envelopes and results
)

// A file is an open file with its store. All who open it in this process
// share it.
type file struct {
	path   string
	limit  int64 // Options.MaxSize
	max    int   // Options.MaxPending
	cached int   // Options.cached
	info   fs.FileInfo
	log    *slog.Logger
	db     *bbolt.DB
	handle *os.File // of db
	stuck  bool     // bbolt may hold its locks for ever
	meta   meta
	writer *writer
	core   *store.Store
}

// open opens the file of path, which nobody in this process has open.
func open(path string, o *Options, left func()) (*file, error) {
	f := &file{path: path, limit: o.MaxSize, max: o.MaxPending, cached: o.cached, log: o.logger()}
	if err := f.open(o, left); err != nil {
		return nil, fmt.Errorf("bolt: open %s: %w", path, explain(err))
	}
	return f, nil
}

// agrees reports what f is open with that is not as in o.
func (f *file) agrees(o *Options) error {
	switch {
	case f.limit != o.MaxSize:
		return fmt.Errorf("it is open with a limit of %d bytes, asked for %d", f.limit, o.MaxSize)
	case f.max != o.MaxPending:
		return fmt.Errorf("it is open with a limit of %d messages, asked for %d", f.max, o.MaxPending)
	}
	return nil
}

// explain says what bbolt's errors mean.
func explain(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("it is in use by another process, and a file belongs to one at a time: %w", err)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrChecksum):
		return fmt.Errorf("%w: %w", errNoBolt, err)
	}
	return err
}

func (f *file) open(o *Options, left func()) (err error) {
	// bbolt panics over what is damaged, and mapped memory may fault.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it is damaged: %v", p)
			f.stuck = true
		}
		if err != nil {
			f.discard()
		}
	}()
	if err := f.create(); err != nil {
		return err
	}
	if err := f.connect(); err != nil {
		return err
	}
	if err := f.restore(left); err != nil {
		return err
	}
	f.core.SetMax(o.MaxPending)
	go f.writer.run()
	return nil
}

// connect opens the file and makes sure that it is the one that path names: it
// may have been replaced while its lock was waited for.
func (f *file) connect() error {
	for begin := time.Now(); time.Since(begin) < replacedFor; {
		info, err := os.Stat(f.path)
		isNew := err != nil || info.Size() == 0
		if !isNew {
			if err := preflight(f.path); err != nil {
				return err
			}
		}
		db, err := bbolt.Open(f.path, 0o600, f.options())
		if isNew && isFull(err) {
			os.Truncate(f.path, 0) // it would pass for a file that is cut off
		}
		if err != nil {
			return err
		}
		opened, err := f.handle.Stat()
		if err != nil {
			db.Close()
			return err
		}
		if named, err := os.Stat(f.path); err == nil && os.SameFile(opened, named) {
			f.db, f.info = db, opened
			return nil
		}
		db.Close()
	}
	return errors.New("it is being replaced again and again")
}

func (f *file) options() *bbolt.Options {
	o := &bbolt.Options{
		Timeout:        lockTimeout,
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		MaxSize:        int(f.limit),
		NoStatistics:   true,
		OpenFile: func(name string, flag int, mode os.FileMode) (_ *os.File, err error) {
			f.handle, err = os.OpenFile(name, flag, mode)
			return f.handle, err
		},
	}
	if canMapAhead {
		o.InitialMmapSize = mapSize
	}
	return o
}

// restore reads the file into a new store, whose journal the file becomes.
// Nothing is written before all was read.
func (f *file) restore(left func()) error {
	err := f.db.View(func(tx *bbolt.Tx) (err error) {
		if f.meta, err = readMeta(tx); err != nil {
			return err
		}
		return f.load(tx, left)
	})
	if err == nil {
		err = f.note(f.meta.begin)
	}
	if err != nil {
		return err
	}
	return f.db.View(func(tx *bbolt.Tx) error {
		f.writer.reserved = reserved(tx)
		return nil
	})
}

// note writes what the file says of itself: if it is full, in the room that is
// reserved, and without the list of free pages.
func (f *file) note(write func(tx *bbolt.Tx) error) error {
	id, err := update(f.db, write)
	if isFull(err) && f.writer.before(id) {
		f.db.NoFreelistSync = true
		if _, err = update(f.db, release); err == nil {
			_, err = update(f.db, write)
		}
	}
	f.stuck = err != nil
	return err
}

func (f *file) load(tx *bbolt.Tx, left func()) error {
	begin, last := time.Now(), highest(tx, &f.meta)
	if f.meta.unclean {
		f.meta.suspects = last
	}
	f.writer = newWriter(f)
	f.core = store.New(store.Options{Driver: driverName, Journal: f.writer, Nonce: f.meta.nonce,
		MaxMessage: maxValue, MaxBody: maxValue, Cached: f.cached, Left: left})
	to := f.core.Restore(store.Past{Last: last, Suspects: f.meta.suspects, Run: (f.meta.opened + 1) << 32})
	l := loader{tx: tx, to: to, log: f.log}
	if err := l.load(); err != nil {
		return err
	}
	n := to.Done()
	f.log.Debug("bolt: opened", "file", f.path, "tasks", n, "damaged", l.damaged, "clean", !f.meta.unclean, "took", time.Since(begin))
	return nil
}

// close closes the file. The list of free pages is written, so that it need
// not be made by the next open.
func (f *file) close() error {
	f.writer.stop()
	if f.writer.failure() != nil {
		f.stuck = true
		return f.discard()
	}
	f.db.NoFreelistSync = false
	err := f.note(func(tx *bbolt.Tx) error { return f.meta.end(tx, f.core.Last()) })
	return errors.Join(err, f.discard())
}

// discard closes the file as it is. If bbolt may have panicked, it does not let
// go of its own locks, and closing it would never end: then it is the file alone
// that is closed. What is mapped stays mapped, and would keep the file's lock.
func (f *file) discard() error {
	switch {
	case f.db != nil && !f.stuck:
		return f.db.Close()
	case f.handle != nil:
		unlock(f.handle)
		f.handle.Close()
	}
	return nil
}

// abandon closes the file as the death of the process would.
func (f *file) abandon() {
	f.core.Fail(errors.New("bolt: the process is dead"))
	f.writer.abandon()
	f.stuck = f.stuck || f.writer.failure() != errStopped
	f.discard()
}
