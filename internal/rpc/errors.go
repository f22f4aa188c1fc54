package rpc

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	geth "github.com/ethereum/go-ethereum/rpc"
)

// Kind says what went wrong, whose fault it is and what to do next. The list is
// closed and append-only: the order of kinds below gives the JSON-RPC codes.
type Kind string

const (
	BadRequest        Kind = "bad-request"
	NotFound          Kind = "not-found"
	Conflict          Kind = "conflict"
	TooLate           Kind = "too-late"
	TooLarge          Kind = "too-large"
	Unauthorized      Kind = "unauthorized"
	Forbidden         Kind = "forbidden"
	NoProvider        Kind = "no-provider"
	OverBudget        Kind = "over-budget"
	InsufficientFunds Kind = "insufficient-funds"
	UserError         Kind = "user-error"
	NodeFault         Kind = "node-fault"
	Unavailable       Kind = "unavailable"
	Internal          Kind = "internal"
)

// Whose fault an error is.
const (
	FaultCaller  = "caller"  // who sent the request; sending it again changes nothing
	FaultNetwork = "network" // nobody here; the same request may work later or elsewhere
	FaultNode    = "node"    // the node that answered
)

// kinds gives each kind its fault and the hint that serves when an error has no
// better one. Append only: the position is the wire code.
var kinds = []struct {
	kind        Kind
	fault, hint string
}{
	{BadRequest, FaultCaller, "correct the request; rpc.discover lists every method and its parameters"},
	{NotFound, FaultCaller, "check the name; crowd_jobs lists the jobs that this node knows"},
	{Conflict, FaultCaller, "look at the present state and decide again"},
	{TooLate, FaultCaller, "nothing can be done any more; the job's history says why"},
	{TooLarge, FaultCaller, "send less at once"},
	{Unauthorized, FaultCaller, "send the header 'Authorization: Bearer TOKEN'; TOKEN is in the file 'token' in the node's folder"},
	{Forbidden, FaultCaller, "call the node by its IP address or localhost, and not from another site's web page"},
	{NoProvider, FaultNetwork, "loosen the requirement that excludes most providers, or wait for more of them"},
	{OverBudget, FaultCaller, "raise the budget, or ask for less gas"},
	{InsufficientFunds, FaultCaller, "fund the account, or lower the budget"},
	{UserError, FaultCaller, "correct the program or its input; a run of it is paid and not repeated"},
	{NodeFault, FaultNetwork, "run the job again; other nodes are drawn"},
	{Unavailable, FaultNetwork, "try again later"},
	{Internal, FaultNode, "this is a fault of the node; its log says more"},
}

// codeBase is the JSON-RPC error code of the first kind. JSON-RPC 2.0 leaves
// all codes outside -32768..-32000 to applications.
const codeBase = 1001

// Kinds lists every kind, in the order of their codes.
func Kinds() []Kind {
	all := make([]Kind, len(kinds))
	for i, k := range kinds {
		all[i] = k.kind
	}
	return all
}

func (k Kind) index() int {
	for i := range kinds {
		if kinds[i].kind == k {
			return i
		}
	}
	return len(kinds) - 1 // a kind of a newer node: treat it as internal
}

// Fault is whose fault an error of this kind is.
func (k Kind) Fault() string { return kinds[k.index()].fault }

// Error is the only error that crosses the border, in either direction.
type Error struct {
	Kind Kind
	Op   string // what was being done, "post job"
	Hint string // what to do next, for people; never empty after the border
	Err  error  // what went wrong
}

// Errorf is an error of that kind; %w wraps.
func Errorf(k Kind, format string, a ...any) *Error {
	return &Error{Kind: k, Err: fmt.Errorf(format, a...)}
}

// WithHint sets what the caller should do next.
func (e *Error) WithHint(format string, a ...any) *Error {
	e.Hint = fmt.Sprintf(format, a...)
	return e
}

