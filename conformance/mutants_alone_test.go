package conformance_test

const (
	everywhere = "what it proves is also needed by other cases: none of them can do without"
	byModel    = "Rules/Model meets this rule as well"
)

// notAlone says of cases that kill no mutant alone why they do not.
var notAlone = map[string]string{
	"Backend/Life/Everything":      "what fails under load fails in other concurrent cases as well",
	"Backend/Rules/ParkOnce":       byModel,
	"Backend/Rules/Retry":          byModel,
	"Broker/Lease/Extend":          everywhere,
	"Broker/Lease/StaleAck":        everywhere,
	"Broker/Lease/StaleExtend":     everywhere,
	"Broker/Life/Others":           everywhere,
	"Broker/Life/Stop":             "what Stop keeps, a pause keeps as well",
	"Broker/Names/Namespaces":      "Control/Namespaces meets shared namespaces as well",
	"Broker/Publish/RoundTrip":     "what a publish loses is lost by Then as well",
	"Broker/Queues/PauseGivesBack": "what a pause keeps, Stop keeps as well",
	"Broker/Store/Outage":          "its mutant is a server, see TestOutage",
	"Broker/Receive/Notified":      "what is late for a waiting Receive is late for delays as well",
}
