//go:build unix

package exampletest

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

var consoleBlock = regexp.MustCompile("(?s)```console\n(.*?)```")

// Transcript runs the commands of a document's console blocks, the lines that
// begin with "$ ", in one shell in dir, and checks that they print the lines
// that follow them, in any order as programs run side by side. It waits for
// what a program behind prints, before the next command. What goes to standard
// error, as the shell's messages do, is left out.
func Transcript(t *testing.T, document, dir string) {
	t.Helper()
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	blocks := consoleBlock.FindAllStringSubmatch(string(text), -1)
	if len(blocks) == 0 {
		t.Fatalf("%s has no console block", document)
	}
	sh := startShell(t, dir)
	for _, block := range blocks {
		for _, part := range strings.Split("\n"+block[1], "\n$ ")[1:] {
			command, output, _ := strings.Cut(strings.TrimSuffix(part, "\n"), "\n")
			fmt.Fprintln(sh.in, command)
			sh.expect(output)
		}
	}
}

// A shell takes commands from in; out is what they print.
type shell struct {
	t   *testing.T
	in  io.Writer
	out *bufio.Reader
}

func startShell(t *testing.T, dir string) *shell {
	t.Helper()
	cmd := exec.Command("sh")
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "CHICORY_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := func() { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) } // with all that it has started
	hung := time.AfterFunc(2*time.Minute, end)
	t.Cleanup(func() {
		hung.Stop()
		end()
		cmd.Wait()
	})
	return &shell{t, in, bufio.NewReader(out)}
}

// expect checks that want, and nothing else, is printed until the command has
// ended.
func (s *shell) expect(want string) {
	s.t.Helper()
	var lines []string
	if want != "" {
		lines = strings.Split(want, "\n")
	}
	got := s.read(len(lines))
	fmt.Fprintln(s.in, "echo END")
	for line := ""; line != "END"; {
		line = s.read(1)[0]
		got = append(got, line)
	}
	slices.Sort(got[:len(got)-1])
	slices.Sort(lines)
	if lines = append(lines, "END"); !slices.Equal(got, lines) {
		s.t.Fatalf("got %q, want %q", got, lines)
	}
}

// read reads n lines.
func (s *shell) read(n int) (lines []string) {
	s.t.Helper()
	for len(lines) < n {
		line, err := s.out.ReadString('\n')
		if err != nil {
			s.t.Fatalf("%v after %q", err, lines)
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
	return lines
}
