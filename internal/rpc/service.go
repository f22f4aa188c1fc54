package rpc

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	geth "github.com/ethereum/go-ethereum/rpc"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/batch"
)

const (
	namespace = "crowd"

	// maxList bounds the entries in one answer.
	maxList = 1000
	// maxStreams bounds the open subscriptions of all clients.
	maxStreams = 1024
)

// methods are the crowd_* calls: each exported method is one of them.
type methods struct{ s *Server }

// streams are the subscriptions: each exported method is the name of one.
type streams struct{ s *Server }

// discovery is the rpc.discover call.
type discovery struct{}

// Discover returns the OpenRPC document of this server.
func (discovery) Discover() json.RawMessage { return Document() }

// answer runs one call: it ends with the server, it cannot bring the node down,
// and its error is fit for the border.
func answer[T any](ctx context.Context, s *Server, op string, f func(context.Context) (T, error)) (out T, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.life, cancel)()
	defer func() {
		if p := recover(); p != nil {
			s.cfg.Log.Error("rpc call crashed", "op", op, "panic", p, "stack", string(debug.Stack()))
			err = atBorder(op, Errorf(Internal, "the call crashed"))
		} else if err != nil {
			err = atBorder(op, err)
		}
	}()
	return f(ctx)
}

type none = struct{}

func (m methods) Info(ctx context.Context) (Info, error) {
	return answer(ctx, m.s, "describe node", m.s.backend.Info)
}

func (m methods) BeginUpload(ctx context.Context, kind string) (string, error) {
	return answer(ctx, m.s, "begin upload", func(context.Context) (string, error) {
		return m.s.uploads.begin(kind)
	})
}

func (m methods) WriteUpload(ctx context.Context, upload, path string, offset int64, data []byte) error {
	_, err := answer(ctx, m.s, "write upload", func(context.Context) (none, error) {
		return none{}, m.s.uploads.write(upload, path, offset, data)
	})
	return err
}

func (m methods) FinishUpload(ctx context.Context, upload string) (crowd.CID, error) {
	return answer(ctx, m.s, "finish upload", func(ctx context.Context) (crowd.CID, error) {
		return m.s.uploads.finish(ctx, upload)
	})
}

func (m methods) AbortUpload(ctx context.Context, upload string) error {
	_, err := answer(ctx, m.s, "abort upload", func(context.Context) (none, error) {
		return none{}, m.s.uploads.abort(upload)
	})
	return err
}

func (m methods) Quote(ctx context.Context, request PostRequest) (Quote, error) {
	return answer(ctx, m.s, "quote job", func(ctx context.Context) (Quote, error) {
		if _, err := request.Spec(); err != nil {
			return Quote{}, err
		}
		return m.s.backend.Quote(ctx, request)
	})
}

func (m methods) Post(ctx context.Context, request PostRequest) (crowd.JobID, error) {
	return answer(ctx, m.s, "post job", func(ctx context.Context) (crowd.JobID, error) {
		if _, err := request.Spec(); err != nil {
			return crowd.JobID{}, err
		}
		return m.s.backend.Post(ctx, request)
	})
}

func (m methods) PlanBatch(ctx context.Context, request BatchRequest) (BatchQuote, error) {
	return answer(ctx, m.s, "plan batch", func(ctx context.Context) (BatchQuote, error) {
		return m.s.backend.PlanBatch(ctx, request)
	})
}

func (m methods) Cancel(ctx context.Context, job crowd.JobID) error {
	_, err := answer(ctx, m.s, "cancel job", func(ctx context.Context) (none, error) {
		return none{}, m.s.backend.Cancel(ctx, job)
	})
	return err
}

func (m methods) Remove(ctx context.Context, jobs []crowd.JobID) (Removed, error) {
	return answer(ctx, m.s, "remove jobs", func(ctx context.Context) (Removed, error) {
		if len(jobs) > maxList {
			return Removed{}, Errorf(TooLarge, "%d jobs, at most %d at once", len(jobs), maxList)
		}
		return m.s.backend.Remove(ctx, jobs)
	})
}

