package driver

// The rules by which records move. They are pure, so that every store that
// can run Go decides alike, and a store that cannot has one text to translate.
//
// They read Epoch, Seq, State, Run, Once and Provisional of updates, and of
// records Copy, Count and Skeleton besides; they carry Attempt, ReplyTo, Held
// and the times along. All else is opaque to them.

// CheckStart decides whether s may start, given the record r of its task (nil
// if there is none). Nil grants it; then NextStarted is the new record.
//
//   - ErrStale: a verdict or a newer version stands; the caller finishes it.
//   - ErrSuperseded: another stored copy, or a later delivery of this one,
//     has started, or only a skeleton is left; the caller acknowledges. The
//     skeleton of a dead-lettered record is ErrStale to its own version.
//   - ErrStarted: an at-most-once task that may have started before; the
//     caller settles it as lost.
func CheckStart(r *Record, s *Start) error {
	if r == nil {
		if s.Once && s.Count > 1 {
			return ErrStarted
		}
		return nil
	}
	if r.Skeleton {
		switch {
		case s.Epoch > r.Epoch:
			return nil
		case r.State == DeadLettered && s.Version() == r.Version():
			return ErrStale // its dead letter may not have been stored
		}
		return ErrSuperseded
	}
	order := s.Version().Compare(r.Version())
	switch {
	case order < 0, s.Epoch == r.Epoch && r.State.Terminal():
		return ErrStale
	case order > 0, r.State == Pending:
		return nil
	case r.State != Started: // RETRY closes its version
		return ErrStale
	case s.Copy != r.Copy, s.Count < r.Count:
		return ErrSuperseded
	case s.Once:
		return ErrStarted
	}
	return nil
}

// CheckUpdate decides whether u may replace the record r (nil if there is
// none). Nil accepts it; then NextUpdated is the new record. ErrStale refuses
// it. ErrStarted refuses to park an at-most-once task that has started.
//
// Fenced says that a current delivery's token stands in for u.Run, as in a
// settlement on a broker that covers the backend.
func CheckUpdate(r *Record, u *Update, fenced bool) error {
	if r == nil || u.Epoch > r.Epoch {
		return nil
	}
	if r.Skeleton || u.Epoch < r.Epoch || r.State.Terminal() || u.Seq < r.Seq {
		return ErrStale
	}
	if u.Seq > r.Seq {
		return nil
	}
	return checkSameVersion(r, u, fenced)
}

func checkSameVersion(r *Record, u *Update, fenced bool) error {
	switch {
	case u.rank() <= r.rank():
		return ErrStale
	case r.State == Retry:
		if u.State == Success || u.State == Cancelled {
			return nil
		}
		return ErrStale
	case u.Run == 0:
		if u.Once && u.State == Retry && r.State == Started {
			return ErrStarted
		}
		return nil
	case u.Run < r.Run && u.State != Success && !fenced:
		return ErrStale
	}
	return nil
}

// CheckClaim decides whether a broker that covers the backend may hand out a
// message of version v, given the record r. ErrStale means that a verdict or
// a newer version stands: the message is dropped.
func CheckClaim(r *Record, v Version) error {
	if r == nil {
		return nil
	}
	if r.Skeleton {
		if v.Epoch > r.Epoch {
			return nil
		}
		return ErrStale
	}
	if v.Compare(r.Version()) < 0 || v.Epoch == r.Epoch && r.State.Terminal() {
		return ErrStale
	}
	return nil
}

// CheckPublish decides whether a covering broker may store a message of
// version v that carries a record, given the record r: ErrDuplicate if the
// record is as new, unless it is the provisional record of that very publish.
func CheckPublish(r *Record, v Version) error {
	if r == nil || v.Compare(r.Version()) > 0 || r.Provisional {
		return nil
	}
	return ErrDuplicate
}

// NextStarted returns the record after s was granted as run at now (Unix ms).
func NextStarted(r *Record, s *Start, run uint64, now int64) *Record {
	n := &Record{Copy: s.Copy, Count: s.Count, StartedAt: now}
	n.Update = Update{ID: s.ID, Epoch: s.Epoch, Seq: s.Seq, Attempt: s.Attempt,
		State: Started, Run: run, Once: s.Once}
	if r != nil && r.Epoch == s.Epoch {
		n.PendingAt, n.RetriedAt, n.ReplyTo = r.PendingAt, r.RetriedAt, r.ReplyTo
	}
	return n
}

// NextUpdated returns the record after u was accepted at now (Unix ms); fenced
// is as for CheckUpdate. It keeps u's Body, Error and Next: clone u first if its
// caller may change them.
func NextUpdated(r *Record, u *Update, now int64, fenced bool) *Record {
	n := &Record{Update: *u} // small enough to inline: it need not go to the heap
	n.follow(r, now, fenced)
	return n
}

// follow completes the record n, which holds an accepted update, with what the
// record r before it leaves behind.
func (n *Record) follow(r *Record, now int64, fenced bool) {
	outside := n.Run == 0 && !fenced // whoever is fenced has met the message
	if r != nil && r.Epoch == n.Epoch && !r.Skeleton {
		n.PendingAt, n.StartedAt, n.RetriedAt = r.PendingAt, r.StartedAt, r.RetriedAt
		n.Copy, n.Count = r.Copy, r.Count
		n.Run = max(n.Run, r.Run)
		if n.ReplyTo == "" {
			n.ReplyTo = r.ReplyTo
		}
	}
	switch {
	case n.State == Pending:
		n.PendingAt = now
	case n.State == Retry:
		n.RetriedAt = now
	case n.State.Terminal():
		n.FinishedAt = now
		n.Held = n.State == Cancelled && outside
	}
}

// SkeletonOf returns what is left of r once it was deleted or has expired. Of a
// dead-lettered record the reason is kept: a redelivery may have to finish it.
func SkeletonOf(r *Record) *Record {
	n := &Record{Skeleton: true}
	if r.State == DeadLettered {
		n.Error = r.Error
	}
	n.ID, n.Epoch, n.Seq, n.State, n.Run = r.ID, r.Epoch, r.Seq, r.State, r.Run
	return n
}
