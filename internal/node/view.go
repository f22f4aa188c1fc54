package node

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/crowdcompute/crowd"
	"github.com/crowdcompute/crowd/internal/ledger"
	"github.com/crowdcompute/crowd/internal/rpc"
)

// This file turns the ledger's records into what people see. All of it is a
// function of the record, so that a node that was away tells the same story.

// stage is the newest stage of j in that state.
func stage(j *ledger.Job, s ledger.JobState) rpc.Stage {
	switch s {
	case ledger.Posted, ledger.Claiming:
		return rpc.Posted
	case ledger.Running:
		return rpc.Running
	case ledger.Revealing, ledger.Unsealing:
		return rpc.Committed
	case ledger.Court:
		return rpc.Court
	case ledger.Delivering, ledger.Inspecting:
		if v := j.Verdict; v != nil && v.By == ledger.ByAudit {
			return rpc.Unchecked
		}
		return rpc.Checked
	case ledger.Settled:
		return rpc.Settled
	case ledger.Cancelled:
		return rpc.Cancelled
	}
	return rpc.Failed
}

func wallTime(t crowd.Time) time.Time { return time.UnixMilli(int64(t)).UTC() }

// audits reports whether p was given by an audit's lot: after the executor's, which was bound by then.
func audits(j *ledger.Job, p *ledger.Place) bool {
	if j.Audit == nil {
		return false
	}
	for i := range j.Places {
		if &j.Places[i] == p {
			return false
		}
		if j.Places[i].Node == j.Audit.Executor {
			return true
		}
	}
	return false
}

// committee lists who was drawn. Each proof is checked anew, here.
func committee(j *ledger.Job, units uint64) []rpc.Member {
	out := make([]rpc.Member, 0, len(j.Drawn))
	for i := range j.Drawn {
		d := &j.Drawn[i]
		m := rpc.Member{
			Node: d.Node, Role: "alternate", State: "claimed", Priority: binary.BigEndian.Uint64(d.Priority[:8]),
			ProofOK: d.Check(j.ID, j.Beacon, j.Tickets, units) == nil,
		}
		if p := j.Place(d.Node); p != nil {
			m.Role, m.State, m.Why = "executor", p.State.String(), p.Why
			m.Committed = p.Commitment != crowd.Hash{}
			if p.Opening != nil {
				m.Revealed, m.Gas = true, p.Opening.Outcome.Gas
			}
			m.Match = match(j, p)
			if audits(j, p) {
				m.Role = "auditor"
			}
			if p.Verifier {
				m.Role, m.Checks, m.Sample = "verifier", min(j.Spec.Plan.Checks, j.Spec.Items), sample(j, p)
			}
		}
		out = append(out, m)
	}
	return out
}

// match says whether what a place revealed is what was accepted; nil while that is not known.
func match(j *ledger.Job, p *ledger.Place) *bool {
	is := false
	switch {
	case p.Opening == nil:
		return nil
	case p.State == ledger.Fraud:
	case p.Verifier: // the owner accepts when it has compared all answers with the leaves; authorities do not compare
		if j.State != ledger.Settled || j.Inspected() {
			return nil
		}
		is = true
	case j.Verdict == nil:
		return nil
	case !j.Spec.Compare.Strict(): // it stands, so the court has found it within the tolerance, or they agreed
		is = p.State == ledger.Revealed
	default:
		is = p.Opening.Outcome == j.Verdict.Outcome
	}
	return &is
}