func (m methods) Prune(ctx context.Context, before time.Time) (Removed, error) {
	return answer(ctx, m.s, "remove old jobs", func(ctx context.Context) (Removed, error) {
		return m.s.backend.Prune(ctx, before)
	})
}

func (m methods) Jobs(ctx context.Context, limit *int) ([]JobSummary, error) {
	return answer(ctx, m.s, "list jobs", func(ctx context.Context) ([]JobSummary, error) {
		n, err := listLimit(limit)
		if err != nil {
			return nil, err
		}
		return listed(m.s.backend.Jobs(ctx, n))
	})
}

func (m methods) ResolveJob(ctx context.Context, prefix string) (crowd.JobID, error) {
	return answer(ctx, m.s, "find job", func(ctx context.Context) (crowd.JobID, error) {
		return m.s.resolveJob(ctx, prefix)
	})
}

func (s *Server) resolveJob(ctx context.Context, prefix string) (crowd.JobID, error) {
	p := strings.ToLower(strings.TrimPrefix(prefix, "0x"))
	if p == "" || len(p) > 2*len(crowd.JobID{}) || strings.Trim(p, "0123456789abcdef") != "" {
		return crowd.JobID{}, Errorf(BadRequest, "job %.80q: want the hex digits of a job ID, or its first ones", prefix)
	}
	found, err := s.backend.MatchJobs(ctx, p, 5)
	switch {
	case err != nil:
		return crowd.JobID{}, err
	case len(found) == 0:
		return crowd.JobID{}, Errorf(NotFound, "no job begins with %s", p)
	case len(found) > 1:
		var ids []string
		for _, id := range found {
			ids = append(ids, id.String()[:min(len(p)+4, 64)])
		}
		return crowd.JobID{}, Errorf(BadRequest, "several jobs begin with %s", p).
			WithHint("give more digits: %s", strings.Join(ids, ", "))
	}
	return found[0], nil
}

func (m methods) Job(ctx context.Context, job crowd.JobID) (JobView, error) {
	return answer(ctx, m.s, "describe job", func(ctx context.Context) (JobView, error) {
		return m.s.backend.Job(ctx, job)
	})
}

func (m methods) Explain(ctx context.Context, job crowd.JobID) (Explanation, error) {
	return answer(ctx, m.s, "explain job", func(ctx context.Context) (Explanation, error) {
		return m.s.backend.Explain(ctx, job)
	})
}

func (m methods) Receipt(ctx context.Context, job crowd.JobID) ([]byte, error) {
	return answer(ctx, m.s, "get receipt", func(ctx context.Context) ([]byte, error) {
		return m.s.backend.Receipt(ctx, job)
	})
}

func (m methods) Result(ctx context.Context, job crowd.JobID) (Result, error) {
	return answer(ctx, m.s, "get result", func(ctx context.Context) (Result, error) {
		return m.s.backend.Result(ctx, job)
	})
}

func (m methods) ListResult(ctx context.Context, job crowd.JobID, after string, limit *int) ([]Entry, error) {
	return answer(ctx, m.s, "list result", func(ctx context.Context) ([]Entry, error) {
		n, err := listLimit(limit)
		if err != nil {
			return nil, err
		}
		return listed(m.s.backend.ListResult(ctx, job, after, n))
	})
}

func (m methods) ReadResult(ctx context.Context, job crowd.JobID, path string, offset int64, limit *int) (Chunk, error) {
	return answer(ctx, m.s, "read result", func(ctx context.Context) (Chunk, error) {
		n := MaxChunk
		if limit != nil {
			n = *limit
		}
		if err := checkPath(path); err != nil {
			return Chunk{}, err
		}
		if offset < 0 || n < 1 || n > MaxChunk {
			return Chunk{}, Errorf(BadRequest, "read of %d bytes at offset %d: want 1 to %d bytes at 0 or more", n, offset, MaxChunk)
		}
		return m.s.backend.ReadResult(ctx, job, path, offset, n)
	})
}

