package node

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/verify"
)

// divergencePatience is how long a convicted node is asked for what it was convicted of.
const divergencePatience = 10 * time.Second

// divergence looks, where a job of the class strict convicted somebody, whether the outputs are
// near each other, and tells the owner how to declare that. It is advice: the verdict stands.
func (n *Node) divergence(ctx context.Context, id crowd.JobID) {
	p, ok := n.book.look(id)
	if j := &p.job; ok && j.Verdict != nil && j.Verdict.By == ledger.ByCourt && j.Spec.Compare.Strict() && j.Spec.Items == 0 {
		for i := range j.Places {
			pl := &j.Places[i]
			if pl.State != ledger.Fraud || pl.Opening == nil || pl.Opening.Outcome.Status != j.Verdict.Outcome.Status || pl.Opening.Outcome.ExitCode != j.Verdict.Outcome.ExitCode {
				continue
			}
			advice, err := n.compareWith(ctx, j, pl)
			if err != nil {
				n.log.Info("look how far a wrong output is off", "job", id.Short(), "node", pl.Node.Short(), "err", err)
			} else if advice != "" {
				if err := n.book.setDivergence(id, advice); err != nil {
					n.log.Error("job book", "err", err)
				}
				return
			}
		}
	}
}

// compareWith fetches what a place committed to and holds its standard output against the accepted one.
func (n *Node) compareWith(ctx context.Context, j *ledger.Job, p *ledger.Place) (advice string, err error) {
	ctx, cancel := context.WithTimeout(ctx, divergencePatience)
	defer cancel()
	result := p.Opening.Outcome.Result
	if err := n.host.Fetch(ctx, result, j.Spec.Limits().Output+1<<20, []crowd.NodeID{p.Node}, nil); err != nil {
		return "", err
	}
	other := n.resultDir(j.ID) + "-convicted"
	if err := os.RemoveAll(other); err != nil { // of a life that ended here
		return "", err
	}
	defer os.RemoveAll(other)
	if err := n.store.Export(ctx, result, other, crowd.MaxOutput); err != nil {
		return "", err
	}
	var outs [2][]byte
	for i, d := range []string{n.resultDir(j.ID), other} {
		path := filepath.Join(d, "stdout")
		if st, err := os.Lstat(path); err != nil {
			return "", err
		} else if !st.Mode().IsRegular() || st.Size() > verify.MaxCompare {
			return "", nil
		}
		if outs[i], err = os.ReadFile(path); err != nil {
			return "", err
		}
	}
	d, err := verify.Detect(outs[:]...)
	return d.Advice(), err
}