func verdict(j *ledger.Job) *rpc.Verdict {
	if j.Verdict == nil && !j.State.Ended() {
		return nil
	}
	v := &rpc.Verdict{Accepted: j.Verdict != nil && j.State != ledger.Failed}
	if j.Verdict != nil {
		v.Checked, v.Method = true, j.Spec.Plan.Method
		v.Why = "the drawn executors agree"
		switch j.Verdict.By {
		case ledger.ByAudit:
			v.Checked, v.Why = false, fmt.Sprintf("not checked: the lot did not choose it at a rate of %s, with %s credits of its executor's stake against a lie", percent(j.Audit.Rate), j.Audit.Stake)
		case ledger.ByCourt:
			v.Method, v.Why = "court", "the authorities re-executed the task"
			if !j.Spec.Compare.Strict() {
				v.Why += fmt.Sprintf(": numeric divergence, within %s; nobody is to blame for that", j.Spec.Compare)
			}
		case ledger.BySample:
			v.Method, v.Why = "sample", "the executor's outcomes are open, and so are the verifiers' answers to secret samples of them"
			if j.Dispute != nil {
				v.Why += fmt.Sprintf("; the court re-executed item %d, about which they differed", j.Dispute.Item)
			}
		}
		if o := j.Verdict.Outcome; o.UserError() {
			v.Blame = append(v.Blame, rpc.Blame{Fault: "user error", Why: o.Status.String() + exitText(o)})
		}
	} else {
		v.Why = lastStep(j).Why
		if v.Why == ledger.WhyUnjudged {
			v.Blame = append(v.Blame, rpc.Blame{Fault: "user error", Why: "the comparator"})
		}
	}
	for i := range j.Places {
		p := &j.Places[i]
		switch p.State {
		case ledger.Fraud:
			v.Blame = append(v.Blame, rpc.Blame{Node: &p.Node, Fault: "malice", Why: p.Why})
		case ledger.Dropped:
			v.Blame = append(v.Blame, rpc.Blame{Node: &p.Node, Fault: "node fault", Why: p.Why})
		}
	}
	return v
}

// audit is the lot of a job, nil where its plan has none or nobody has a place yet.
func audit(j *ledger.Job) *rpc.Audit {
	a := j.Audit
	if a == nil {
		return nil
	}
	v := &rpc.Audit{Executor: a.Executor, RatePPM: a.Rate, Stake: a.Stake, Height: a.At}
	if a.Beacon != (crowd.Hash{}) {
		chosen := a.Chosen(j.ID)
		v.Chosen = &chosen
	}
	return v
}

// percent is parts per million for people.
func percent(ppm uint32) string { return fmt.Sprintf("%.4g %%", float64(ppm)/1e4) }

func exitText(o crowd.Outcome) string {
	if o.Status == crowd.Exited {
		return fmt.Sprintf(" with code %d", o.ExitCode)
	}
	return ""
}

func outcome(j *ledger.Job) *rpc.Outcome {
	if j.Verdict == nil {
		return nil
	}
	return rpc.ViewOutcome(j.Verdict.Outcome)
}

func payments(j *ledger.Job) []rpc.Payment {
	var out []rpc.Payment
	for i := range j.Places {
		if p := &j.Places[i]; p.Slashed > 0 {
			out = append(out, rpc.Payment{Account: p.Node.Address(), Node: &p.Node, Change: -int64(p.Slashed), From: "stake", Why: "slashed: " + p.Why, Slashed: true})
		}
	}
	for _, p := range j.Payments {
		line := rpc.Payment{Account: p.To, Change: int64(p.Amount), From: "escrow", Why: p.Why}
		if p.Slashed {
			line.From = "stake"
		}
		if p.To == j.Owner.Address() {
			line.Node = &j.Owner
		}
		for i := range j.Places {
			if j.Places[i].Node.Address() == p.To {
				line.Node = &j.Places[i].Node
			}
		}
		out = append(out, line)
	}
	return out
}

func lastStep(j *ledger.Job) ledger.Step {
	if n := len(j.History); n > 0 {
		return j.History[n-1]
	}
	return ledger.Step{State: j.State}
}

// failure says in the border's terms why a job has no result; nil when it has or may get one.
func failure(j *ledger.Job) *rpc.Failure {
	if j.State != ledger.Failed {
		return nil
	}
	if why := lastStep(j).Why; why == ledger.WhyUnjudged {
		e := rpc.Errorf(rpc.UserError, "%s", why)
		return &rpc.Failure{Kind: e.Kind, Message: e.Error(), Hint: "a comparator exits with 0 if /in/a and /in/b are the same answer, else with 1, within its gas; a file is the same as itself"}
	}
	if why := impossible(j); why != nil {
		return why
	}
	e := rpc.Errorf(rpc.NodeFault, "%s", lastStep(j).Why)
	return &rpc.Failure{Kind: e.Kind, Message: e.Error(), Hint: "the escrow went back to the owner; run the job again: other nodes are drawn"}
}