func (m methods) Parts(ctx context.Context, job crowd.JobID) (PartsView, error) {
	return answer(ctx, m.s, "list parts", func(ctx context.Context) (PartsView, error) {
		return m.s.backend.Parts(ctx, job)
	})
}

func (m methods) Gather(ctx context.Context, request GatherRequest) (Gathered, error) {
	return answer(ctx, m.s, "gather parts", func(ctx context.Context) (Gathered, error) {
		if len(request.Jobs) == 0 || len(request.Jobs) > batch.MaxSources || len(request.Items) == 0 || len(request.Items) > crowd.MaxParts {
			return Gathered{}, Errorf(BadRequest, "%d jobs and %d items, want 1 to %d and 1 to %d", len(request.Jobs), len(request.Items), batch.MaxSources, crowd.MaxParts)
		}
		return m.s.backend.Gather(ctx, request)
	})
}

func (m methods) Probe(ctx context.Context, job crowd.JobID) ([]Holder, error) {
	return answer(ctx, m.s, "probe holders", func(ctx context.Context) ([]Holder, error) {
		return listed(m.s.backend.Probe(ctx, job))
	})
}

func (m methods) Pulse(ctx context.Context, job crowd.JobID) (Pulse, error) {
	return answer(ctx, m.s, "feel the pulse of a job", func(ctx context.Context) (Pulse, error) {
		p, err := m.s.backend.Pulse(ctx, job)
		p.Nodes, err = listed(p.Nodes, err)
		return p, err
	})
}

func (m methods) Accounts(ctx context.Context) ([]Account, error) {
	return answer(ctx, m.s, "list accounts", func(ctx context.Context) ([]Account, error) {
		return listed(m.s.backend.Accounts(ctx))
	})
}

func (m methods) Account(ctx context.Context, address crowd.Address) (Account, error) {
	return answer(ctx, m.s, "show account", func(ctx context.Context) (Account, error) {
		return m.s.backend.Account(ctx, address)
	})
}

func (m methods) Providers(ctx context.Context) ([]Provider, error) {
	return answer(ctx, m.s, "list providers", func(ctx context.Context) ([]Provider, error) {
		return listed(m.s.backend.Providers(ctx))
	})
}

func (m methods) Reputation(ctx context.Context, address crowd.Address) (Reputation, error) {
	return answer(ctx, m.s, "show reputation", func(ctx context.Context) (Reputation, error) {
		return m.s.backend.Reputation(ctx, address)
	})
}

func (m methods) Peers(ctx context.Context) ([]Peer, error) {
	return answer(ctx, m.s, "list peers", func(ctx context.Context) ([]Peer, error) {
		return listed(m.s.backend.Peers(ctx))
	})
}

func (m methods) Status(ctx context.Context) (Status, error) {
	return answer(ctx, m.s, "describe node", m.s.backend.Status)
}

func (m methods) Network(ctx context.Context) (Network, error) {
	return answer(ctx, m.s, "describe network", m.s.backend.Network)
}

// maxName bounds what somebody looks for, in bytes.
const maxName = 256

func (m methods) Find(ctx context.Context, node string) (Found, error) {
	return answer(ctx, m.s, "find node", func(ctx context.Context) (Found, error) {
		if len(node) > maxName {
			return Found{}, Errorf(BadRequest, "node: %d bytes, at most %d", len(node), maxName)
		}
		return m.s.backend.Find(ctx, node)
	})
}

func (m methods) FindTag(ctx context.Context, tag string, want *int) ([]Found, error) {
	return answer(ctx, m.s, "find tag", func(ctx context.Context) ([]Found, error) {
		n, err := listLimit(want)
		if err != nil {
			return nil, err
		}
		if len(tag) > maxName {
			return nil, Errorf(BadRequest, "tag: %d bytes, at most %d", len(tag), maxName)
		}
		return listed(m.s.backend.FindTag(ctx, tag, n))
	})
}

