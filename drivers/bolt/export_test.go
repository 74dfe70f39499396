package bolt

import "os"

// Abandon closes the file of path as the death of its process would. Clients
// that are open are of no use any more.
func Abandon(path string) {
	files.mu.Lock()
	var found *shared
	for _, s := range files.all {
		if s.path == path {
			found, s.leaving = s, true
		}
	}
	files.mu.Unlock()
	if found == nil {
		return
	}
	found.file.abandon()
	files.remove(found)
	close(found.closed)
}

// Break makes every commit to the file of path fail from now on, in a way that
// says nothing about its outcome.
func Break(path string) {
	files.mu.Lock()
	defer files.mu.Unlock()
	for _, s := range files.all {
		if s.path == path {
			s.file.db.Close()
		}
	}
}

// Used returns how many bytes of a file are in use.
func Used(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	m, err := newestMeta(f)
	return int64(m.pages) * int64(m.pageSize), err
}
