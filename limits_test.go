package crowd

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func planned(p Plan, items uint32) func(s *JobSpec) {
	return func(s *JobSpec) {
		s.Plan, s.Items = p, items
		s.Plan.Replacements = p.DefaultReplacements()
		if items > 0 {
			s.Task.Stdin, s.Task.Limits.Output = "bafyitems", 1<<10
		}
		s.Task.Limits.Gas = 1000
	}
}

// Every bound of a spec, at the limit and one beyond. The test finds the bounds in the source too: it fails if one has no line here.
func TestValidate_AtEveryLimit(t *testing.T) {
	pair, group, audit := planned(Plan{Method: PlanPair}, 0), planned(Plan{Method: PlanCommittee, Executors: 3}, 0), planned(Plan{Method: PlanAudit, Rate: AuditFloor}, 0)
	sample := planned(Plan{Method: PlanSample, Verifiers: 2, Checks: 2}, 4)
	long := func(n int) string { return strings.Repeat("x", n) }
	many := func(n int) []string { return slices.Repeat([]string{"x"}, n) }
	least := LeastWall(Limits{Gas: 1000, Memory: 64 << 20})
	limits := func(n uint64, f func(l *Limits, n uint64)) func(*JobSpec, uint64) {
		return func(s *JobSpec, beyond uint64) {
			f(&s.Task.Limits, n+beyond)
			s.Task.Limits.Wall = min(max(s.Task.Limits.Wall, LeastWall(s.Limits())), MaxWall)
		}
	}
	var refusals []string
	for _, tt := range []struct {
		name string
		base func(*JobSpec)
		set  func(s *JobSpec, beyond uint64) // beyond is 0 at the limit, and 1 or -1 past it
		past uint64
		says string
	}{
		{"no program", pair, func(s *JobSpec, n uint64) { s.Task.Program = CID(long(int(1 - n))) }, 1, "program: none"},
		{"program", pair, func(s *JobSpec, n uint64) { s.Task.Program = CID(long(int(MaxCID + n))) }, 1, "CID of"},
		{"inputs", pair, func(s *JobSpec, n uint64) { s.Task.Inputs = CID(long(int(MaxCID + n))) }, 1, "CID of"},
		{"stdin", pair, func(s *JobSpec, n uint64) { s.Task.Stdin = CID(long(int(MaxCID + n))) }, 1, "CID of"},
		{"arguments", pair, func(s *JobSpec, n uint64) { s.Task.Args = many(int(MaxArgs + n)) }, 1, "args and env"},
		{"environment", pair, func(s *JobSpec, n uint64) { s.Task.Env = slices.Repeat([]string{"A="}, int(MaxArgs+n)) }, 1, "args and env"},
		{"bytes of arguments", pair, func(s *JobSpec, n uint64) {
			s.Task.Env, s.Task.Args = nil, []string{long(MaxArgBytes/2 + int(n)), long(MaxArgBytes / 2)}
		}, 1, "args and env"},
		{"bytes of both", pair, func(s *JobSpec, n uint64) {
			s.Task.Args, s.Task.Env = []string{long(MaxArgBytes/2 + int(n))}, []string{"A=" + long(MaxArgBytes/2-2)}
		}, 1, "args and env"},
		{"a zero byte in an argument", pair, func(s *JobSpec, n uint64) { s.Task.Args = []string{"a\x01"[:2-n] + "\x00"[:n]} }, 1, "a zero byte"},
		{"a zero byte in the environment", pair, func(s *JobSpec, n uint64) { s.Task.Env = []string{"A=" + "\x00"[:n]} }, 1, "a zero byte"},
		{"bytes beyond UTF-8 in an argument", pair, func(s *JobSpec, n uint64) {
			s.Task.Args = []string{"caf" + "\xe9"[:n]}
		}, 1, "is not UTF-8"},
		{"bytes beyond UTF-8 in the environment", pair, func(s *JobSpec, n uint64) {
			s.Task.Env = []string{"A=" + "\xff"[:n]}
		}, 1, "is not UTF-8"},
		{"a name in the environment", pair, func(s *JobSpec, n uint64) { s.Task.Env = []string{"A"[n:] + "="} }, 1, "want NAME=value"},
		{"an equals sign in the environment", pair, func(s *JobSpec, n uint64) { s.Task.Env = []string{"A="[:2-n]} }, 1, "want NAME=value"},
		{"no gas", pair, limits(1, func(l *Limits, n uint64) { l.Gas = Gas(n) }), ^uint64(0), "gas is zero"},
		{"no memory", pair, limits(1, func(l *Limits, n uint64) { l.Memory = n }), ^uint64(0), "memory of"},
		{"memory", pair, limits(MaxMemory, func(l *Limits, n uint64) { l.Memory = n }), 1, "memory of"},
		{"output", pair, limits(MaxOutput, func(l *Limits, n uint64) { l.Output = n }), 1, "output of"},
		{"an item's output", sample, limits(MaxItemOutput, func(l *Limits, n uint64) { l.Output = n }), 1, "for an item, at most"},
		{"all items' output", planned(Plan{Method: PlanSample, Verifiers: 2, Checks: 2}, 1<<18), limits(MaxOutput>>18, func(l *Limits, n uint64) { l.Output = n }), 1, "for all of them together"},
		{"the longest wall", pair, func(s *JobSpec, n uint64) { s.Task.Limits.Wall = MaxWall + time.Duration(n) }, 1, "wall time of"},
		{"a wall for the gas", pair, func(s *JobSpec, n uint64) { s.Task.Limits.Wall = least + time.Duration(int64(n)) }, ^uint64(0), "a slow machine"},
		{"a wall of nothing", pair, func(s *JobSpec, n uint64) { s.Task.Limits.Wall = least * time.Duration(1-n) }, 1, "wall time of"},
		{"a negative wall", pair, func(s *JobSpec, n uint64) { s.Task.Limits.Wall = least - time.Duration(n)*(least+1) }, 1, "wall time of"},
		{"gas in the longest wall", pair, func(s *JobSpec, n uint64) {
			s.Task.Limits.Wall = MaxWall
			s.Task.Limits.Gas = Gas((MaxWall-LeastWall(Limits{Memory: s.Task.Limits.Memory}))/time.Millisecond)*(LeastSpeed/1000) + Gas(n)
		}, 1, "a slow machine"},
		{"items", planned(Plan{Method: PlanSample, Verifiers: 2, Checks: 2}, 1), func(s *JobSpec, n uint64) { s.Items = MaxItems + uint32(n); s.Task.Limits.Output = 1 }, 1, "items: "},
		{"a file of items", sample, func(s *JobSpec, n uint64) { s.Task.Stdin = CID("x"[n:]) }, 1, "no file that holds them"},
		{"gas of all items", sample, func(s *JobSpec, n uint64) {
			if s.Task.Limits.Wall = MaxWall; n == 1 {
				s.Task.Limits.Gas = maxGas/4 + 1
			}
		}, 1, "more than can be counted"},
		{"parts", sample, func(s *JobSpec, n uint64) { s.Shuffle.Parts = MaxParts + uint32(n) }, 1, "parts, at most"},
		{"items that gather", sample, func(s *JobSpec, n uint64) { s.Shuffle.Gather, s.Items = true, MaxParts+uint32(n) }, 1, "items that gather"},
		{"a shuffle of one task", pair, func(s *JobSpec, n uint64) { s.Shuffle.Parts = uint32(n) }, 1, "shuffle: only"},
		{"a shuffle of a pair", planned(Plan{Method: PlanPair}, 4), func(s *JobSpec, n uint64) { s.Shuffle.Parts = uint32(n) }, 1, "shuffle: only"},
		{"a pair's verifiers", pair, func(s *JobSpec, n uint64) { s.Plan.Verifiers = uint32(n) }, 1, "has no verifiers"},
		{"a pair's checks", pair, func(s *JobSpec, n uint64) { s.Plan.Checks = uint32(n) }, 1, "has no verifiers"},
		{"an audit's executors", audit, func(s *JobSpec, n uint64) { s.Plan.Executors = uint32(n) }, 1, "has no number of executors"},
		{"a committee's rate", group, func(s *JobSpec, n uint64) { s.Plan.Rate = uint32(n) }, 1, "has no rate"},
		{"replacements", pair, func(s *JobSpec, n uint64) { s.Plan.Replacements = MaxReplacements + uint32(n) }, 1, "replacements, at most"},
		{"an audit without a replacement", audit, func(s *JobSpec, n uint64) { s.Plan.Replacements = 1 - uint32(n) }, 1, "no replacement"},
		{"a sample without a replacement", sample, func(s *JobSpec, n uint64) { s.Plan.Replacements = 1 - uint32(n) }, 1, "no replacement"},
		{"an audit of a batch", audit, func(s *JobSpec, n uint64) { s.Items, s.Task.Stdin = uint32(n), "x" }, 1, "is for a single task"},
		{"a committee's batch", group, func(s *JobSpec, n uint64) { s.Items, s.Task.Stdin = uint32(n), "x" }, 1, "is for a single task"},
		{"the lowest rate", audit, func(s *JobSpec, n uint64) { s.Plan.Rate = AuditFloor + uint32(n) }, ^uint64(0), "a rate of"},
		{"the highest rate", audit, func(s *JobSpec, n uint64) { s.Plan.Rate = 1e6 + uint32(n) }, 1, "a rate of"},
		{"the smallest committee", group, func(s *JobSpec, n uint64) { s.Plan.Executors = MinCommittee + uint32(n) }, ^uint64(0), "executors, want"},
		{"the largest committee", group, func(s *JobSpec, n uint64) { s.Plan.Executors = MaxCommittee + uint32(n) }, 1, "executors, want"},
		{"a sample of one task", sample, func(s *JobSpec, n uint64) { s.Items = 1 - uint32(n) }, 1, "is for many items"},
		{"no verifier", sample, func(s *JobSpec, n uint64) { s.Plan.Verifiers = 1 + uint32(n) }, ^uint64(0), "verifiers with"},
		{"verifiers", sample, func(s *JobSpec, n uint64) { s.Plan.Verifiers = MaxVerifiers + uint32(n) }, 1, "verifiers with"},
		{"no check", sample, func(s *JobSpec, n uint64) { s.Plan.Checks = 1 + uint32(n) }, ^uint64(0), "verifiers with"},
		{"checks", sample, func(s *JobSpec, n uint64) { s.Plan.Checks = MaxChecks + uint32(n) }, 1, "verifiers with"},
		{"no plan", pair, func(s *JobSpec, n uint64) { s.Plan.Method = PlanPair[:len(PlanPair)*int(1-n)] }, 1, "unknown; known"},
		{"another plan", pair, func(s *JobSpec, n uint64) { s.Plan.Method = "pairs"[:4+n] }, 1, "unknown; known"},
		{"an audit's tolerance", audit, func(s *JobSpec, n uint64) { s.Compare.Kind = CompareLines[:len(CompareLines)*int(n)] }, 1, "nearly nobody looks"},
		{"a pair's tolerant batch", planned(Plan{Method: PlanPair}, 4), func(s *JobSpec, n uint64) { s.Compare.Kind = CompareLines[:len(CompareLines)*int(n)] }, 1, "compares every byte"},
		{"a tolerant shuffle", sample, func(s *JobSpec, n uint64) { s.Compare.Kind, s.Shuffle.Parts = CompareLines, uint32(n) }, 1, "cut from the bytes"},
		{"tags", pair, func(s *JobSpec, n uint64) { s.Filters.Tags = many(int(MaxFilter + n)) }, 1, "entries each"},
		{"countries", pair, func(s *JobSpec, n uint64) { s.Filters.Countries = many(int(MaxFilter + n)) }, 1, "entries each"},
		{"providers", pair, func(s *JobSpec, n uint64) { s.Filters.Providers = make([]NodeID, MaxFilter+n) }, 1, "entries each"},
		{"a tag", pair, func(s *JobSpec, n uint64) { s.Filters.Tags = []string{long(int(MaxFilter + n))} }, 1, "is longer"},
		{"a country", pair, func(s *JobSpec, n uint64) { s.Filters.Countries = []string{long(int(MaxFilter + n))} }, 1, "is longer"},
		{"a comparator's kind", pair, func(s *JobSpec, n uint64) { s.Compare.Kind = "liness"[:5+n] }, 1, "no way to compare"},
		{"a tolerance of lines", pair, func(s *JobSpec, n uint64) { s.Compare = Compare{Kind: CompareLines, Abs: n} }, 1, "takes no tolerance"},
		{"a relative tolerance of lines", pair, func(s *JobSpec, n uint64) { s.Compare = Compare{Kind: CompareLines, Rel: n} }, 1, "takes no tolerance"},
		{"no tolerance", pair, func(s *JobSpec, n uint64) { s.Compare = Compare{Kind: CompareNumeric, Abs: 1 - n} }, 1, "wants a tolerance"},
		{"a relative tolerance", pair, func(s *JobSpec, n uint64) { s.Compare = Compare{Kind: CompareNumeric, Rel: Parts - 1 + n} }, 1, "lets anything pass"},
		{"gas apart", pair, func(s *JobSpec, n uint64) { s.Compare = Compare{Kind: CompareLines, GasPPM: 500_000 + uint32(n)} }, 1, "gas apart"},
		{"gas apart of exact output", pair, func(s *JobSpec, n uint64) { s.Compare = Compare{GasPPM: uint32(n)} }, 1, "gas apart"},
		{"a comparator's gas", pair, func(s *JobSpec, n uint64) {
			s.Compare = Compare{Kind: CompareWasm, Program: "x", Gas: MaxCompareGas + Gas(n)}
		}, 1, "belong to"},
		{"a comparator without gas", pair, func(s *JobSpec, n uint64) { s.Compare = Compare{Kind: CompareWasm, Program: "x", Gas: 1 - Gas(n)} }, 1, "belong to"},
		{"a comparator without a program", pair, func(s *JobSpec, n uint64) { s.Compare = Compare{Kind: CompareWasm, Program: CID("x"[n:]), Gas: 1} }, 1, "belong to"},
		{"a comparator's program", pair, func(s *JobSpec, n uint64) {
			s.Compare = Compare{Kind: CompareWasm, Program: CID(long(MaxCID + int(n))), Gas: 1}
		}, 1, "belong to"},
		{"a program of lines", pair, func(s *JobSpec, n uint64) { s.Compare = Compare{Kind: CompareLines, Program: CID("x"[:n])} }, 1, "belong to"},
		{"gas of lines", pair, func(s *JobSpec, n uint64) { s.Compare = Compare{Kind: CompareLines, Gas: Gas(n)} }, 1, "belong to"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := spec()
			tt.base(s)
			tt.set(s, 0)
			if err := s.Validate(); err != nil {
				t.Errorf("at the limit: got %v", err)
			}
			s = spec()
			tt.base(s)
			tt.set(s, tt.past)
			err := s.Validate()
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("beyond it: got %v want %q", err, tt.says)
			}
			refusals = append(refusals, strings.Split(err.Error(), "\n")...)
		})
	}
	for _, format := range formats(t) {
		if !slices.ContainsFunc(refusals, format.MatchString) {
			t.Errorf("no line of this table goes beyond the bound that is refused with %q", format)
		}
	}
}

// formats are the texts with which Validate refuses, as the source has them.
func formats(t *testing.T) (out []*regexp.Regexp) {
	t.Helper()
	verb := regexp.MustCompile(`%[a-z]`)
	for file, where := range map[string]string{"job.go": "bad", "compare.go": "Errorf"} {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range parsed.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || f.Name.Name != "Validate" {
				continue
			}
			ast.Inspect(f, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) == 0 {
					return true
				}
				name := ""
				switch fun := call.Fun.(type) {
				case *ast.Ident:
					name = fun.Name
				case *ast.SelectorExpr:
					name = fun.Sel.Name
				}
				lit, ok := call.Args[0].(*ast.BasicLit)
				if name != where || !ok {
					return true
				}
				text, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Fatal(err)
				}
				var parts []string
				for _, p := range verb.Split(text, -1) {
					parts = append(parts, regexp.QuoteMeta(p))
				}
				out = append(out, regexp.MustCompile("^"+strings.Join(parts, ".*")+"$"))
				return true
			})
		}
	}
	if len(out) < 30 {
		t.Fatalf("got %d bounds in the source, want at least 30: how Validate refuses has changed", len(out))
	}
	return out
}
