// Package rpc is the node's face: one set of JSON-RPC 2.0 methods over HTTP,
// WebSocket and a Unix socket, the client for it, and the views that both
// speak. It knows nothing of how a node works: that is behind Backend.
package rpc

import (
	"context"
	"io"
	"io/fs"
	"time"

	"github.com/crowdcompute/crowd"
)

// Backend is the node that the server serves. All methods may be called at the
// same time. Errors should be *Error; others reach the caller as Internal.
// A context ends when the caller is gone or the server stops.
type Backend interface {
	Info(ctx context.Context) (Info, error)

	// AddFile and AddFolder store content and pin it for a while, long enough for
	// a job that names it. r and dir are only good until the call returns.
	AddFile(ctx context.Context, r io.Reader) (crowd.CID, error)
	AddFolder(ctx context.Context, dir fs.FS) (crowd.CID, error)

	// Quote and Post get requests whose Spec is valid. Post returns once the job
	// is on its way to the chain and will not be forgotten.
	Quote(ctx context.Context, r PostRequest) (Quote, error)
	Post(ctx context.Context, r PostRequest) (crowd.JobID, error)
	PlanBatch(ctx context.Context, r BatchRequest) (BatchQuote, error)
	Cancel(ctx context.Context, id crowd.JobID) error // TooLate when it cannot be taken back

	// Remove forgets jobs, with their results and receipts: all of them, or with Conflict none if one has not ended. Prune
	// removes those that ended before then, except jobs whose result or receipt is still on its way.
	Remove(ctx context.Context, ids []crowd.JobID) (Removed, error)
	Prune(ctx context.Context, before time.Time) (Removed, error)

	Jobs(ctx context.Context, limit int) ([]JobSummary, error)                                // newest first
	MatchJobs(ctx context.Context, prefix string, limit int) ([]crowd.JobID, error)           // hex digits, lower case
	Job(ctx context.Context, id crowd.JobID) (JobView, error)                                 //
	Explain(ctx context.Context, id crowd.JobID) (Explanation, error)                         //
	Receipt(ctx context.Context, id crowd.JobID) ([]byte, error)                              // the file, byte for byte; Conflict before the job has ended
	Result(ctx context.Context, id crowd.JobID) (Result, error)                               // Conflict before it is delivered
	Watch(ctx context.Context, id crowd.JobID) (<-chan JobEvent, error)                       // history first, closed after a final stage
	Logs(ctx context.Context, id crowd.JobID, follow bool) (<-chan LogChunk, error)           // each stream once and in order; closed at its end
	ListResult(ctx context.Context, id crowd.JobID, after string, limit int) ([]Entry, error) // sorted by path, those behind after
	ReadResult(ctx context.Context, id crowd.JobID, path string, offset int64, limit int) (Chunk, error)

	// Of batches whose outputs go on in parts. Parts and Gather may ask holders for listings, and fetch no part.
	Parts(ctx context.Context, id crowd.JobID) (PartsView, error)
	Gather(ctx context.Context, r GatherRequest) (Gathered, error)
	Probe(ctx context.Context, id crowd.JobID) ([]Holder, error)
	Pulse(ctx context.Context, id crowd.JobID) (Pulse, error)

	Accounts(ctx context.Context) ([]Account, error) // of this node
	Account(ctx context.Context, a crowd.Address) (Account, error)
	Providers(ctx context.Context) ([]Provider, error)
	Reputation(ctx context.Context, a crowd.Address) (Reputation, error)
	Peers(ctx context.Context) ([]Peer, error)                                              // connected ones first
	Status(ctx context.Context) (Status, error)                                             //
	Network(ctx context.Context) (Network, error)                                           //
	Find(ctx context.Context, name string) (Found, error)                                   // by ID, key, or first digits of a known ID; NotFound
	FindTag(ctx context.Context, tag string, want int) ([]Found, error)                     // at most want
	Send(ctx context.Context, to crowd.Address, amount crowd.Credits) (crowd.Height, error) // once; the block that did it
	Leave(ctx context.Context) (string, error)                                              // the stake comes back by a second call; what became of it
}
