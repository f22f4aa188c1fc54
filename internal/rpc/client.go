package rpc

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"net/url"
	"strings"
	"sync"
	"time"

	geth "github.com/ethereum/go-ethereum/rpc"

	"github.com/crowdcompute/crowd"
)

// Client calls one node. Its errors are *Error. It may be used by many goroutines.
type Client struct {
	// set once
	end     Endpoint
	call    *geth.Client
	lasting bool      // call is one connection for all calls
	started time.Time // of the node that was dialled

	// guarded by mu
	mu     sync.Mutex
	stream *geth.Client // for subscriptions, made when first needed; may be call
}

// Dial connects to a node and asks who it is, so that a wrong address or token
// fails here.
func Dial(ctx context.Context, end Endpoint) (*Client, error) {
	c := &Client{end: end}
	var err error
	if end.Socket != "" {
		c.call, err = geth.DialIPC(ctx, end.Socket)
		c.stream = c.call
	} else {
		c.call, err = dialURL(ctx, end.URL, end.Token)
		if err == nil && strings.HasPrefix(end.URL, "ws") {
			c.stream = c.call
		}
	}
	if err != nil {
		return nil, fromWire("connect to node", err)
	}
	info, err := c.Info(ctx)
	if err != nil {
		c.Close()
		return nil, err
	}
	c.started, c.lasting = info.Started, c.stream != nil
	return c, nil
}

func dialURL(ctx context.Context, raw, token string) (*geth.Client, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || !strings.Contains(" http https ws wss ", " "+u.Scheme+" ") {
		return nil, Errorf(BadRequest, "node address %q: want a URL as http://127.0.0.1:8545", raw).
			WithHint("give the node's URL or its folder")
	}
	return geth.DialOptions(ctx, raw, geth.WithHeader("Authorization", "Bearer "+token))
}

// Endpoint is what the client was dialled with.
func (c *Client) Endpoint() Endpoint { return c.end }

// Close ends the connection and all streams.
func (c *Client) Close() {
	c.call.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream != nil {
		c.stream.Close()
	}
}

func do[T any](ctx context.Context, c *Client, op, method string, args ...any) (out T, err error) {
	err = c.ask(ctx, &out, op, method, args...)
	return out, err
}

func do0(ctx context.Context, c *Client, op, method string, args ...any) error {
	return c.ask(ctx, nil, op, method, args...)
}

func (c *Client) Info(ctx context.Context) (Info, error) {
	return do[Info](ctx, c, "describe node", "crowd_info")
}

func (c *Client) Quote(ctx context.Context, r PostRequest) (Quote, error) {
	return do[Quote](ctx, c, "quote job", "crowd_quote", r)
}

func (c *Client) Post(ctx context.Context, r PostRequest) (crowd.JobID, error) {
	return do[crowd.JobID](ctx, c, "post job", "crowd_post", r)
}

// PlanBatch asks how a batch would be sharded and checked.
func (c *Client) PlanBatch(ctx context.Context, r BatchRequest) (BatchQuote, error) {
	return do[BatchQuote](ctx, c, "plan batch", "crowd_planBatch", r)
}

// Parts tells what a settled job with parts holds for others.
func (c *Client) Parts(ctx context.Context, id crowd.JobID) (PartsView, error) {
	return do[PartsView](ctx, c, "list parts", "crowd_parts", id)
}

// Gather makes the manifest of a batch that reads parts of other jobs.
func (c *Client) Gather(ctx context.Context, r GatherRequest) (Gathered, error) {
	return do[Gathered](ctx, c, "gather parts", "crowd_gather", r)
}

// Probe tells which holders of a job's parts answer now.
func (c *Client) Probe(ctx context.Context, id crowd.JobID) ([]Holder, error) {
	return do[[]Holder](ctx, c, "probe holders", "crowd_probe", id)
}

// Pulse tells on whom an open job waits, and who of them answers now.
func (c *Client) Pulse(ctx context.Context, id crowd.JobID) (Pulse, error) {
	return do[Pulse](ctx, c, "feel the pulse of a job", "crowd_pulse", id)
}

func (c *Client) Cancel(ctx context.Context, id crowd.JobID) error {
	return do0(ctx, c, "cancel job", "crowd_cancel", id)
}

// Remove forgets ended jobs, at most 1000 of them.
func (c *Client) Remove(ctx context.Context, jobs []crowd.JobID) (Removed, error) {
	return do[Removed](ctx, c, "remove jobs", "crowd_remove", jobs)
}

// Prune forgets all jobs that ended before that time.
func (c *Client) Prune(ctx context.Context, before time.Time) (Removed, error) {
	return do[Removed](ctx, c, "remove old jobs", "crowd_prune", before)
}

// Jobs lists the newest jobs; limit 0 is as many as one answer may have.
func (c *Client) Jobs(ctx context.Context, limit int) ([]JobSummary, error) {
	return do[[]JobSummary](ctx, c, "list jobs", "crowd_jobs", orNil(limit))
}

