package amqp

import "slices"

// Tags are a set of delivery tags, which begin at 1. It takes room for its gaps only.
type tags struct{ runs []run } // in order, none next to another; the first begins at 0

// A run is the tags from first to last.
type run struct{ first, last uint64 }

// upTo is the tag up to which all are in the set.
func (s *tags) upTo() uint64 {
	if len(s.runs) == 0 {
		return 0
	}
	return s.runs[0].last
}

// add adds a tag that is not in the set.
func (s *tags) add(tag uint64) {
	if len(s.runs) == 0 {
		s.runs = []run{{}}
	}
	i := len(s.runs) // new tags are late ones
	for s.runs[i-1].first > tag {
		i--
	}
	if s.runs[i-1].last+1 == tag {
		s.runs[i-1].last = tag
	} else {
		s.runs = slices.Insert(s.runs, i, run{tag, tag})
		i++
	}
	if i < len(s.runs) && s.runs[i].first == tag+1 {
		s.runs[i-1].last = s.runs[i].last
		s.runs = slices.Delete(s.runs, i, i+1)
	}
}
