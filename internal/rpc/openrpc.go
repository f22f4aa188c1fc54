package rpc

import (
	"context"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"sync"
	"time"
	"unicode"
)

// docs gives each served method its summary and its parameters' names, which Go's
// reflection does not know. Document fails loudly when it and the methods differ.
var docs = []struct{ method, summary, params string }{
	{"Info", "The node that answers.", ""},
	{"BeginUpload", `Opens an upload of a "file" or "folder"; returns its ID. Abandoned uploads expire.`, "kind"},
	{"WriteUpload", "Appends at most 1 MiB to a file of the upload. path is empty for a single file; a path that ends in a slash makes an empty folder. offset must be the file's present size.", "upload path offset data"},
	{"FinishUpload", "Stores the content and returns its CID.", "upload"},
	{"AbortUpload", "Forgets an upload.", "upload"},
	{"Quote", "What a job would cost at most, who could run it, how it would be checked.", "request"},
	{"Post", "Posts a job and returns its ID.", "request"},
	{"PlanBatch", "How many items would be cut into jobs and checked, what that costs and how sure it is; where that cannot be had, the nearest that can.", "request"},
	{"Cancel", "Takes a job back, while that is possible.", "job"},
	{"Remove", "Forgets ended jobs, with their results, receipts and what was uploaded for them alone; at most 1000. If one has not ended, none is removed.", "jobs"},
	{"Prune", "Forgets all jobs that ended before that time, as remove does.", "before"},
	{"Jobs", "The jobs that this node knows, newest first.", "limit"},
	{"ResolveJob", "The one job whose ID begins with the given hex digits.", "prefix"},
	{"Job", "All that the node knows of a job.", "job"},
	{"Explain", "Why a job is where it is, and the smallest change that would move it.", "job"},
	{"Receipt", "The signed receipt of a settled job.", "job"},
	{"Result", "The delivered result of a job, without its files.", "job"},
	{"ListResult", "The files and folders of a result, sorted by path, those behind after.", "job after limit"},
	{"ReadResult", "At most 1 MiB of a file of a result: stdout, stderr or out/…. Of a job with parts, a file that is not here is fetched then.", "job path offset limit"},
	{"Parts", "What a settled job with parts holds for others, and who has it. It fetches a listing, no part.", "job"},
	{"Gather", "Puts a manifest into the node's store that names, by jobs and numbers of parts, what the items of a batch consist of.", "request"},
	{"Probe", "Which holders of a settled job's parts answer now; it takes at most five seconds.", "job"},
	{"Pulse", "On whom an open job waits, and who of them answers now; it takes at most five seconds.", "job"},
	{"Accounts", "The accounts of this node.", ""},
	{"Account", "What an address owns.", "address"},
	{"Providers", "The providers that this node knows.", ""},
	{"Reputation", "What the chain knows of a node, with the evidence.", "address"},
	{"Peers", "The nodes that this one is connected to, then those that the overlay knows besides.", ""},
	{"Status", "How the node stands in its network.", ""},
	{"Network", "What somebody needs to join the network: its genesis, and seeds.", ""},
	{"Find", "Where a node is, by its own record. node is an ID, a key, or the first digits of the ID of a known node.", "node"},
	{"FindTag", "Nodes that announce a tag; it takes seconds where few do.", "tag want"},
	{"Send", "Moves credits of this node's account to another, once. Returns the block.", "to amount"},
	{"Leave", "Ends that this node is drawn as a provider; called again when its stake is free, it brings the stake back.", ""},
}

var streamDocs = []struct{ name, summary, params string }{
	{"Job", "A job's events: the history first, then what happens.", "job"},
	{"Logs", "What a job's program writes; with follow until it ends.", "job follow"},
}

// Document is the OpenRPC description of the method set, derived from the Go types.
var Document = sync.OnceValue(func() json.RawMessage {
	d := &documenter{schemas: map[string]any{}}
	var list []any
	served := reflect.TypeFor[methods]()
	if served.NumMethod() != len(docs) {
		panic(fmt.Sprintf("bug: %d methods are documented, %d served", len(docs), served.NumMethod()))
	}
	for _, doc := range docs {
		m, ok := served.MethodByName(doc.method)
		if !ok {
			panic("bug: " + doc.method + " is documented and not served")
		}
		list = append(list, d.method(namespace+"_"+lower(doc.method), doc.summary, m.Type, doc.params))
	}
	list = append(list, d.subscriptions()...)
	list = append(list,
		obj{"name": "rpc.discover", "summary": "This document.", "params": []any{},
			"result": obj{"name": "document", "schema": obj{"type": "object"}}},
		obj{"name": "rpc_modules", "summary": "The namespaces that are served.", "params": []any{},
			"result": obj{"name": "modules", "schema": obj{"type": "object", "additionalProperties": obj{"type": "string"}}}})
	out, err := json.MarshalIndent(obj{
		"openrpc": "1.3.2",
		"info": obj{
			"title":   "CrowdCompute node",
			"version": "1",
			"description": "JSON-RPC 2.0 over HTTP, WebSocket and a Unix socket; parameters by position. " +
				"HTTP and WebSocket want the header 'Authorization: Bearer TOKEN'. Subscriptions need WebSocket or the socket. " +
				"Credits are micro-credits, prices micro-credits per mega-gas, sizes bytes, times RFC 3339. " +
				"Every error has data: its kind, what was being done (op) and what to do next (hint).",
		},
		"methods":    list,
		"components": obj{"schemas": d.schemas, "errors": errorDocs()},
	}, "", "  ")
	if err != nil {
		panic("bug: " + err.Error())
	}
	return out
})