// ResolveJob finds the job whose ID begins with prefix.
func (c *Client) ResolveJob(ctx context.Context, prefix string) (crowd.JobID, error) {
	return do[crowd.JobID](ctx, c, "find job", "crowd_resolveJob", prefix)
}

func (c *Client) Job(ctx context.Context, id crowd.JobID) (JobView, error) {
	return do[JobView](ctx, c, "describe job", "crowd_job", id)
}

func (c *Client) Explain(ctx context.Context, id crowd.JobID) (Explanation, error) {
	return do[Explanation](ctx, c, "explain job", "crowd_explain", id)
}

func (c *Client) Receipt(ctx context.Context, id crowd.JobID) ([]byte, error) {
	return do[[]byte](ctx, c, "get receipt", "crowd_receipt", id)
}

func (c *Client) Result(ctx context.Context, id crowd.JobID) (Result, error) {
	return do[Result](ctx, c, "get result", "crowd_result", id)
}

func (c *Client) ReadResult(ctx context.Context, id crowd.JobID, path string, offset int64, limit int) (Chunk, error) {
	return do[Chunk](ctx, c, "read result", "crowd_readResult", id, path, offset, orNil(limit))
}

func (c *Client) Accounts(ctx context.Context) ([]Account, error) {
	return do[[]Account](ctx, c, "list accounts", "crowd_accounts")
}

func (c *Client) Account(ctx context.Context, a crowd.Address) (Account, error) {
	return do[Account](ctx, c, "show account", "crowd_account", a)
}

func (c *Client) Providers(ctx context.Context) ([]Provider, error) {
	return do[[]Provider](ctx, c, "list providers", "crowd_providers")
}

func (c *Client) Reputation(ctx context.Context, a crowd.Address) (Reputation, error) {
	return do[Reputation](ctx, c, "show reputation", "crowd_reputation", a)
}

func (c *Client) Peers(ctx context.Context) ([]Peer, error) {
	return do[[]Peer](ctx, c, "list peers", "crowd_peers")
}

func (c *Client) Status(ctx context.Context) (Status, error) {
	return do[Status](ctx, c, "describe node", "crowd_status")
}

func (c *Client) Network(ctx context.Context) (Network, error) {
	return do[Network](ctx, c, "describe network", "crowd_network")
}

// Find looks a node up, by its ID, its key, or the first digits of the ID of a node that is known there.
func (c *Client) Find(ctx context.Context, node string) (Found, error) {
	return do[Found](ctx, c, "find node", "crowd_find", node)
}

// FindTag finds nodes that announce a tag; want 0 is as many as one answer may have.
func (c *Client) FindTag(ctx context.Context, tag string, want int) ([]Found, error) {
	return do[[]Found](ctx, c, "find tag", "crowd_findTag", tag, orNil(want))
}

// Send moves credits out of the node's account. After an error of the way it may have happened: look before sending again.
func (c *Client) Send(ctx context.Context, to crowd.Address, amount crowd.Credits) (crowd.Height, error) {
	return do[crowd.Height](ctx, c, "send credits", "crowd_send", to, amount)
}

// Leave takes the node out of the draw or, later, its stake back; it says which.
func (c *Client) Leave(ctx context.Context) (string, error) {
	return do[string](ctx, c, "stop providing", "crowd_leave")
}

func orNil(limit int) any {
	if limit == 0 {
		return nil
	}
	return limit
}

// ListResult yields the files and folders of a result, sorted by path.
func (c *Client) ListResult(ctx context.Context, id crowd.JobID) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		after := ""
		for {
			page, err := do[[]Entry](ctx, c, "list result", "crowd_listResult", id, after, nil)
			if err != nil {
				yield(Entry{}, err)
				return
			}
			for _, e := range page {
				// Sorted, or a wrong node could keep us here for ever.
				if e.Path <= after {
					yield(Entry{}, Errorf(Internal, "list result: %q is not behind %q", e.Path, after))
					return
				}
				if after = e.Path; !yield(e, nil) {
					return
				}
			}
			if len(page) == 0 {
				return
			}
		}
	}
}

// Download writes a file of a result to w and returns its size.
func (c *Client) Download(ctx context.Context, id crowd.JobID, path string, w io.Writer) (int64, error) {
	var at int64
	for {
		chunk, err := c.ReadResult(ctx, id, path, at, MaxChunk)
		if err != nil {
			return at, err
		}
		n, err := w.Write(chunk.Data)
		at += int64(n)
		switch {
		case err != nil:
			return at, fmt.Errorf("write %s: %w", path, err)
		case chunk.EOF:
			return at, nil
		case n == 0:
			return at, Errorf(Internal, "read %s: the node sends nothing at byte %d", path, at)
		}
	}
}

// UploadFile stores what r reads and returns its CID. progress, which may be nil,
// is told the bytes of each chunk sent.
func (c *Client) UploadFile(ctx context.Context, r io.Reader, progress func(int)) (crowd.CID, error) {
	return c.upload(ctx, KindFile, func(id string) error { return c.send(ctx, id, "", r, progress) })
}

