package verify

import (
	"fmt"

	"github.com/crowdcompute/crowd"
)

// Row is one line of what a person is told about a plan.
type Row struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Rows are p for people, in the order in which they are read.
func (p *BatchPlan) Rows() []Row {
	rows := []Row{
		{"method", p.describe()},
		{"shards", p.sharding()},
		{"nodes", fmt.Sprintf("%d: %d to execute, %d to verify", p.Nodes, p.Shards, p.Nodes-p.Shards)},
		{"compared", string(p.Comparator)},
		{"overhead", p.overhead()},
		{"a cheater escapes", p.Undetected.String()},
		{"a shard is wrong and accepted", p.Accepted.String()},
		{"any shard is wrong and accepted", "at most " + p.Any.String()},
		{"least stake of a node", p.MinStake.String()},
		{"executors' pay", p.Cost.Executors.String()},
		{"verification", p.Cost.Verification.String()},
		{"of both, burned", p.Cost.Burn.String()},
		{"margin, returned if not used", p.Cost.Margin.String()},
		{"locked in escrow", p.Cost.Escrow.String()},
	}
	if p.Wait > 0 {
		rows = append(rows, Row{"expected wait", p.Wait.String()})
	}
	for _, a := range p.Assumptions() {
		rows = append(rows, Row{"assumed", a})
	}
	return rows
}

func (p *BatchPlan) describe() string {
	switch p.Method {
	case crowd.PlanPair:
		return "pair: a second node re-executes every task"
	case MethodCommittee:
		return fmt.Sprintf("committee: %d more nodes re-execute every task", p.Verifiers)
	case MethodAudit:
		return fmt.Sprintf("audit: %s of the shards get one verifier, who re-executes %d of %s in secret", percent(uint64(p.CheckPPM)), p.Checks, count(p.Items, "task"))
	}
	return fmt.Sprintf("challenge: %s re-execute %d tasks each of every shard, chosen in secret", count(uint64(p.Verifiers), "verifier"), p.Checks)
}

func (p *BatchPlan) sharding() string {
	if p.Shards == 1 {
		return fmt.Sprintf("1 executor with %s", count(p.Items, "task"))
	}
	return fmt.Sprintf("%d executors with up to %s each", p.Shards, count(p.Items, "task"))
}

func (p *BatchPlan) overhead() string {
	s := fmt.Sprintf("%s of the useful gas", percent(p.OverheadPPM))
	switch {
	case p.Meets():
		return s
	case p.GoalItems == 0:
		return fmt.Sprintf("%s; under these assumptions it is never %s", s, percent(uint64(p.GoalPPM)))
	case p.Tasks >= p.GoalItems:
		return fmt.Sprintf("%s; above %s for want of nodes or stake", s, percent(uint64(p.GoalPPM)))
	}
	return fmt.Sprintf("%s; at most %s from %d tasks on", s, percent(uint64(p.GoalPPM)), p.GoalItems)
}

// Assumptions is under what p's probabilities hold, written out.
func (p *BatchPlan) Assumptions() []string {
	out := []string{
		fmt.Sprintf("at most %s of the drawn weight is bad, and all of it acts as one", percent(uint64(p.ColludingPPM))),
		"an honest verifier's sample is uniform, and nobody else learns it before the results are committed",
		"a difference goes to the court, more than 2/3 of which re-executes correctly",
	}
	if p.Checks < p.Items || p.CheckPPM < Million {
		out = append(out,
			fmt.Sprintf("a cheater gets at least %s of its tasks wrong (%d of %d); one that gets a single one wrong escapes with %s", percent(uint64(p.CheatPPM)), BadItems(p.Items, p.CheatPPM), p.Items, p.Scheme().Undetected(1)),
			fmt.Sprintf("cheating less often loses money, as every task is re-executed with a chance of at least %s and the cheater has %s at stake", percent(uint64(p.FloorPPM)), p.MinStake))
	}
	if p.Promise != Detection {
		out = append(out, "the executor is drawn as its verifiers are, so that it is bad with that share only")
	} else {
		out = append(out, "nothing about the executor: the chance of escaping is reckoned for one that cheats")
	}
	return out
}

// percent is parts per million as a percentage, as short as it can be.
func percent(ppm uint64) string { return fmt.Sprintf("%.4g %%", float64(ppm)/1e4) }

func count(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