func (e *Error) Error() string {
	if e.Op == "" {
		return e.Err.Error()
	}
	return e.Op + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// ErrorCode and ErrorData are what go-ethereum's server puts on the wire.
func (e *Error) ErrorCode() int { return codeBase + e.Kind.index() }
func (e *Error) ErrorData() any { return errorData{e.Kind, e.Op, e.Hint} }

type errorData struct {
	Kind Kind   `json:"kind"`
	Op   string `json:"op"`
	Hint string `json:"hint"`
}

// wireError is an Error inside a value, as in the last note of a stream.
type wireError struct {
	Code    int       `json:"code"`
	Message string    `json:"message"`
	Data    errorData `json:"data"`
}

func (e *Error) wire() *wireError {
	return &wireError{e.ErrorCode(), e.Error(), errorData{e.Kind, e.Op, e.Hint}}
}

func (w *wireError) error() *Error { return w.Data.error(w.Message) }

// error is the Error that was put on the wire; its message there begins with the op.
func (d errorData) error(message string) *Error {
	return &Error{Kind: d.Kind, Op: d.Op, Hint: d.Hint, Err: errors.New(strings.TrimPrefix(message, d.Op+": "))}
}

// KindOf is the kind of err, Internal when it has none, and "" for nil.
func KindOf(err error) Kind {
	var e *Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &e):
		return e.Kind
	}
	return Internal
}

// atBorder makes err fit to leave the server: it has a kind, an op and a hint.
func atBorder(op string, err error) *Error {
	var e Error
	var inner *Error
	switch {
	case errors.As(err, &inner):
		e = *inner
		if inner != err { // keep what the layers between have said
			e.Err, e.Op = err, ""
		}
	case errors.Is(err, syscall.ENOSPC):
		e = Error{Kind: Unavailable, Err: err, Hint: "the node's disk is full: free some space"}
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		e = Error{Kind: Unavailable, Err: err, Hint: "the node stopped working on the request: try again"}
	default:
		e = Error{Kind: Internal, Err: err}
	}
	if e.Op == "" {
		e.Op = op
	}
	if e.Hint == "" {
		e.Hint = kinds[e.Kind.index()].hint
	}
	return &e
}

// fromWire turns what go-ethereum's client returned into an *Error.
func fromWire(op string, err error) error {
	if err == nil {
		return nil
	}
	fail := func(k Kind, err error) *Error {
		return &Error{Kind: k, Op: op, Hint: kinds[k.index()].hint, Err: err}
	}
	var (
		coded geth.Error
		data  geth.DataError
		web   geth.HTTPError
		own   *Error
		nerr  net.Error
	)
	switch {
	case errors.As(err, &own):
		return own
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return fail(Unavailable, err).WithHint("the node did not answer in time: try again")
	case errors.As(err, &web):
		var body struct{ Error *wireError }
		if json.Unmarshal(web.Body, &body) == nil && body.Error != nil {
			return body.Error.error()
		}
		return fail(Unavailable, err)
	case errors.As(err, &coded):
		if errors.As(err, &data) {
			raw, _ := json.Marshal(data.ErrorData())
			var d errorData
			if json.Unmarshal(raw, &d) == nil && d.Kind != "" {
				return d.error(coded.Error())
			}
		}
		switch c := coded.ErrorCode(); {
		case c == -32601:
			return fail(BadRequest, err).WithHint("the node is of another version than this program: use the same for both")
		case c == -32602, c == -32600, c == -32700:
			return fail(BadRequest, err)
		case c == -32002:
			return fail(Unavailable, err)
		}
		return fail(Internal, err)
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, geth.ErrClientQuit), errors.As(err, &nerr):
		return fail(Unavailable, err).WithHint("the node is not running, or has just stopped: start it with: crowd up")
	case strings.Contains(err.Error(), "HTTP status 401"): // go-ethereum's WebSocket handshake error has no type
		return fail(Unauthorized, err)
	case strings.Contains(err.Error(), "HTTP status 403"):
		return fail(Forbidden, err)
	}
	return fail(Unavailable, err).WithHint("the connection to the node broke: is it still running?")
}
