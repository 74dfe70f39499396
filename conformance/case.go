package conformance

import (
	"slices"
	"time"
)

// A Case proves one sentence of the contract.
type Case struct {
	// Suite is Broker, Backend or App, and Name the name under it.
	Suite, Name string
	// Contract is the sentence that the case proves; a failure prints it.
	Contract string
	// Denied says what the case proves where the store does not claim the
	// property; empty where every store must have it.
	Denied string

	restarts bool          // its store
	limit    time.Duration // of virtual time, 0 is the default
	quick    bool          // do not look for goroutines: the bubble does
	run      func(*C)
	explore  func(*exploration) // instead of run
}

// FullName is the name of the case's subtest, and its key in Harness.Known.
func (c *Case) FullName() string { return c.Suite + "/" + c.Name }

// Cases returns the table of all cases.
func Cases() []Case { return slices.Concat(brokerCases(), backendCases(), appCases()) }

// suite returns cases with their suite filled in.
func suite(name string, tables ...[]Case) []Case {
	all := slices.Concat(tables...)
	for i := range all {
		all[i].Suite = name
	}
	return all
}

func brokerCases() []Case {
	return suite("Broker", publishCases, dataCases, nameCases, receiveCases, queueCases, leaseCases, settleCases,
		delayCases, deadCases, onceCases, lifeCases, storeCases, optionalCases)
}
