module github.com/chicory-go/chicory

go 1.26.0

require (
	github.com/google/uuid v1.6.0
	go.uber.org/goleak v1.3.0
	google.golang.org/protobuf v1.36.12
)

require (
	go.etcd.io/bbolt v1.5.0
	golang.org/x/image v0.47.0
)

require golang.org/x/sys v0.49.0 // indirect
