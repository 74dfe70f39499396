package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/chicory-go/chicory/internal/store"
	bbolt "go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	driverName  = "bolt"
	lockTimeout = 900 * time.Millisecond // for the lock of the file; zero would be for ever
	mapSize     = 1 << 30                // below it, a growing file makes no reader wait
	maxValue    = 16 << 20               // envelopes and results
)

// A file is an open file with its store. All who open it in this process
// share it.
type file struct {
	path   string
	limit  int64 // Options.MaxSize
	info   fs.FileInfo
	log    *slog.Logger
	db     *bbolt.DB
	meta   meta
	writer *writer
	core   *store.Store
}

// open opens the file of path, which nobody in this process has open.
func open(path string, o *Options, left func()) (*file, error) {
	f := &file{path: path, limit: o.MaxSize, log: o.logger()}
	if err := f.open(o, left); err != nil {
		return nil, fmt.Errorf("bolt: open %s: %w", path, explain(err))
	}
	return f, nil
}

// explain says what bbolt's errors mean.
func explain(err error) error {
	switch {
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("it is in use by another process: %w", err)
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrVersionMismatch), errors.Is(err, berrors.ErrChecksum):
		return fmt.Errorf("%w: %w", errNoBolt, err)
	}
	return err
}

func (f *file) open(o *Options, left func()) (err error) {
	if err := f.connect(); err != nil {
		return err
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it is damaged: %v", p)
		}
		if err != nil {
			f.db.Close()
		}
	}()
	if err := f.restore(left); err != nil {
		return err
	}
	f.core.SetMax(o.MaxPending)
	return nil
}

// connect opens the file and makes sure that it is the one that path names: it
// may have been replaced while its lock was waited for.
func (f *file) connect() error {
	for {
		if info, err := os.Stat(f.path); err == nil && info.Size() > 0 {
			if err := preflight(f.path); err != nil {
				return err
			}
		}
		var handle *os.File
		db, err := bbolt.Open(f.path, 0o600, f.options(&handle))
		if err != nil {
			return err
		}
		opened, err := handle.Stat()
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
}

func (f *file) options(handle **os.File) *bbolt.Options {
	o := &bbolt.Options{
		Timeout:        lockTimeout,
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		MaxSize:        int(f.limit),
		NoStatistics:   true,
		OpenFile: func(name string, flag int, mode os.FileMode) (*os.File, error) {
			h, err := os.OpenFile(name, flag, mode)
			*handle = h
			return h, err
		},
	}
	if canMapAhead {
		o.InitialMmapSize = mapSize
	}
	return o
}

// restore reads the file into a new store, whose journal it becomes.
func (f *file) restore(left func()) error {
	var last uint64
	err := f.db.Update(func(tx *bbolt.Tx) (err error) {
		if f.meta, err = readMeta(tx); err != nil {
			return err
		}
		if last = highest(tx, &f.meta); f.meta.unclean {
			f.meta.suspects = last
		}
		return f.meta.begin(tx)
	})
	if err != nil {
		return err
	}
	f.writer = newWriter(f.db)
	f.core = store.New(store.Options{Driver: driverName, Journal: f.writer, Nonce: f.meta.nonce,
		MaxMessage: maxValue, MaxBody: maxValue, Left: left})
	if err := f.load(last); err != nil {
		f.writer.stop()
		return err
	}
	return nil
}

func (f *file) load(last uint64) error {
	begin := time.Now()
	to := f.core.Restore(store.Past{Last: last, Suspects: f.meta.suspects, Run: f.meta.opened << 32})
	l := loader{to: to, log: f.log}
	err := f.db.View(func(tx *bbolt.Tx) error {
		l.tx = tx
		return l.load()
	})
	if err != nil {
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
	if f.writer.broken != nil {
		return f.db.Close()
	}
	f.db.NoFreelistSync = false
	err := f.db.Update(func(tx *bbolt.Tx) error { return f.meta.end(tx, f.core.Last()) })
	return errors.Join(err, f.db.Close())
}

// abandon closes the file as the death of the process would.
func (f *file) abandon() {
	f.core.Fail(errors.New("bolt: the process is dead"))
	f.writer.abandon()
	f.db.Close()
}
