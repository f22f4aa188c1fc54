package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"reflect"
	"strings"
	"testing"
	"time"
)

// pieces is a connection that delivers its bytes n at a time.
type pieces struct {
	data []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(p.n, len(b))], p.data)
	p.data = p.data[n:]
	return n, nil
}

func (p *pieces) Write(b []byte) (int, error)        { return len(b), nil }
func (p *pieces) Close() error                       { return nil }
func (p *pieces) LocalAddr() net.Addr                { return nil }
func (p *pieces) RemoteAddr() net.Addr               { return nil }
func (p *pieces) SetDeadline(time.Time) error        { return nil }
func (p *pieces) SetReadDeadline(time.Time) error    { return nil }
func (p *pieces) SetWriteDeadline(t time.Time) error { return nil }

// FuzzSocketConn has one law: what the decoder reads through the bounded
// connection is what it would read without, as far as all of it are messages.
func FuzzSocketConn(f *testing.F) {
	f.Add([]byte(`{"a":1} [2,"]"]`+"\n"), 1)
	f.Add([]byte(`{"method":"rpc.discover"}{"method":"crowd_info"}`), 7)
	f.Add([]byte(`[{"method":"rpc.discover"}]`), 3)
	f.Add([]byte(`{"a":"\\"}{"b":"\""}`), 2)
	f.Add([]byte(`{"a"`), 2)
	f.Add([]byte(`]`), 2)
	f.Fuzz(func(t *testing.T, data []byte, n int) {
		if n < 1 || len(data) > 1<<16 {
			return
		}
		plain := json.NewDecoder(bytes.NewReader(data))
		cut := json.NewDecoder(&socketConn{Conn: &pieces{data: data, n: n}})
		for {
			var want, got any
			if plain.Decode(&want) != nil {
				return
			}
			switch want.(type) {
			case map[string]any, []any:
			default:
				return
			}
			if err := cut.Decode(&got); err != nil {
				t.Fatalf("got %v, want %v", err, want)
			}
			if !bytes.Contains(data, []byte("rpc.discover")) && !reflect.DeepEqual(got, want) {
				t.Fatalf("got %v, want %v", got, want)
			}
		}
	})
}

func TestSocketConn_BoundsMemory(t *testing.T) {
	endless := io.MultiReader(strings.NewReader(`{"a":"`), zeros{})
	c := &socketConn{Conn: &readConn{Reader: endless}}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, errMessage) {
		t.Errorf("got %v, want %v", err, errMessage)
	}
	if cap(c.buf) > 2*maxMessage {
		t.Errorf("got a buffer of %d bytes for a message of at most %d", cap(c.buf), maxMessage)
	}
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = '0'
	}
	return len(b), nil
}

type readConn struct {
	pieces
	io.Reader
}

func (r *readConn) Read(b []byte) (int, error) { return r.Reader.Read(b) }

func TestRenameDiscover(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"other call", `{"method":"crowd_info"}`, `{"method":"crowd_info"}`},
		{"call", `{"id":1,"method":"rpc.discover"}`, `{"id":1,"method":"rpc_discover"}`},
		{"in a batch", `[{"method":"x"},{"method":"rpc.discover"},1]`, `[{"method":"x"},{"method":"rpc_discover"},1]`},
		{"as a parameter", `{"method":"x","params":["rpc.discover"]}`, `{"method":"x","params":["rpc.discover"]}`},
		{"broken", `{"method":"rpc.discover"`, `{"method":"rpc.discover"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := string(renameDiscover([]byte(tt.in))); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}

func TestKinds_AreClosedAndAppendOnly(t *testing.T) {
	want := []Kind{"bad-request", "not-found", "conflict", "too-late", "too-large", "unauthorized", "forbidden", "no-provider",
		"over-budget", "insufficient-funds", "user-error", "node-fault", "unavailable", "internal"}
	if got := Kinds(); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v: codes on the wire must not change", got, want)
	}
	for i, k := range Kinds() {
		e := Errorf(k, "why")
		if e.ErrorCode() != 1001+i || kinds[i].hint == "" || k.Fault() == "" {
			t.Errorf("%s: got code %d, fault %q", k, e.ErrorCode(), k.Fault())
		}
	}
}

// TestDocument compares the document with what the server knows.
func TestDocument(t *testing.T) {
	var doc struct {
		Methods []struct {
			Name, Summary string
			Params        []struct {
				Name   string
				Schema map[string]any
			}
			Streams []struct{ Name string } `json:"x-subscriptions"`
		}
		Components struct{ Schemas map[string]any }
	}
	if err := json.Unmarshal(Document(), &doc); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]int)
	for _, m := range doc.Methods {
		got[m.Name] = len(m.Params)
		if m.Summary == "" {
			t.Errorf("%s has no summary", m.Name)
		}
		for _, s := range m.Streams {
			got["stream "+s.Name] = 0
		}
	}
	want := map[string]int{"crowd_subscribe": 1, "crowd_unsubscribe": 1, "rpc.discover": 0, "rpc_modules": 0}
	served := reflect.TypeFor[methods]()
	for m := range served.Methods() {
		ins, _ := inOut(m.Type)
		want["crowd_"+lower(m.Name)] = len(ins)
	}
	for m := range reflect.TypeFor[streams]().Methods() {
		want["stream "+lower(m.Name)] = 0
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	refs := strings.Split(string(Document()), `"#/components/schemas/`)
	for _, ref := range refs[1:] {
		name, _, _ := strings.Cut(ref, `"`)
		if doc.Components.Schemas[name] == nil {
			t.Errorf("schema %s is missing", name)
		}
	}
}
