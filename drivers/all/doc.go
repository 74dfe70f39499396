// Package all registers every driver of this module, for programs that choose
// theirs by configuration. Import it for its effect:
//
//	import _ "github.com/chicory-go/chicory/drivers/all"
//
// Programs that know their driver import that one alone and link nothing else.
package all

import (
	_ "github.com/chicory-go/chicory/drivers/amqp"   // amqp: amqps:
	_ "github.com/chicory-go/chicory/drivers/bolt"   // bolt:
	_ "github.com/chicory-go/chicory/drivers/memory" // memory:
	_ "github.com/chicory-go/chicory/drivers/redis"  // redis: rediss: unix:
)