func (m methods) Send(ctx context.Context, to crowd.Address, amount crowd.Credits) (crowd.Height, error) {
	return answer(ctx, m.s, "send credits", func(ctx context.Context) (crowd.Height, error) {
		if amount == 0 {
			return 0, Errorf(BadRequest, "nothing is to be sent")
		}
		return m.s.backend.Send(ctx, to, amount)
	})
}

func (m methods) Leave(ctx context.Context) (string, error) {
	return answer(ctx, m.s, "stop providing", m.s.backend.Leave)
}

func listLimit(limit *int) (int, error) {
	if limit == nil {
		return maxList, nil
	}
	if *limit < 1 || *limit > maxList {
		return 0, Errorf(BadRequest, "limit %d: want 1 to %d", *limit, maxList)
	}
	return *limit, nil
}

// listed makes an empty list an empty array in JSON, not null.
func listed[T any](list []T, err error) ([]T, error) {
	if list == nil {
		list = []T{}
	}
	return list, err
}

// note is what a subscription sends: an item, or that there are no more.
type note[T any] struct {
	Item  *T         `json:"item,omitempty"`
	End   bool       `json:"end,omitempty"`
	Error *wireError `json:"error,omitempty"` // with End: the stream broke off
}

// Job streams a job's events: the history first, then what happens, until its end.
func (st streams) Job(ctx context.Context, job crowd.JobID) (*geth.Subscription, error) {
	return subscribe(ctx, st.s, "watch job", func(ctx context.Context) (<-chan JobEvent, error) {
		return st.s.backend.Watch(ctx, job)
	})
}

// Logs streams what a job's program writes.
func (st streams) Logs(ctx context.Context, job crowd.JobID, follow bool) (*geth.Subscription, error) {
	return subscribe(ctx, st.s, "follow logs", func(ctx context.Context) (<-chan LogChunk, error) {
		return st.s.backend.Logs(ctx, job, follow)
	})
}

// subscribe pumps open's channel to the caller. A slow reader slows the pump: the
// write blocks, and after ten seconds go-ethereum's codec gives the connection up.
func subscribe[T any](ctx context.Context, s *Server, op string, open func(context.Context) (<-chan T, error)) (*geth.Subscription, error) {
	notifier, ok := geth.NotifierFromContext(ctx)
	if !ok {
		return nil, geth.ErrNotificationsUnsupported
	}
	if s.streams.Add(1) > maxStreams {
		s.streams.Add(-1)
		return nil, atBorder(op, Errorf(Unavailable, "%d subscriptions are open already", maxStreams))
	}
	// The call's own context ends with the call; a stream lives until the client
	// unsubscribes, the connection breaks or the server stops.
	life, cancel := context.WithCancel(s.life)
	items, err := answer(ctx, s, op, func(context.Context) (<-chan T, error) { return open(life) })
	if err != nil {
		cancel()
		s.streams.Add(-1)
		return nil, err
	}
	sub := notifier.CreateSubscription()
	s.children.Go(func() {
		defer s.streams.Add(-1)
		defer cancel()
		for {
			select {
			case item, ok := <-items:
				n := note[T]{Item: &item}
				if !ok {
					n = note[T]{End: true}
					if life.Err() != nil {
						n.Error = atBorder(op, Errorf(Unavailable, "the node is stopping")).wire()
					}
				}
				if err := notifier.Notify(sub.ID, n); err != nil || !ok {
					return
				}
			case <-sub.Err():
				return
			case <-life.Done():
				err := atBorder(op, Errorf(Unavailable, "the node is stopping"))
				notifier.Notify(sub.ID, note[T]{End: true, Error: err.wire()})
				return
			}
		}
	})
	return sub, nil
}

// register puts the whole method set on a server of go-ethereum's.
func (s *Server) register() error {
	for _, part := range []struct {
		name string
		rcvr any
	}{{namespace, methods{s}}, {namespace, streams{s}}, {"rpc", discovery{}}} {
		if err := s.rpc.RegisterName(part.name, part.rcvr); err != nil {
			return fmt.Errorf("register %s: %w", part.name, err)
		}
	}
	return nil
}
