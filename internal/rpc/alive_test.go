package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// forgetful answers only who it is, and from the second time on that it has started anew: as after a restart, when go-ethereum's client
// has connected again and nobody knows of the call that was on its way.
func forgetful(t *testing.T) Endpoint {
	dir, err := os.MkdirTemp("", "crowd") // the path of a socket is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		in, out := json.NewDecoder(conn), json.NewEncoder(conn)
		for n := 0; ; {
			var q struct {
				ID     json.RawMessage `json:"id"`
				Method string          `json:"method"`
			}
			if in.Decode(&q) != nil {
				return
			}
			if q.Method == "crowd_info" {
				info := Info{Started: time.Unix(1000, 0)}
				if n++; n > 1 {
					info.Started = time.Unix(2000, 0)
				}
				_ = out.Encode(map[string]any{"jsonrpc": "2.0", "id": q.ID, "result": info})
			}
		}
	}()
	return Endpoint{Socket: path}
}

func TestClient_WaitsForNoAnswerThatIsLost(t *testing.T) {
	c, err := Dial(t.Context(), forgetful(t))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for name, call := range map[string]func() error{
		"a call": func() error { _, err := c.Accounts(ctx); return err },
		"a stream": func() error {
			for _, err := range c.Watch(ctx, [32]byte{1}) {
				return err
			}
			return nil
		},
	} {
		err := call()
		var e *Error
		if !errors.As(err, &e) || e.Kind != Unavailable || !strings.Contains(err.Error(), "was started again") || e.Hint == "" {
			t.Errorf("%s: got %v, want that the node was started again", name, err)
		}
	}
}
