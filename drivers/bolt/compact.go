package bolt

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"github.com/chicory-go/chicory/driver"
	bbolt "go.etcd.io/bbolt"
)

// Compact gives back the room that the file of path no longer needs: it writes
// what is in the file to a new one beside it, which then takes its place; what
// has expired is left out. Until
// that moment the file is as it was, whatever happens; mode and owner stay. The
// copy needs room on the disk. Its name is the file's and ".compacting"; one
// that was left by a crash is replaced.
//
// A file that is open, here or in another process, is an error, and so is one
// that is damaged, is none of Chicory's or has several hard links. Who opens the
// file meanwhile waits in this process, and in another one gets an error after a
// second. It does not work on Windows, where open files keep their names.
func Compact(ctx context.Context, path string) error {
	if err := compact(ctx, path); err != nil {
		return fmt.Errorf("bolt: compact %s: %w", path, explain(err))
	}
	return nil
}

func compact(ctx context.Context, path string) error {
	path, err := filepath.EvalSymlinks(path) // it is the file that is replaced, not a link to it
	if err != nil {
		return err
	}
	if path, err = filepath.Abs(path); err != nil {
		return err
	}
	return files.alone(ctx, path, func() error {
		f := &file{path: path, log: slog.New(slog.DiscardHandler)}
		return f.compact(ctx)
	})
}

// compact replaces f's file. Its lock is held until that is done: who waits for
// it finds that the path names another file, and opens that.
func (f *file) compact(ctx context.Context) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("it is damaged: %v", p)
			f.stuck = true
		}
		f.discard()
	}()
	if err := f.connect(); err != nil {
		return err
	}
	if n := links(f.info); n > 1 {
		return fmt.Errorf("it has %d hard links, and the others would keep the old file", n)
	}
	if err := f.check(); err != nil {
		return err
	}
	temp := f.path + ".compacting"
	err = f.copyTo(ctx, temp)
	if err == nil {
		err = os.Rename(temp, f.path)
	}
	if err != nil {
		os.Remove(temp) // not later: the next one may be at it
		return err
	}
	return syncDir(f.path)
}

// check looks at every page, which opening does only after a crash.
func (f *file) check() error {
	m, err := newestMeta(f.handle)
	if err != nil {
		return err
	}
	w := pageWalk{file: f.handle, meta: m, seen: map[uint64]bool{}}
	if err := w.tree(m.root, nil, nil); err != nil {
		return err
	}
	return f.db.View(func(tx *bbolt.Tx) error {
		_, err := readMeta(tx)
		return err
	})
}

// copyTo writes what is in f to a new file, which is on the disk then.
func (f *file) copyTo(ctx context.Context, path string) (err error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	to := &file{path: path, log: f.log}
	defer func() { err = errors.Join(err, to.discard()) }()
	if err := to.connect(); err != nil {
		return err
	}
	to.stuck = true // unless this returns
	err = f.db.View(func(tx *bbolt.Tx) error { return to.copyAll(ctx, tx) })
	to.stuck = false
	if err != nil {
		return err
	}
	m, err := newestMeta(to.handle)
	if err != nil {
		return err
	}
	if err := to.handle.Truncate(int64(m.pages) * int64(m.pageSize)); err != nil {
		return err
	}
	if err := own(to.handle, f.info); err != nil {
		return fmt.Errorf("the new file cannot have its owner: %w", err)
	}
	if err := to.handle.Chmod(f.info.Mode().Perm()); err != nil {
		return err
	}
	return to.handle.Sync()
}

// copyAll copies all buckets of tx to f. The last commit writes the list of free
// pages, so that it need not be made by the next open.
func (f *file) copyAll(ctx context.Context, tx *bbolt.Tx) error {
	f.db.NoSync = true // once is enough, in the end
	err := tx.ForEach(func(name []byte, b *bbolt.Bucket) error { return f.copyBucket(ctx, name, b) })
	if err != nil {
		return err
	}
	f.db.NoFreelistSync = false
	return f.db.Update(func(tx *bbolt.Tx) error {
		_, err := reserve(tx, reserved(tx), 0) // a full file has given it up
		return err
	})
}

func (f *file) copyBucket(ctx context.Context, name []byte, from *bbolt.Bucket) error {
	c := from.Cursor()
	key, value := c.First()
	for key != nil {
		if err := ctx.Err(); err != nil {
			return driver.Transient(err)
		}
		err := f.db.Update(func(tx *bbolt.Tx) (err error) {
			key, value, err = copySome(tx, name, c, key, value)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// copySome copies as much of a bucket as fits into one transaction, from key
// on, and returns where it goes on.
func copySome(tx *bbolt.Tx, name []byte, c *bbolt.Cursor, key, value []byte) (k, v []byte, err error) {
	to, err := tx.CreateBucketIfNotExists(name)
	if err != nil {
		return nil, nil, err
	}
	to.FillPercent = fillPercent
	for size := 0; key != nil && size < maxBytes; key, value = c.Next() {
		if value == nil {
			return nil, nil, fmt.Errorf("bucket %q holds a bucket %q, which is none of Chicory's", name, key)
		}
		if value = unexpired(name, value); value == nil {
			continue
		}
		if err := to.Put(key, value); err != nil {
			return nil, nil, err
		}
		size += len(key) + len(value)
	}
	return key, value, nil
}

// unexpired returns what is left of a value now: of an expired result its
// skeleton, and in the end nothing.
func unexpired(bucket, value []byte) []byte {
	if _, k, ok := split(bucket); !ok || k != records {
		return value
	}
	r, expires, err := decodeRecord(value)
	now := time.Now().UnixMilli()
	switch {
	case err != nil || !r.State.Terminal() || r.Held || expires == 0 || now < expires:
		return value
	case r.Skeleton || now >= expires+driver.SkeletonAge.Milliseconds():
		return nil
	}
	return encodeRecord(driver.SkeletonOf(r), expires+driver.SkeletonAge.Milliseconds())
}
