package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// The format of pages, as bbolt writes them: a header of id(8) flags(2) count(2)
// overflow(4), then count elements, then the keys and values they point to. Of
// a branch, an element is pos(4) ksize(4) child(8); of a leaf, flags(4) pos(4)
// ksize(4) vsize(4). Pos counts from the element. The value of a bucket is
// root(8) sequence(8) and, if root is zero, a page of its own.
const (
	branchPage    = 0x01
	leafPage      = 0x02
	elementSize   = 16
	bucketElement = 0x01
	bucketHeader  = 16
)

var order = binary.NativeEndian

// A pageWalk reads every page of a file that is in use, and looks for what
// would make bbolt panic. It does not use bbolt, and what it reads cannot make
// it do so.
type pageWalk struct {
	file io.ReaderAt
	meta boltMeta
	seen map[uint64]bool
}

func damagedPage(id uint64, format string, args ...any) error {
	return fmt.Errorf("it is damaged: page %d: %s", id, fmt.Sprintf(format, args...))
}

// tree walks the tree whose root is page id. Its keys are from low on, and
// below high unless that is nil.
func (w *pageWalk) tree(id uint64, low, high []byte) error {
	page, err := w.read(id)
	if err != nil {
		return err
	}
	return w.page(id, page, low, high)
}

// read returns a page with its overflow.
func (w *pageWalk) read(id uint64) ([]byte, error) {
	if id < 2 || id >= w.meta.pages {
		return nil, damagedPage(id, "is not below %d", w.meta.pages)
	}
	size := uint64(w.meta.pageSize)
	head := make([]byte, pageHeader)
	if _, err := w.file.ReadAt(head, int64(id*size)); err != nil {
		return nil, damagedPage(id, "%v", err)
	}
	n := uint64(order.Uint32(head[12:])) + 1
	if self := order.Uint64(head); self != id || id+n > w.meta.pages {
		return nil, damagedPage(id, "says it is page %d, with %d in all", self, n)
	}
	for i := range n {
		if w.seen[id+i] {
			return nil, damagedPage(id+i, "is in use twice")
		}
		w.seen[id+i] = true
	}
	page := make([]byte, n*size)
	if _, err := w.file.ReadAt(page, int64(id*size)); err != nil {
		return nil, damagedPage(id, "%v", err)
	}
	return page, nil
}

// page looks at one page and walks what it points to.
func (w *pageWalk) page(id uint64, page, low, high []byte) error {
	flags, count := order.Uint16(page[8:]), int(order.Uint16(page[10:]))
	if flags != branchPage && flags != leafPage {
		return damagedPage(id, "has type %#x", flags)
	}
	if pageHeader+count*elementSize > len(page) || flags == branchPage && count == 0 {
		return damagedPage(id, "has %d elements", count)
	}
	keys := make([][]byte, count, count+1)
	for i := range count {
		key, ok := elementKey(page, i, flags)
		if !ok || i > 0 && bytes.Compare(keys[i-1], key) >= 0 {
			return damagedPage(id, "element %d is out of place", i)
		}
		keys[i] = key
	}
	if count > 0 && (bytes.Compare(keys[0], low) < 0 || high != nil && bytes.Compare(keys[count-1], high) >= 0) {
		return damagedPage(id, "has keys of another page")
	}
	keys = append(keys, high)
	for i := range count {
		if err := w.element(id, page, i, flags, keys[i], keys[i+1]); err != nil {
			return err
		}
	}
	return nil
}

// elementKey returns the key of element i, if it and its value are in page.
func elementKey(page []byte, i int, flags uint16) (key []byte, ok bool) {
	at := pageHeader + i*elementSize
	e := page[at:]
	pos, ksize, vsize := uint64(order.Uint32(e)), uint64(order.Uint32(e[4:])), uint64(0)
	if flags == leafPage {
		pos, ksize, vsize = ksize, uint64(order.Uint32(e[8:])), uint64(order.Uint32(e[12:]))
	}
	from := uint64(at) + pos
	if pos < elementSize || from+ksize+vsize > uint64(len(page)) {
		return nil, false
	}
	return page[from : from+ksize], true
}

// element walks what element i points to.
func (w *pageWalk) element(id uint64, page []byte, i int, flags uint16, key, next []byte) error {
	at := pageHeader + i*elementSize
	e := page[at:]
	if flags == branchPage {
		return w.tree(order.Uint64(e[8:]), key, next)
	}
	if order.Uint32(e)&bucketElement == 0 {
		return nil
	}
	pos, ksize, vsize := int(order.Uint32(e[4:])), int(order.Uint32(e[8:])), int(order.Uint32(e[12:]))
	value := page[at+pos+ksize:][:vsize]
	if len(value) < bucketHeader {
		return damagedPage(id, "bucket %q is cut off", key)
	}
	if root := order.Uint64(value); root != 0 {
		return w.tree(root, nil, nil)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || order.Uint16(inline[8:]) != leafPage {
		return damagedPage(id, "bucket %q is cut off", key)
	}
	return w.page(id, inline, nil, nil)
}