// impossible says what was wrong with a job that no drawn node could do, as those nodes said; nil: they said nothing.
func impossible(j *ledger.Job) *rpc.Failure {
	if lastStep(j).Why != ledger.WhyNobody {
		return nil
	}
	var reasons [ledger.NoParts + 1]int
	most := ledger.Reason(0)
	for i := range j.Places {
		r := j.Places[i].GaveUp
		if reasons[r]++; r != 0 && (most == 0 || reasons[r] > reasons[most]) {
			most = r
		}
	}
	kind := rpc.NodeFault
	var what, hint string
	switch most {
	case ledger.TooSlow:
		kind, what, hint = rpc.UserError, "ran it until its wall time ended", "give it more --timeout or less to do; a program that touches much memory needs more time than its gas says"
	case ledger.CannotFetch:
		what, hint = "could not get its inputs", "keep the node that posted it running until its executors have the inputs; crowd doctor says whether others can reach it"
	case ledger.NoParts:
		what, hint = "could not get parts of other results", "run the jobs that made them again"
	case ledger.CannotRun:
		what, hint = "could not run it", "run it again: other nodes are drawn; if they fail too, the program asks for more than they have"
	default:
		return nil
	}
	e := rpc.Errorf(kind, "no drawn node could do the job: %d of %d %s", reasons[most], len(j.Places), what)
	return &rpc.Failure{Kind: e.Kind, Message: e.Error(), Hint: hint}
}

// event is what entering step i of j's history looks like to people. What the
// record says only of its newest state is told with the newest step.
func event(j *ledger.Job, i int, units uint64) rpc.JobEvent {
	s := j.History[i]
	ev := rpc.JobEvent{Time: wallTime(s.Time), Height: s.Height, Stage: stage(j, s.State), Why: s.Why}
	switch s.State {
	case ledger.Running, ledger.Revealing, ledger.Unsealing, ledger.Court:
		ev.Committee = committee(j, units)
	case ledger.Delivering, ledger.Inspecting:
		ev.Committee, ev.Verdict, ev.Outcome = committee(j, units), verdict(j), outcome(j)
	}
	if s.State.Ended() {
		ev.Committee, ev.Verdict, ev.Outcome = committee(j, units), verdict(j), outcome(j)
		ev.Payments, ev.Price, ev.Failure = payments(j), j.Spent(), failure(j)
	}
	return ev
}

func summary(j *ledger.Job) rpc.JobSummary {
	s := rpc.JobSummary{ID: j.ID, Stage: stage(j, j.State), Why: lastStep(j).Why, Program: j.Spec.Task.Program, Outcome: outcome(j), Updated: wallTime(lastStep(j).Time),
		Items: j.Spec.Items, Stdin: j.Spec.Task.Stdin}
	if len(j.History) > 0 {
		s.Posted = wallTime(j.History[0].Time)
	}
	if j.State.Ended() {
		s.Price = j.Spent()
	}
	return s
}

func request(spec *crowd.JobSpec) rpc.PostRequest {
	t, f := spec.Task, spec.Filters
	seed := t.Seed
	r := rpc.PostRequest{
		Program: t.Program, Inputs: t.Inputs, Stdin: t.Stdin, Args: t.Args, Env: t.Env, Seed: &seed,
		Limits:  rpc.Limits{Gas: t.Limits.Gas, Memory: t.Limits.Memory, Output: t.Limits.Output, WallMillis: t.Limits.Wall.Milliseconds()},
		Filters: rpc.Filters{MaxPrice: f.MaxPrice, Tags: f.Tags, Countries: f.Countries, Providers: f.Providers},
		Budget:  spec.Budget, Items: spec.Items, Parts: spec.Shuffle.Parts, Gather: spec.Shuffle.Gather,
	}
	if !spec.Compare.Strict() {
		r.Compare = spec.Compare.String()
	}
	switch p := &spec.Plan; {
	case p.Method == crowd.PlanSample:
		r.Plan = &rpc.SamplePlan{Verifiers: p.Verifiers, Checks: p.Checks, Replacements: p.Replacements}
	case spec.Items == 0:
		r.Check = &rpc.TaskPlan{Method: p.Method, Executors: p.Executors, RatePPM: p.Rate, Replacements: &p.Replacements}
	}
	return r
}

func provider(p *ledger.Provider, r *ledger.Reputation, maxMissed uint32) rpc.Provider {
	v := rpc.Provider{
		Node: p.ID, Address: p.ID.Address(), Price: p.Offer.Price, Country: p.Offer.Country, Owners: float64(p.Offer.Owners) / 1e6, Tags: p.Offer.Tags,
		Stake: p.Stake, Done: r.Done, Caught: r.Caught, Online: r.Missed < maxMissed,
	}
	switch {
	case p.Tombstoned:
		v.Suspended = "caught cheating"
	case p.Leaving != 0:
		v.Suspended = "leaving"
	case r.Missed >= maxMissed:
		v.Suspended = "asleep: missed its draws"
	}
	return v
}
