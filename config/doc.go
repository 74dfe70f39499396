// Package config reads what is configured from outside a program, from the environment
// and from a file:
//
//	cfg, err := config.Load("")
//	app, err := chicory.New(cfg.App)
//	stop, err := worker.New(app, cfg.Worker).Start(ctx) // or worker.MainWith(app, cfg.Worker)
//
// The file is TOML, without tables; CHICORY_CONFIG names it:
//
//	url = "redis://localhost:6379"
//	timeout = "90s"
//	queues = ["images=3", "mail"]
//
// Each key is also a variable of the environment: CHICORY_URL, CHICORY_TIMEOUT,
// CHICORY_QUEUES. A variable beats the file, and a flag of worker.MainWith beats both.
// docs/configuration.md lists all keys.
//
// Programs that have no file need not import this package: New and worker.Main read the
// environment themselves. It is the only one that links a parser of TOML.
package config
