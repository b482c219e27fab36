// Answers placement instances as the kubelet would, with the kubelet's own code: its static CPU manager policy, its
// topology manager, its state in memory. Instances come in on standard input, one JSON object a line; answers go out
// the same way, in the same order.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"

	"github.com/go-logr/logr"
	"k8s.io/klog/v2"
)

// instance is one machine and the requests that arrive at it, one after the other.
type instance struct {
	ID      int     `json:"id"`
	Machine machine `json:"machine"`
	// Requests are numbers of whole cores.
	Requests []int `json:"requests"`
}

// answer says where every mode of the kubelet puts the requests of one instance.
type answer struct {
	ID    int          `json:"id"`
	Modes []modeAnswer `json:"modes"`
}

// modeAnswer is the outcome of one mode; CPUs has one list for each request, and null where it was refused.
type modeAnswer struct {
	Mode string    `json:"mode"`
	CPUs []*string `json:"cpus"`
	// Refusal is the kubelet's reason for the first refusal, if there was one.
	Refusal string `json:"refusal,omitempty"`
}

func main() {
	if err := run(os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "kubelet peer:", err)
		os.Exit(1)
	}
}

// outcome is an answer or why there is none.
type outcome struct {
	line []byte
	err  error
}

// run answers every line; as many at once as there are processors, written in the order in which they came.
func run(in io.Reader, out io.Writer) error {
	logger := logr.Discard()
	ctx := klog.NewContext(context.Background(), logger)
	pending := make(chan chan outcome, 16*runtime.GOMAXPROCS(0))
	turns := make(chan struct{}, runtime.GOMAXPROCS(0))
	read := make(chan error, 1)
	go func() {
		defer close(pending)
		lines := bufio.NewReaderSize(in, 1<<20)
		for number := 1; ; number++ {
			line, err := lines.ReadBytes('\n')
			if len(line) > 0 {
				slot := make(chan outcome, 1)
				pending <- slot
				turns <- struct{}{}
				go func() {
					slot <- respond(ctx, line, number)
					<-turns
				}()
			}
			if err != nil {
				if err == io.EOF {
					err = nil
				}
				read <- err
				return
			}
		}
	}()
	writer := bufio.NewWriter(out)
	for slot := range pending {
		response := <-slot
		if response.err != nil {
			return response.err
		}
		if _, err := writer.Write(response.line); err != nil {
			return err
		}
	}
	if err := <-read; err != nil {
		return err
	}
	return writer.Flush()
}

func respond(ctx context.Context, line []byte, number int) outcome {
	var asked instance
	if err := json.Unmarshal(line, &asked); err != nil {
		return outcome{err: fmt.Errorf("line %d: %w", number, err)}
	}
	reply := answer{ID: asked.ID}
	for _, mode := range modes {
		got, err := mode.place(ctx, asked.Machine, asked.Requests)
		if err != nil {
			return outcome{err: fmt.Errorf("instance %s, %s: %w", strconv.Itoa(asked.ID), mode.name, err)}
		}
		reply.Modes = append(reply.Modes, got)
	}
	text, err := json.Marshal(reply)
	return outcome{line: append(text, '\n'), err: err}
}
