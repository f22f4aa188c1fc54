package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestJobFile(t *testing.T) {
	const good = `budget: 20
confidence: 0.999
out: frequent.txt
tags: [gpu]
stages:
  - name: count
    program: count.wasm
    inputs: [texts/*.txt, more.txt]
    by: lines=20
    gas: 20M
    writes: 0.2
  - name: sum
    program: /bin/sum.wasm
    from: count
    partitions: 8
  - name: frequent
    program: grep.wasm
    args: ['\t[0-9]{3,}$']
    from: [sum]
    confidence: 0.9
    tags: []
`
	w, err := parseJobFile("dir/job.yaml", []byte(good))
	if err != nil {
		t.Fatal(err)
	}
	if w.out != "dir/frequent.txt" || w.budget != 20e6 || len(w.stages) != 3 {
		t.Fatalf("got %+v", w)
	}
	a, b, c := w.stages[0], w.stages[1], w.stages[2]
	if a.program != "dir/count.wasm" || !slices.Equal(a.inputs, []string{"dir/texts/*.txt", "dir/more.txt"}) || a.by != "lines=20" || a.request.Limits.Gas != 20e6 || a.auto ||
		a.writes != 0.2 || a.request.Confidence != 0.999 || !slices.Equal(a.request.Filters.Tags, []string{"gpu"}) {
		t.Errorf("got %+v", a)
	}
	if b.program != "/bin/sum.wasm" || !slices.Equal(b.from, []string{"count"}) || b.partitions != 8 || !b.auto || b.writes != 1 {
		t.Errorf("got %+v", b)
	}
	if !slices.Equal(c.request.Args, []string{`\t[0-9]{3,}$`}) || c.request.Confidence != 0.9 || len(c.request.Filters.Tags) != 0 {
		t.Errorf("got %+v", c)
	}

	const one = "stages:\n- name: a\n  program: a.wasm\n  inputs: x\n"
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "", "job.yaml: it is empty"},
		{"no stages", "out: x\n", "job.yaml: no stages; a job file has a list of them"},
		{"no YAML", "stages: [\n", "job.yaml:1: did not find expected node content"},
		{"two documents", one + "---\n" + one, "job.yaml: more than one document"},
		{"no table", "- a\n", "job.yaml:1: want a table: stages, out, …, not a list"},
		{"an unknown name", one + "budgets: 3\n", "job.yaml:5: there is no budgets here; known: stages, out, "},
		{"an unknown name of a stage", one + "  porgram: 3\n", "job.yaml:5: there is no porgram here; known: name, program, "},
		{"the same twice", one + "  name: b\n", `job.yaml:5: mapping key "name" already defined at line 2`},
		{"a text for a number", one + "  partitions: many\n", "job.yaml:5: want a whole number, not many"},
		{"a text for a truth", one + "allow-failed: perhaps\n", "job.yaml:5: want true or false, not perhaps"},
		{"a list for a text", "stages:\n- name: [a]\n", "job.yaml:2: want one text, not a list"},
		{"a table for texts", one + "  args: {a: b}\n", "job.yaml:5: want one text, not a list or a table"},
		{"a text for stages", "stages: a\n", "job.yaml:1: want a list of stages, not a"},
		{"no name", "stages:\n- program: a.wasm\n", "job.yaml:2: stage 1 has no name"},
		{"a name that is a path", "stages:\n- name: ../a\n", `job.yaml:2: a stage cannot be called "../a"`},
		{"a name that is taken", "stages:\n- name: lock\n", `job.yaml:2: a stage cannot be called "lock"`},
		{"no program", "stages:\n- name: a\n", "job.yaml:2: stage a has no program"},
		{"no input", "stages:\n- name: a\n  program: a.wasm\n", "job.yaml:3: stage a needs either inputs (files) or from"},
		{"two kinds of input", one + "  from: b\n", "job.yaml:3: stage a needs either"},
		{"stdin", "stages:\n- name: a\n  program: a.wasm\n  inputs: ['-']\n", "job.yaml:4: stage a: a job file's inputs are files, not stdin"},
		{"gas", one + "  gas: much\n", `job.yaml:5: stage a: gas "much": want a number`},
		{"memory for all", one + "memory: 1XB\n", `job.yaml:5: stage a: memory "1XB": want a number`},
		{"output", one + "  max-output: 2MiB\n", "job.yaml:5: stage a: "},
		{"confidence", one + "  confidence: 1\n", `job.yaml:5: stage a: confidence "1": want a number between 0 and 1`},
		{"compare", one + "  compare: roughly\n", "job.yaml:5: stage a: compare"},
		{"timeout", one + "  timeout: soon\n", `job.yaml:5: stage a: timeout "soon": want a time`},
		{"by", one + "  by: words\n", "job.yaml:5: stage a: "},
		{"budget", one + "budget: all\n", "job.yaml:5: stage a: budget"},
		{"nothing is free", one + "budget: 0\n", "job.yaml:5: stage a: budget: nothing is free"},
		{"by of what others wrote", one + "- name: b\n  program: b.wasm\n  from: a\n  by: lines\n", "job.yaml:8: stage b: by is for files"},
		{"partitions of files", one + "  partitions: 3\n", "job.yaml:3: stage a: partitions are for a stage that reads others"},
		{"too many partitions", one + "- name: b\n  program: b.wasm\n  from: a\n  partitions: 5000\n", "job.yaml:6: stage b: 5000 partitions, at most 4096"},
		{"an unknown stage", one + "- name: b\n  program: b.wasm\n  from: c\n", "job.yaml:6: stage b reads c, which is no stage"},
		{"a circle", one + "- name: b\n  program: b.wasm\n  from: c\n- name: c\n  program: c.wasm\n  from: b\n", "job.yaml:9: the stages b → c → b wait for each other"},
		{"two ends and a file", one + "- name: b\n  program: b.wasm\n  inputs: y\nout: o\n", "job.yaml:8: nobody reads the stages a, b: out must be a folder"},
		{"a billion laughs", "stages: &a [x, x, x, x, x, x, x, x, x]\nout: &b [*a, *a, *a, *a, *a, *a, *a, *a]\nbudget: [*b, *b, *b, *b, *b, *b, *b]\n", "job.yaml:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := parseJobFile("job.yaml", []byte(c.text)); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got %v want %s", err, c.want)
			}
		})
	}
}

