// Command thumbnails makes a thumbnail of every picture below a folder: real
// work on real input, with progress, retries, and a list of what failed.
//
//	go run ./examples/thumbnails [-out DIR] [DIR]
//
// Without DIR it takes the test pictures of the Go installation, and one that is
// cut off in the middle.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"image"
	_ "image/gif"
	"image/jpeg"
	_ "image/png"
	"io"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/image/draw"

	"github.com/chicory-go/chicory"
	_ "github.com/chicory-go/chicory/drivers/memory"
	"github.com/chicory-go/chicory/worker"
)

const (
	queue = "thumbnails"
	edge  = 64 // pixels of a thumbnail's longer side
)

// Job is a picture to make a thumbnail of; Thumbnail is what came of it.
type (
	Job struct {
		Path, Out string
	}
	Thumbnail struct {
		Path          string
		Width, Height int
	}
)

var thumbnail = chicory.Define[Job, Thumbnail]("pictures.thumbnail",
	chicory.Queue(queue),
	chicory.MaxRetries(2),
	chicory.Exponential(50*time.Millisecond, time.Second),
	chicory.Timeout(time.Minute),
	// What is no picture at all stays none; anything else may mend.
	chicory.IgnoreOn(image.ErrFormat),
)

func main() {
	out := flag.String("out", "", "folder for the thumbnails (default: a new temporary one)")
	flag.Parse()
	if err := run(context.Background(), os.Stdout, *out, flag.Arg(0)); err != nil {
		log.Fatal(err)
	}
}

func run(ctx context.Context, out io.Writer, target, source string) (err error) {
	withBroken := source == ""
	if withBroken {
		if source, err = testPictures(ctx); err != nil {
			return err
		}
	}
	if target == "" {
		if target, err = os.MkdirTemp("", "thumbnails-"); err != nil {
			return err
		}
	}
	pictures, err := find(source, target)
	if err != nil {
		return err
	}
	if withBroken {
		broken, err := cutOff(filepath.Join(source, "video-001.png"), target)
		if err != nil {
			return err
		}
		pictures = append(pictures, broken)
	}
	app, err := chicory.New(chicory.Config{URL: "memory:"})
	if err != nil {
		return err
	}
	defer app.Close()
	thumbnail.Handle(app, makeThumbnail)
	if err := app.Connect(ctx); err != nil {
		return err
	}
	stop, err := worker.New(app, worker.Options{}).Start(ctx)
	if err != nil {
		return err
	}
	defer stop()

	fmt.Fprintf(out, "%d pictures in %s\n", len(pictures), source)
	if err := makeAll(ctx, out, app, pictures); err != nil {
		return err
	}
	fmt.Fprintf(out, "Thumbnails are in %s\n", target)
	return listFailed(ctx, out, app)
}

// testPictures returns the folder of pictures that comes with Go.
func testPictures(ctx context.Context) (string, error) {
	root, err := exec.CommandContext(ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("find the Go installation: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(root)), "src", "image", "testdata"), nil
}

// cutOff makes a job of the first half of a picture.
func cutOff(picture, target string) (Job, error) {
	data, err := os.ReadFile(picture)
	if err != nil {
		return Job{}, err
	}
	path := filepath.Join(target, "broken.png")
	return Job{Path: path, Out: path + ".thumb.jpeg"}, os.WriteFile(path, data[:len(data)/2], 0o600)
}

// find returns the jobs for the pictures below source.
func find(source, target string) ([]Job, error) {
	var jobs []Job
	err := filepath.WalkDir(source, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !slices.Contains([]string{".png", ".jpg", ".jpeg", ".gif"}, strings.ToLower(filepath.Ext(path))) {
			return nil
		}
		name, err := filepath.Rel(source, path)
		if err != nil {
			return err
		}
		flat := strings.ReplaceAll(filepath.ToSlash(name), "/", "_")
		jobs = append(jobs, Job{Path: path, Out: filepath.Join(target, flat+".thumb.jpeg")})
		return nil
	})
	return jobs, err
}

// makeAll enqueues the jobs in one batch and shows progress as they finish.
func makeAll(ctx context.Context, out io.Writer, app *chicory.App, jobs []Job) error {
	results, err := thumbnail.On(app).DelayMany(ctx, jobs)
	if err != nil {
		return err
	}
	done, failed := 0, 0
	for i, outcome := range chicory.Completed(ctx, results) {
		done++
		what := fmt.Sprintf("%dx%d", outcome.Value.Width, outcome.Value.Height)
		if outcome.Err != nil {
			failed++
			what = "FAILED"
		}
		fmt.Fprintf(out, "[%2d/%d] %-52s %s\n", done, len(jobs), filepath.Base(jobs[i].Path), what)
	}
	fmt.Fprintf(out, "%d made, %d failed\n", done-failed, failed)
	return ctx.Err()
}

// listFailed shows what ended among the dead letters, and why.
func listFailed(ctx context.Context, out io.Writer, app *chicory.App) error {
	for letter, err := range app.DeadLetters(queue).All(ctx) {
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "Dead letter: attempts %d, %s\n", letter.Attempts, letter.Message)
	}
	return nil
}

// makeThumbnail is the handler.
func makeThumbnail(ctx context.Context, job Job) (Thumbnail, error) {
	data, err := os.ReadFile(job.Path)
	if err != nil {
		return Thumbnail{}, err
	}
	picture, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return Thumbnail{}, fmt.Errorf("%s: %w", filepath.Base(job.Path), err)
	}
	size := fit(picture.Bounds().Size())
	small := image.NewRGBA(image.Rectangle{Max: size})
	draw.CatmullRom.Scale(small, small.Bounds(), picture, picture.Bounds(), draw.Src, nil)
	if err := ctx.Err(); err != nil {
		return Thumbnail{}, err
	}
	return Thumbnail{Path: job.Out, Width: size.X, Height: size.Y}, write(job.Out, small)
}

// fit scales a size down so that its longer side is edge.
func fit(p image.Point) image.Point {
	longer := max(p.X, p.Y, 1)
	if longer <= edge {
		return p
	}
	return image.Pt(max(1, p.X*edge/longer), max(1, p.Y*edge/longer))
}

// write stores the picture whole or not at all: a task may run twice.
func write(path string, picture image.Image) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".thumbnail-")
	if err != nil {
		return err
	}
	defer os.Remove(temporary.Name())
	if err := jpeg.Encode(temporary, picture, nil); err != nil {
		return errors.Join(err, temporary.Close())
	}
	if err := temporary.Close(); err != nil {
		return err
	}
	return os.Rename(temporary.Name(), path)
}
