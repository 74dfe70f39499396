package bolt

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
