package memory

// Size returns how much s keeps.
func Size(s *Store) int { return s.core.Size() }