// UploadFolder stores the files and folders of dir, which ScanFolder has to find no fault with. progress, which may be
// nil, is told the files that were sent, and the bytes of each chunk.
func (c *Client) UploadFolder(ctx context.Context, dir fs.FS, progress func(files, bytes int)) (crowd.CID, error) {
	if _, err := ScanFolder(ctx, dir); err != nil {
		return "", err
	}
	if progress == nil {
		progress = func(int, int) {}
	}
	return c.upload(ctx, KindFolder, func(id string) error {
		return fs.WalkDir(dir, ".", func(path string, d fs.DirEntry, err error) error {
			if err != nil || path == "." {
				return err
			}
			if d.IsDir() {
				return do0(ctx, c, "upload "+path, "crowd_writeUpload", id, path+"/", 0, []byte{})
			}
			if _, err := regular(dir, path, d); err != nil { // it may have changed: opening a pipe would wait
				return err
			}
			f, err := dir.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			err = c.send(ctx, id, path, f, func(n int) { progress(0, n) })
			if err == nil {
				progress(1, 0)
			}
			return err
		})
	})
}

func (c *Client) upload(ctx context.Context, kind string, fill func(id string) error) (crowd.CID, error) {
	id, err := do[string](ctx, c, "begin upload", "crowd_beginUpload", kind)
	if err != nil {
		return "", err
	}
	if err := fill(id); err != nil {
		// Best effort: what is not aborted expires.
		do0(context.WithoutCancel(ctx), c, "abort upload", "crowd_abortUpload", id)
		return "", err
	}
	return do[crowd.CID](ctx, c, "finish upload", "crowd_finishUpload", id)
}

func (c *Client) send(ctx context.Context, id, path string, r io.Reader, progress func(int)) error {
	buf := make([]byte, MaxChunk)
	for at := int64(0); ; {
		n, err := io.ReadFull(r, buf)
		end := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !end {
			return fmt.Errorf("%s: %w", strings.TrimSpace("read input "+path), err)
		}
		if n > 0 || at == 0 { // an empty file is one empty chunk
			if err := do0(ctx, c, strings.TrimSpace("upload "+path), "crowd_writeUpload", id, path, at, buf[:n]); err != nil {
				return err
			}
			at += int64(n)
			if progress != nil {
				progress(n)
			}
		}
		if end {
			return nil
		}
	}
}

// Watch yields what happened and happens to a job, from its beginning until a
// final stage. Every other end is an error.
func (c *Client) Watch(ctx context.Context, id crowd.JobID) iter.Seq2[JobEvent, error] {
	return func(yield func(JobEvent, error) bool) {
		final := false
		for ev, err := range listen[JobEvent](ctx, c, "watch job", "job", id) {
			if !yield(ev, err) || err != nil {
				return
			}
			final = final || ev.Stage.Final()
		}
		if !final {
			yield(JobEvent{}, Errorf(Unavailable, "watch job: the node ended the stream before the job ended").
				WithHint("watch it again; the history is kept"))
		}
	}
}

// Logs yields what a job's program has written and, with follow, writes until it ends.
func (c *Client) Logs(ctx context.Context, id crowd.JobID, follow bool) iter.Seq2[LogChunk, error] {
	return listen[LogChunk](ctx, c, "follow logs", "logs", id, follow)
}

func (c *Client) streamClient(ctx context.Context) (*geth.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stream == nil { // HTTP cannot carry notes: the same server speaks WebSocket
		s, err := dialURL(ctx, "ws"+strings.TrimPrefix(c.end.URL, "http"), c.end.Token)
		if err != nil {
			return nil, err
		}
		c.stream = s
	}
	return c.stream, nil
}

func listen[T any](ctx context.Context, c *Client, op string, args ...any) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		var zero T
		conn, err := c.streamClient(ctx)
		if err != nil {
			yield(zero, fromWire(op, err))
			return
		}
		// No capacity: go-ethereum's client queues what we have not taken yet, up to
		// 20,000 notes, and then ends the subscription.
		notes := make(chan note[T])
		wait, done := c.awaiting(ctx, conn)
		sub, err := conn.Subscribe(wait, namespace, notes, args...)
		err = gone(wait, op, err)
		done()
		if err != nil {
			yield(zero, fromWire(op, err))
			return
		}
		defer sub.Unsubscribe()
		for {
			select {
			case <-ctx.Done():
				yield(zero, fromWire(op, ctx.Err()))
				return
			case err := <-sub.Err():
				if err == nil {
					err = geth.ErrClientQuit
				}
				yield(zero, fromWire(op, err))
				return
			case n := <-notes:
				switch {
				case n.Error != nil:
					yield(zero, n.Error.error())
					return
				case n.End:
					return
				case n.Item == nil:
					yield(zero, Errorf(Internal, "%s: an empty note", op))
					return
				case !yield(*n.Item, nil):
					return
				}
			}
		}
	}
}