// FuzzJobFile: whatever the text, there is an answer, and a flow that is accepted has sound stages.
func FuzzJobFile(f *testing.F) {
	f.Add("stages:\n- name: a\n  program: a.wasm\n  inputs: x\n")
	f.Add("stages: &a\n- name: a\n  from: *a\n")
	f.Fuzz(func(t *testing.T, text string) {
		w, err := parseJobFile("job.yaml", []byte(text))
		if err != nil {
			return
		}
		for _, s := range w.stages {
			if !stageName.MatchString(s.name) || s.program == "" || (len(s.inputs) == 0) == (len(s.from) == 0) {
				t.Errorf("got %+v", s)
			}
		}
	})
}

// What the page about job files shows is one.
func TestJobFile_OfTheDocs(t *testing.T) {
	raw, err := os.ReadFile("../../docs/job.md")
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(raw), "```yaml\n")
	example, _, _ := strings.Cut(after, "```")
	w, err := parseJobFile("docs/job.yaml", []byte(example))
	if err != nil || len(w.stages) != 3 || w.stages[2].program != "bin/grep.wasm" {
		t.Errorf("got %+v, %v", w, err)
	}
	if file, err := os.ReadFile("../../docs/job.yaml"); err != nil || string(file) != example {
		t.Errorf("docs/job.yaml: %v; want what docs/job.md shows", err)
	}
	for name := range strings.SplitSeq(strings.ReplaceAll(knownFields["jobFile"]+", "+knownFields["jobStage"], "and for all stages: ", ""), ", ") {
		if !strings.Contains(string(raw), "`"+name+"`") {
			t.Errorf("docs/job.md does not say what %s is", name)
		}
	}
}

// What goes from stage to stage is compared byte for byte: a comparator that allows more is refused at both ends of an edge.
func TestJobFile_NoLooseComparatorOnAnEdge(t *testing.T) {
	for _, stage := range []string{"a", "b"} {
		text := "stages:\n- name: a\n  program: a.wasm\n  inputs: x\n  compare: A\n- name: b\n  program: b.wasm\n  from: a\n  compare: B\n"
		text = strings.NewReplacer("compare: "+strings.ToUpper(stage), "compare: numeric:rel=1e-6", "compare: A", "compare: exact", "compare: B", "compare: exact").Replace(text)
		w, err := parseJobFile("job.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for i := range w.stages {
			w.stages[i].program = "jobfile_test.go" // any file
		}
		if err := w.check(&app{}); err == nil || !strings.Contains(err.Error(), "stage "+stage+": numeric") {
			t.Errorf("%s: got %v", stage, err)
		}
	}
}

// Files that the README has its readers type lie in a fresh clone, or are built or written by what they typed before.
func TestREADME_NamesWhatIsThere(t *testing.T) {
	raw, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile(`(?m)crowd (?:plan|map) (?:bin/\S+ )?'?([^\s'` + "`" + `-][^\s'` + "`" + `]*)|--in (\S+)`)
	found := named.FindAllStringSubmatch(string(raw), -1)
	for _, m := range found {
		if files, err := filepath.Glob(filepath.Join("../..", m[1]+m[2])); err != nil || len(files) == 0 {
			t.Errorf("%q: there is no file %s", m[0], m[1]+m[2])
		}
	}
	if len(found) < 4 {
		t.Errorf("got %q, want more: does this test still read the README?", found)
	}
}
