// Command redis measures Chicory on Redis beside asynq, on a private redis-server, in
// interleaved rounds: what is told is the median of each, and of the ratio within a
// round.
//
//	cd bench && go run ./redis -n 20000 -rounds 5
package main
