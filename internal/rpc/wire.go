package rpc

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"time"

	"github.com/gorilla/websocket"
)

// maxMessage bounds one message to the server, in bytes: a chunk of an upload
// in base64 and room for the rest.
const maxMessage = 2 << 20

// errMessage ends a connection whose peer sends something else than messages.
var errMessage = errors.New("not a JSON-RPC message of at most 2 MiB")

// renameDiscover makes OpenRPC's "rpc.discover" reachable: go-ethereum's server
// wants an underscore between namespace and method.
func renameDiscover(msg []byte) []byte {
	if !bytes.Contains(msg, []byte("rpc.discover")) {
		return msg
	}
	one := func(raw json.RawMessage) json.RawMessage {
		var call map[string]json.RawMessage
		if json.Unmarshal(raw, &call) != nil || string(call["method"]) != `"rpc.discover"` {
			return raw
		}
		call["method"] = json.RawMessage(`"rpc_discover"`)
		out, err := json.Marshal(call)
		if err != nil {
			return raw
		}
		return out
	}
	var batch []json.RawMessage
	if json.Unmarshal(msg, &batch) != nil {
		return one(msg)
	}
	for i := range batch {
		batch[i] = one(batch[i])
	}
	out, err := json.Marshal(batch)
	if err != nil {
		return msg
	}
	return out
}

// messageEnd finds where the JSON object or array at the start of b ends: the
// length, 0 when more bytes are needed, or an error when b starts with neither.
// It only counts brackets outside of strings; the codec judges the rest.
func messageEnd(b []byte, from *scanState) (int, error) {
	for ; from.pos < len(b); from.pos++ {
		c := b[from.pos]
		switch {
		case from.escaped:
			from.escaped = false
		case from.quoted:
			from.escaped, from.quoted = c == '\\', c != '"'
		case c == '{' || c == '[':
			from.depth++
		case from.depth == 0:
			if c != ' ' && c != '\t' && c != '\r' && c != '\n' {
				return 0, errMessage
			}
		case c == '"':
			from.quoted = true
		case c == '}' || c == ']':
			if from.depth--; from.depth == 0 {
				from.pos++
				return from.pos, nil
			}
		}
	}
	return 0, nil
}

// scanState is where messageEnd stopped for want of bytes.
type scanState struct {
	pos, depth      int
	quoted, escaped bool
}

// socketConn cuts the byte stream of a Unix socket into messages of bounded size
// before the codec, which has no bound of its own, sees them.
type socketConn struct {
	net.Conn

	// reader's goroutine only
	ready []byte // of the current message, not yet handed on
	buf   []byte // read, but no whole message yet
}

func (c *socketConn) Read(p []byte) (int, error) {
	if len(c.ready) == 0 {
		if err := c.next(); err != nil {
			if errors.Is(err, errMessage) {
				answer, _ := json.Marshal(refusal(Errorf(BadRequest, "%w", err)))
				c.Conn.Write(append(answer, '\n')) // the codec would only hang up
			}
			return 0, err
		}
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

func (c *socketConn) next() error {
	var scan scanState
	for {
		end, err := messageEnd(c.buf, &scan)
		if err != nil {
			return err
		}
		if end > 0 {
			c.ready = renameDiscover(c.buf[:end:end])
			// The tail is copied, so that one large message does not pin its buffer.
			c.buf = append([]byte(nil), c.buf[end:]...)
			return nil
		}
		if len(c.buf) > maxMessage {
			return errMessage
		}
		grown := len(c.buf)
		c.buf = append(c.buf, make([]byte, max(4096, min(grown, 1<<18)))...)
		n, err := c.Conn.Read(c.buf[grown:])
		c.buf = c.buf[:grown+n]
		if n == 0 && err != nil {
			return err
		}
	}
}

// webSocketConn shows a WebSocket as the stream of messages that the codec wants.
type webSocketConn struct {
	*websocket.Conn

	// reader's goroutine only
	ready []byte
}

func (c *webSocketConn) Read(p []byte) (int, error) {
	for len(c.ready) == 0 {
		_, msg, err := c.ReadMessage() // bounded by SetReadLimit
		if err != nil {
			return 0, io.EOF
		}
		var scan scanState
		if end, err := messageEnd(msg, &scan); err != nil || end == 0 {
			reason := websocket.FormatCloseMessage(websocket.CloseUnsupportedData, errMessage.Error())
			c.WriteControl(websocket.CloseMessage, reason, time.Now().Add(time.Second))
			return 0, errMessage
		}
		c.ready = renameDiscover(msg)
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// Write sends one message: the codec writes each of them in one call.
func (c *webSocketConn) Write(p []byte) (int, error) {
	if err := c.WriteMessage(websocket.TextMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *webSocketConn) RemoteAddr() string { return c.Conn.RemoteAddr().String() }

// SetWriteDeadline is websocket.Conn's; named here because the codec needs it.
func (c *webSocketConn) SetWriteDeadline(t time.Time) error { return c.Conn.SetWriteDeadline(t) }
