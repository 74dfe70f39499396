package config_test

import (
	"fmt"
	"os"

	"github.com/chicory-go/chicory"
	"github.com/chicory-go/chicory/config"
)

// A program that is told by environment and file where to run. A worker of it is
// worker.New(app, cfg.Worker), or worker.MainWith(app, cfg.Worker) with flags.
func ExampleLoad() {
	os.WriteFile("example.toml", []byte(`
		url = "memory:"
		queues = ["images=3", "mail"] # three of four are images
	`), 0o600)
	defer os.Remove("example.toml")

	cfg, err := config.Load("example.toml")
	if err != nil {
		fmt.Println(err)
		return
	}
	app, err := chicory.New(cfg.App)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer app.Close()
	fmt.Println(cfg.App.URL, cfg.Worker.Queues)
	// Output: memory: [{images 3} {mail 0}]
}
