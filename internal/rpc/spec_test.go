package rpc_test

import (
	"bytes"
	"encoding/json"
	"os"
	"testing"

	geth "github.com/ethereum/go-ethereum/rpc"
)

// What rpc.discover gives is spec/openrpc.json, byte for byte but for JSON's white space on the wire.
// UPDATE_SPEC=1 writes the file.
func TestDiscover_IsTheDocumentInSpec(t *testing.T) {
	const path = "../../spec/openrpc.json"
	w := start(t)
	c, err := geth.DialContext(t.Context(), w.end.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var raw json.RawMessage
	if err := c.CallContext(t.Context(), &raw, "rpc.discover"); err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := json.Indent(&got, raw, "", "  "); err != nil {
		t.Fatal(err)
	}
	got.WriteByte('\n')
	if os.Getenv("UPDATE_SPEC") != "" {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%s is not what the server gives (UPDATE_SPEC=1 go test ./internal/rpc writes it)", path)
	}
}