type obj = map[string]any

type documenter struct{ schemas map[string]any }

func (d *documenter) method(name, summary string, t reflect.Type, params string) obj {
	ins, outs := inOut(t)
	result := obj{"name": "result", "schema": obj{"type": "null"}}
	if len(outs) > 0 {
		result = obj{"name": "result", "schema": d.schema(outs[0])}
	}
	return obj{"name": name, "summary": summary, "paramStructure": "by-position",
		"params": d.params(name, ins, params), "result": result}
}

func (d *documenter) params(method string, ins []reflect.Type, names string) []any {
	list := []any{}
	fields := strings.Fields(names)
	if len(fields) != len(ins) {
		panic(fmt.Sprintf("bug: %s has %d parameters, %d documented", method, len(ins), len(fields)))
	}
	for i, t := range ins {
		list = append(list, obj{"name": fields[i], "required": t.Kind() != reflect.Pointer, "schema": d.schema(t)})
	}
	return list
}

// subscriptions documents crowd_subscribe once per stream name, under
// "x-subscriptions", since OpenRPC has no notion of them.
func (d *documenter) subscriptions() []any {
	served := reflect.TypeFor[streams]()
	if served.NumMethod() != len(streamDocs) {
		panic("bug: not all subscriptions are documented")
	}
	items := map[string]reflect.Type{"Job": reflect.TypeFor[note[JobEvent]](), "Logs": reflect.TypeFor[note[LogChunk]]()}
	var names, list []any
	for _, doc := range streamDocs {
		m, ok := served.MethodByName(doc.name)
		if !ok {
			panic("bug: " + doc.name + " is documented and not served")
		}
		ins, _ := inOut(m.Type)
		names = append(names, lower(doc.name))
		list = append(list, obj{"name": lower(doc.name), "summary": doc.summary,
			"params": d.params(doc.name, ins, doc.params), "notification": d.schema(items[doc.name])})
	}
	return []any{
		obj{"name": namespace + "_subscribe", "summary": "Opens a stream; its notes come as " + namespace + "_subscription. Further parameters as x-subscriptions says.",
			"paramStructure": "by-position", "x-subscriptions": list,
			"params": []any{obj{"name": "stream", "required": true, "schema": obj{"type": "string", "enum": names}}},
			"result": obj{"name": "subscription", "schema": obj{"type": "string"}}},
		obj{"name": namespace + "_unsubscribe", "summary": "Closes a stream.", "paramStructure": "by-position",
			"params": []any{obj{"name": "subscription", "required": true, "schema": obj{"type": "string"}}},
			"result": obj{"name": "closed", "schema": obj{"type": "boolean"}}},
	}
}

// inOut is a method's parameters without receiver and context, and its results
// without the error.
func inOut(t reflect.Type) (ins, outs []reflect.Type) {
	for in := range t.Ins() {
		ins = append(ins, in)
	}
	ins = ins[1:]
	if len(ins) > 0 && ins[0] == reflect.TypeFor[context.Context]() {
		ins = ins[1:]
	}
	for out := range t.Outs() {
		if out != reflect.TypeFor[error]() {
			outs = append(outs, out)
		}
	}
	return ins, outs
}

func (d *documenter) schema(t reflect.Type) obj {
	switch {
	case t.Kind() == reflect.Pointer:
		return d.schema(t.Elem())
	case t == reflect.TypeFor[time.Time]():
		return obj{"type": "string", "format": "date-time"}
	case t == reflect.TypeFor[json.RawMessage]():
		return obj{"type": "object"}
	case reflect.PointerTo(t).Implements(reflect.TypeFor[encoding.TextUnmarshaler]()):
		return obj{"type": "string", "title": t.Name()}
	case t == reflect.TypeFor[[]byte]():
		return obj{"type": "string", "contentEncoding": "base64"}
	}
	switch t.Kind() {
	case reflect.Bool:
		return obj{"type": "boolean"}
	case reflect.Float64:
		return obj{"type": "number"}
	case reflect.String:
		return obj{"type": "string"}
	case reflect.Int, reflect.Int64:
		return obj{"type": "integer"}
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		return obj{"type": "integer", "minimum": 0}
	case reflect.Slice:
		return obj{"type": "array", "items": d.schema(t.Elem())}
	case reflect.Struct:
		return d.object(t)
	}
	panic("bug: no schema for " + t.String())
}

// object puts a struct under components once and refers to it.
func (d *documenter) object(t reflect.Type) obj {
	name := schemaName(t)
	ref := obj{"$ref": "#/components/schemas/" + name}
	if _, ok := d.schemas[name]; ok {
		return ref
	}
	props := obj{}
	d.schemas[name] = obj{"type": "object", "properties": props}
	for _, f := range reflect.VisibleFields(t) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous || tag == "-" || tag == "" {
			continue
		}
		props[tag] = d.schema(f.Type)
	}
	return ref
}

func schemaName(t reflect.Type) string {
	name := t.Name()
	if outer, inner, ok := strings.Cut(strings.TrimSuffix(name, "]"), "["); ok { // note[….JobEvent]
		return upper(outer) + inner[strings.LastIndex(inner, ".")+1:]
	}
	return upper(name)
}

func errorDocs() obj {
	all := obj{}
	for i, k := range kinds {
		all[string(k.kind)] = obj{"code": codeBase + i, "message": "fault of the " + k.fault, "data": errorData{Kind: k.kind, Hint: k.hint}}
	}
	return all
}

func lower(s string) string { return string(unicode.ToLower(rune(s[0]))) + s[1:] }
func upper(s string) string { return string(unicode.ToUpper(rune(s[0]))) + s[1:] }
