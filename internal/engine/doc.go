// Package engine holds what producers and workers share: type-erased tasks,
// their policy, the envelope on the wire, publishing, and the verdicts by
// which an attempt moves a task on. It knows drivers by their interfaces only.
package engine
